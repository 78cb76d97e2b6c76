package tipserve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// everyCall makes a call of each kind.
func everyCall(t *testing.T, client *tipserve.Client) map[string]error {
	ctx := within(t)
	examples := tipserve.Examples(tipserve.Example{Class: "cat", Picture: tipserve.FromBytes([]byte("x"))})
	_, list := collect(client.Classify(ctx, "pets", numbered(3)))
	_, info := client.ServerInfo(ctx)
	_, version := client.GetVersion(ctx, "pets")
	_, made := client.CreateCache(ctx, &pb.CacheSpec{CacheId: "pets"}, examples)
	_, evaluated := client.Evaluate(ctx, examples, "pets")
	_, tuned := client.FineTune(ctx, &pb.FineTuneRequest{Cache: "pets"}, nil)
	_, exported := client.ExportVersion(ctx, "pets", io.Discard)
	return map[string]error{
		"Classify": list, "ServerInfo": info, "GetVersion": version, "CreateCache": made,
		"Evaluate": evaluated, "FineTune": tuned, "ExportVersion": exported,
	}
}

// unused is an address that nobody listens at.
func unused(t *testing.T) string {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer listener.Close()
	return listener.Addr().String()
}

func TestNoServerIsSaidAtOnce(t *testing.T) {
	address := unused(t)
	// With the default policy, whose retries take a quarter of a minute.
	client := dial(t, address, tipserve.WithRetry(tipserve.DefaultRetry))
	for name, err := range everyCall(t, client) {
		var failed *tipserve.Error
		if !errors.As(err, &failed) || !errors.Is(err, tipserve.ErrUnavailable) {
			t.Fatalf("%s: %v", name, err)
		}
		if failed.Reason != tipserve.ReasonServerUnreachable || failed.Metadata["server"] != address {
			t.Errorf("%s: %v %v", name, failed.Reason, failed.Metadata)
		}
		for _, words := range []string{
			"no tipserve server answers at " + address, "connection refused",
			"tipserve serve --bundle DIR --store DIR --listen " + address, "TIPSERVE_SERVER",
		} {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %q is not in %v", name, words, err)
			}
		}
	}
}

func TestAPortThatIsSilentIsNoServer(t *testing.T) {
	// Nobody accepts: the kernel does, as it does for a stopped server.
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer listener.Close()
	client := dial(t, listener.Addr().String(), tipserve.WithConnectTimeout(200*time.Millisecond))
	for name, err := range everyCall(t, client) {
		var failed *tipserve.Error
		if !errors.As(err, &failed) || failed.Reason != tipserve.ReasonServerUnreachable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClientCanWaitForItsServer(t *testing.T) {
	f := &fake{address: unused(t), limits: map[string]int64{}, tries: map[string]int{}}
	client := dial(t, f.address, tipserve.WithWait(time.Minute))
	go func() {
		time.Sleep(300 * time.Millisecond)
		f.listen(t)
	}()
	if _, err := client.ServerInfo(within(t)); err != nil {
		t.Fatal(err)
	}
	// One that was there and has gone is waited for as the policy says.
	f.stop()
	client = dial(t, f.address, tipserve.WithWait(0))
	if _, err := client.ServerInfo(within(t)); !errors.Is(err, tipserve.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestATimeoutOfTheClientsOwnSaysSo(t *testing.T) {
	forever := make(chan struct{})
	f := start(t, &fake{unary: map[string]func(any) (any, error){
		"GetVersion": func(any) (any, error) { <-forever; return nil, context.Canceled },
	}})
	defer close(forever)
	client := dial(t, f.address, tipserve.WithTimeout(150*time.Millisecond))
	_, err := client.GetVersion(context.Background(), "pets")
	var failed *tipserve.Error
	if !errors.As(err, &failed) || failed.Reason != tipserve.ReasonTimeout ||
		!errors.Is(err, context.DeadlineExceeded) ||
		!strings.Contains(err.Error(), "no answer from "+f.address+" within 150ms") {
		t.Fatal(err)
	}
	// The caller's own deadline is the caller's own matter.
	ctx, cancel := context.WithTimeout(within(t), 100*time.Millisecond)
	defer cancel()
	_, err = client.GetVersion(ctx, "pets")
	if !errors.As(err, &failed) || failed.Reason != "" || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestAClosedClientSaysSoAtOnce(t *testing.T) {
	f := start(t, &fake{})
	// With the pauses of the default policy: nothing is repeated.
	client, err := tipserve.New(f.address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.ServerInfo(within(t)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, err := range everyCall(t, client) {
		var failed *tipserve.Error
		if !errors.As(err, &failed) || failed.Reason != tipserve.ReasonClientClosed ||
			!errors.Is(err, tipserve.ErrFailedPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for given, target := range map[string]string{
		"a": "a:50051", "a:1": "a:1", "http://a:1/": "a:1", "https://a": "a:50051",
		":7": "127.0.0.1:7", "::1": "[::1]:50051", "[::1]": "[::1]:50051", "[::1]:7": "[::1]:7",
		"localhost:7": "localhost:7", "unix:/run/t.sock": "unix:/run/t.sock",
		"dns:///a": "dns:///a:50051", "dns:///a:1": "dns:///a:1", "dns:7": "dns:///dns:7", "HTTPS://a": "a:50051",
	} {
		client, err := tipserve.New(given)
		if err != nil {
			t.Errorf("%s: %v", given, err)
			continue
		}
		if got := client.Conn().Target(); got != target {
			t.Errorf("%s: %s, want %s", given, got, target)
		}
		client.Close()
	}
	for _, given := range []string{"ftp://a", "http://", "a:99999", "a:x", "a:1/x", "a b", "me@a:1", "a:0", "a:+1", "a:1?x"} {
		if client, err := tipserve.New(given); err == nil {
			client.Close()
			t.Errorf("%q was taken", given)
		}
	}
}

func TestTheEnvironmentSaysWhatTheOptionsDoNot(t *testing.T) {
	f := start(t, &fake{})
	tokens := func() []string {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.headers[len(f.headers)-1].Get("authorization")
	}
	call := func(server string, options ...tipserve.Option) error {
		client, err := tipserve.New(server, append(options, tipserve.WithRetry(fast))...)
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.ServerInfo(within(t))
		return err
	}
	t.Setenv("TIPSERVE_SERVER", f.address)
	for _, blank := range []string{"TIPSERVE_TOKEN", "TIPSERVE_TOKEN_FILE", "TIPSERVE_CA", "TIPSERVE_CERT"} {
		t.Setenv(blank, " ")
	}
	if err := call(""); err != nil || len(tokens()) != 0 {
		t.Fatal(err, tokens())
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("\ufefffrom-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TIPSERVE_TOKEN_FILE", file)
	if err := call(""); err != nil || tokens()[0] != "Bearer from-file" {
		t.Fatal(err, tokens())
	}
	t.Setenv("TIPSERVE_TOKEN", "from-variable")
	if err := call(""); err != nil || tokens()[0] != "Bearer from-variable" {
		t.Fatal(err, tokens())
	}
	if err := call("", tipserve.WithToken("a\nb")); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("a token of two lines: %v", err)
	}
	if err := call("", tipserve.WithToken("given")); err != nil || tokens()[0] != "Bearer given" {
		t.Fatal(err, tokens())
	}
	if err := call("", tipserve.WithToken("\ufeffgiven\r\n")); err != nil || tokens()[0] != "Bearer given" {
		t.Fatal(err, tokens())
	}
	t.Setenv("TIPSERVE_TOKEN", "")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := call(""); err == nil || !strings.Contains(err.Error(), "the token is empty") {
		t.Fatal(err)
	}
	t.Setenv("TIPSERVE_TOKEN", "from-variable")
	// Authorities mean TLS, unless the address says that there is none.
	ours := newAuthority(t)
	t.Setenv("TIPSERVE_CA", ours.file)
	if err := call(""); err == nil {
		t.Fatal("TLS was not asked for")
	}
	if err := call("http://" + f.address); err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"http://" + f.address, "unix:/run/tipserve.sock"} {
		_, err := tipserve.New(plain, tipserve.WithCA(ours.file))
		if err == nil || !strings.Contains(err.Error(), "is without TLS") {
			t.Errorf("%s: %v", plain, err)
		}
		client, err := tipserve.New(plain)
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
	t.Setenv("TIPSERVE_CERT", "cert.pem")
	if err := call(""); err == nil || !strings.Contains(err.Error(), "TIPSERVE_KEY") {
		t.Fatal(err)
	}
}

func TestNoProxyLeadsToThisMachine(t *testing.T) {
	proxy := "http://" + unused(t)
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"} {
		t.Setenv(name, proxy)
	}
	f := start(t, &fake{})
	_, port, _ := net.SplitHostPort(f.address)
	for _, server := range []string{f.address, "localhost:" + port, "LocalHost:" + port, "dns:///localhost:" + port} {
		if _, err := dial(t, server).ServerInfo(within(t)); err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
}

func TestAServerOnAUnixSocket(t *testing.T) {
	f := start(t, &fake{})
	path := filepath.Join(t.TempDir(), "t.sock")
	listener := must(net.Listen("unix", path))(t)
	server := grpc.NewServer()
	pb.RegisterClassifyServiceServer(server, f)
	go server.Serve(listener)
	defer server.Stop()
	if _, err := dial(t, "unix:"+path).ServerInfo(within(t)); err != nil {
		t.Fatal(err)
	}
	_, err := dial(t, "unix:"+path+".none").ServerInfo(within(t))
	if err == nil || strings.Contains(err.Error(), "--listen") {
		t.Fatal(err)
	}
}
