package tipserve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	tipserve "github.com/tipserve/tipserve/clients/go"
)

// authority issues certificates for 127.0.0.1.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem")}
	a.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))(t)
	a.certificate = must(x509.ParseCertificate(der))(t)
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes a certificate and its key, and returns their files.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	folder := t.TempDir()
	certFile, keyFile = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key))(t)
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key))(t))
	return certFile, keyFile
}

// secure is a fake server that speaks TLS; with clients it asks for their
// certificates.
func secure(t *testing.T, server, clients *authority) *fake {
	t.Helper()
	settings := &tls.Config{Certificates: []tls.Certificate{must(tls.LoadX509KeyPair(server.issue(t, "server")))(t)}}
	if clients != nil {
		settings.ClientAuth = tls.RequireAndVerifyClientCert
		settings.ClientCAs = x509.NewCertPool()
		settings.ClientCAs.AddCert(clients.certificate)
	}
	return start(t, &fake{options: []grpc.ServerOption{grpc.Creds(credentials.NewTLS(settings))}})
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	f := secure(t, ours, nil)
	once := tipserve.WithRetry(tipserve.NoRetry)
	pool := x509.NewCertPool()
	pool.AddCert(ours.certificate)
	for name, c := range map[string]struct {
		address string
		options []tipserve.Option
		works   bool
	}{
		"the authority's file":  {f.address, []tipserve.Option{tipserve.WithCA(ours.file)}, true},
		"https and the file":    {"https://" + f.address, []tipserve.Option{tipserve.WithCA(ours.file)}, true},
		"tls.Config":            {f.address, []tipserve.Option{tipserve.WithTLS(&tls.Config{RootCAs: pool})}, true},
		"file, then tls.Config": {f.address, []tipserve.Option{tipserve.WithCA(ours.file), tipserve.WithTLS(nil)}, true},
		"with a token":          {f.address, []tipserve.Option{tipserve.WithCA(ours.file), tipserve.WithToken("s")}, true},
		"another authority":     {f.address, []tipserve.Option{tipserve.WithCA(theirs.file)}, false},
		"the system's":          {"https://" + f.address, nil, false},
		"plain text":            {f.address, nil, false},
	} {
		_, err := dial(t, c.address, append(c.options, once)...).ServerInfo(within(t))
		if (err == nil) != c.works || err != nil && !errors.Is(err, tipserve.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		// There is a server: starting one is no advice.
		if err != nil && name != "plain text" && !strings.Contains(err.Error(), "TLS with the server at "+f.address) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOfANamesAddressesTheOneThatAnsweredSaysWhatIsWrong(t *testing.T) {
	f, theirs := secure(t, newAuthority(t), nil), newAuthority(t)
	for _, addresses := range [][]string{{f.address, unused(t)}, {unused(t), f.address}} {
		name := manual.NewBuilderWithScheme("dns")
		var state resolver.State
		for _, address := range addresses {
			at := resolver.Address{Addr: address}
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{at}})
		}
		name.InitialState(state)
		client := dial(t, "dns:///"+f.address, tipserve.WithCA(theirs.file), tipserve.WithRetry(tipserve.NoRetry),
			tipserve.WithDialOptions(grpc.WithResolvers(name)))
		// gRPC goes round the addresses, in what it says too.
		for range 4 {
			_, err := client.ServerInfo(within(t))
			if err == nil || !strings.Contains(err.Error(), "cannot speak TLS") || !strings.Contains(err.Error(), "x509") {
				t.Errorf("%v: %v", addresses, err)
			}
		}
	}
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	f := secure(t, ours, ours)
	once := tipserve.WithRetry(tipserve.NoRetry)
	ask := func(options ...tipserve.Option) error {
		_, err := dial(t, f.address, append(options, once)...).ServerInfo(within(t))
		return err
	}
	if err := ask(tipserve.WithCA(ours.file)); err == nil {
		t.Error("without a certificate")
	}
	if err := ask(tipserve.WithCA(ours.file), tipserve.WithClientCertificate(theirs.issue(t, "stranger"))); err == nil {
		t.Error("with a stranger's certificate")
	}
	// One that is renewed is read anew for the next connection.
	certFile, keyFile := theirs.issue(t, "soon renewed")
	client := dial(t, f.address, tipserve.WithClientCertificate(certFile, keyFile), tipserve.WithCA(ours.file),
		tipserve.WithRetry(patient), tipserve.WithWait(time.Minute))
	short, cancel := context.WithTimeout(within(t), 200*time.Millisecond)
	defer cancel()
	if _, err := client.ServerInfo(short); err == nil {
		t.Error("with a stranger's certificate")
	}
	newCert, newKey := ours.issue(t, "renewed")
	for from, to := range map[string]string{newCert: certFile, newKey: keyFile} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.ServerInfo(within(t)); err != nil {
		t.Error(err)
	}
}
