package tipserve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// Option changes how a [Client] reaches its server.
type Option func(*config) error

type config struct {
	tls     *tls.Config // nil: plain text
	headers []string
	token   func(context.Context) (string, error)
	retry   RetryPolicy
	timeout time.Duration
	// connectTimeout bounds one attempt to connect.
	connectTimeout time.Duration
	// wait is how long to wait for a server that was never there.
	wait   time.Duration
	resize Resizing
	dial   []grpc.DialOption
}

// WithTLS connects over TLS; nil takes the system's certificate authorities.
func WithTLS(settings *tls.Config) Option {
	return func(c *config) error {
		if settings == nil {
			settings = &tls.Config{}
		}
		// Later options add to it, and the caller's stays as it is.
		merged := settings.Clone()
		if c.tls != nil && merged.RootCAs == nil {
			merged.RootCAs = c.tls.RootCAs
		}
		if c.tls != nil && merged.GetClientCertificate == nil {
			merged.GetClientCertificate = c.tls.GetClientCertificate
		}
		c.tls = merged
		return nil
	}
}

// WithCA connects over TLS to a server whose certificate was issued by one of
// the authorities in a PEM file, and by no other.
func WithCA(file string) Option {
	return func(c *config) error {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("tipserve: the certificate authorities: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tipserve: %s holds no PEM certificate", file)
		}
		c.secure().RootCAs = pool
		return nil
	}
}

// WithClientCertificate shows a certificate to the server (mutual TLS). The PEM
// files are read anew for every connection, so a renewed certificate needs no
// restart.
func WithClientCertificate(certFile, keyFile string) Option {
	return func(c *config) error {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			return &pair, err
		}
		if _, err := load(); err != nil {
			return fmt.Errorf("tipserve: the client certificate: %w", err)
		}
		c.secure().GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return load()
		}
		return nil
	}
}

func (c *config) secure() *tls.Config {
	if c.tls == nil {
		c.tls = &tls.Config{}
	}
	return c.tls
}

// WithToken sends a bearer token with every call. Without TLS anyone on the way
// can read it.
func WithToken(token string) Option {
	// As it stands in a file: with the end of its line, and the mark of Windows's editors.
	token = strings.TrimSpace(strings.TrimPrefix(token, "\ufeff"))
	if token == "" || strings.ContainsFunc(token, noTokenHas) {
		return func(*config) error {
			return errors.New("tipserve: the token is empty, or has characters that no token has")
		}
	}
	return WithTokenSource(func(context.Context) (string, error) { return token, nil })
}

// noTokenHas says of a character that no header's value has it.
func noTokenHas(c rune) bool { return c <= ' ' || c > '~' }

// WithTokenSource asks for the bearer token before every call, for tokens that
// are renewed. Several goroutines may ask at once.
func WithTokenSource(source func(context.Context) (string, error)) Option {
	return func(c *config) error {
		if source == nil {
			return errors.New("tipserve: the source of tokens is nil")
		}
		c.token = source
		return nil
	}
}

// WithHeader sends a header with every call.
func WithHeader(key, value string) Option {
	return func(c *config) error {
		c.headers = append(c.headers, strings.ToLower(key), value)
		return nil
	}
}

// WithRetry sets how calls that are safe to repeat are repeated. Default:
// [DefaultRetry].
func WithRetry(policy RetryPolicy) Option {
	return func(c *config) error {
		c.retry = policy
		return policy.check()
	}
}

// WithTimeout bounds unary calls, repetitions included, whose context has no
// deadline. Default: a minute; 0: no bound. Streams, uploads and fine-tuning
// last as long as their context.
func WithTimeout(timeout time.Duration) Option {
	return func(c *config) error {
		if timeout < 0 {
			return fmt.Errorf("tipserve: the timeout is %v, must be 0 or more", timeout)
		}
		c.timeout = timeout
		return nil
	}
}

// WithConnectTimeout bounds an attempt to connect, the server's first word
// included: a port that accepts connections and is silent is not a server.
// Default: 5 seconds.
func WithConnectTimeout(timeout time.Duration) Option {
	return func(c *config) error {
		if timeout <= 0 {
			return fmt.Errorf("tipserve: the connect timeout is %v, must be over 0", timeout)
		}
		c.connectTimeout = timeout
		return nil
	}
}

// WithWait waits for a server that is not there yet. Default: 0, the first call
// says at once that there is none. A server that was there and has gone is
// waited for as [WithRetry] says.
func WithWait(wait time.Duration) Option {
	return func(c *config) error {
		if wait < 0 {
			return fmt.Errorf("tipserve: the wait for a server is %v, must be 0 or more", wait)
		}
		c.wait = wait
		return nil
	}
}

// WithDialOptions hands options to gRPC, after the client's own: interceptors,
// tracing, load balancing.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(c *config) error {
		c.dial = append(c.dial, options...)
		return nil
	}
}

// dialOptions are those of the connection, whose handshakes the contact learns of.
func (c *config) dialOptions(made *contact) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if c.tls != nil {
		transport = handshakes{credentials.NewTLS(c.tls), made}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		// The server's limits rule, not the client's.
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		// Notices a peer that vanished without a word, while calls run.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: time.Minute, Timeout: 20 * time.Second}),
		// Reconnect as fast as the retries ask; gRPC's own first pause is 1 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: 5 * time.Second,
			},
			MinConnectTimeout: c.connectTimeout,
		}),
		// What is repeated is decided here, not by a service configuration
		// that knows nothing of uploads.
		grpc.WithDisableRetry(),
		grpc.WithUserAgent("tipserve-go/" + Version),
		// Where the name stands for several servers, calls go round them.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
	}
	if headers := c.headers; len(headers) > 0 {
		options = append(options,
			grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, reply any,
				conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
				ctx = metadata.AppendToOutgoingContext(ctx, headers...)
				return call(ctx, method, request, reply, conn, options...)
			}),
			grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc,
				conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
			) (grpc.ClientStream, error) {
				ctx = metadata.AppendToOutgoingContext(ctx, headers...)
				return open(ctx, desc, conn, method, options...)
			}))
	}
	if c.token != nil {
		options = append(options, grpc.WithPerRPCCredentials(bearer(c.token)))
	}
	return append(options, c.dial...)
}

// bearer is a token source as gRPC wants it.
type bearer func(context.Context) (string, error)

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is false: behind a sidecar that encrypts, the
// client's own part of the way is plain.
func (bearer) RequireTransportSecurity() bool { return false }
