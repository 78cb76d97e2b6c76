package tipserve

import (
	"context"
	"fmt"
	"iter"
	"math"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Version is the client's version.
const Version = "0.1.0"

// maxMessage is what gRPC itself may take; the server's limit is checked here.
const maxMessage = math.MaxInt32

// Client is a connection to a tipserve server. Goroutines may share one.
//
// A cache is named "pets", "pets@7", "pets@stable" or by its resource name.
type Client struct {
	conn     *grpc.ClientConn
	caches   pb.CacheServiceClient
	classify pb.ClassifyServiceClient
	analysis pb.AnalysisServiceClient
	tune     pb.FineTuneServiceClient
	bundles  pb.BundleServiceClient
	config   config
	contact  *contact

	mu   sync.Mutex
	info *pb.ServerInfo // as last asked for
}

// New makes a client of the server at "host:port", "unix:/path" or any other
// name that gRPC resolves; "https://host:port" means TLS, and a host alone means
// port 50051. An empty address is $TIPSERVE_SERVER, or else this machine.
//
// What the options leave open comes from the environment, as for the command
// line: TIPSERVE_TOKEN or TIPSERVE_TOKEN_FILE, TIPSERVE_CA, TIPSERVE_CERT and
// TIPSERVE_KEY. A variable that is blank is not set.
//
// New does not connect: the first call does, and says at once if there is no
// server (see [WithWait]).
func New(server string, options ...Option) (*Client, error) {
	if server == "" {
		if server = environment("TIPSERVE_SERVER"); server == "" {
			server = defaultAddress
		}
	}
	address, err := parseAddress(server)
	if err != nil {
		return nil, err
	}
	c := config{retry: DefaultRetry, timeout: defaultTimeout, connectTimeout: defaultConnectTimeout}
	if address.scheme == "https" {
		c.secure()
	}
	for _, option := range options {
		if err := option(&c); err != nil {
			return nil, err
		}
	}
	if err := c.fromEnvironment(address); err != nil {
		return nil, err
	}
	if address.plain() && c.tls != nil {
		return nil, fmt.Errorf("tipserve: the server's address %q is without TLS, and certificates ask for it", server)
	}
	made := &contact{target: address.target, wait: c.wait}
	dial := made.dialOptions()
	if address.loopback() {
		// HTTPS_PROXY is meant for other machines.
		dial = append(dial, grpc.WithNoProxy())
	}
	conn, err := grpc.NewClient(address.target, append(dial, c.dialOptions(made)...)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		conn:     conn,
		caches:   pb.NewCacheServiceClient(conn),
		classify: pb.NewClassifyServiceClient(conn),
		analysis: pb.NewAnalysisServiceClient(conn),
		tune:     pb.NewFineTuneServiceClient(conn),
		bundles:  pb.NewBundleServiceClient(conn),
		config:   c,
		contact:  made,
	}, nil
}

// Close closes the connection; calls that run are cancelled, and later ones fail
// with the reason CLIENT_CLOSED. A second Close does nothing.
func (c *Client) Close() error {
	if c.contact.closed.Swap(true) {
		return nil
	}
	return c.conn.Close()
}

// Conn is the connection, for calls that this package does not wrap
// (grpc.health.v1, the Open Inference Protocol).
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// ServerInfo returns version, bundle, device and limits of the server.
func (c *Client) ServerInfo(ctx context.Context) (*pb.ServerInfo, error) {
	info, err := read(ctx, c, c.classify.GetServerInfo, &pb.GetServerInfoRequest{})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info = info
	return info, nil
}

// knownInfo is the server's information, asked for once.
func (c *Client) knownInfo(ctx context.Context) (*pb.ServerInfo, error) {
	c.mu.Lock()
	info := c.info
	c.mu.Unlock()
	if info != nil {
		return info, nil
	}
	return c.ServerInfo(ctx)
}

// encoder makes messages of pictures as the server and the client's options
// will have them. Augmented views, if there are several, are cut out of whole
// pictures: those are not resized here.
func (c *Client) encoder(ctx context.Context, views int32) (*encoder, error) {
	info, err := c.knownInfo(ctx)
	if err != nil {
		return nil, err
	}
	resize := c.config.resize
	if views > 1 {
		resize = ResizeOnServer
	}
	return newEncoder(info, resize), nil
}

// maxMessageBytes is the largest message that the server takes.
func (c *Client) maxMessageBytes(ctx context.Context) (int, error) {
	info, err := c.knownInfo(ctx)
	return maxMessageBytes(info), err
}

func maxMessageBytes(info *pb.ServerInfo) int {
	if limit := info.GetLimits()["max_message_bytes"]; limit > 0 {
		return int(min(limit, maxMessage))
	}
	return defaultMaxMessageBytes
}

// bounded is the context of a unary call, and what its failure is: an error
// that says so where the client's own timeout has passed.
func (c *Client) bounded(
	ctx context.Context,
) (bounded context.Context, cancel context.CancelFunc, failure func(*Error) *Error) {
	if _, has := ctx.Deadline(); has || c.config.timeout == 0 {
		return ctx, func() {}, func(err *Error) *Error { return err }
	}
	bounded, cancel = context.WithTimeout(ctx, c.config.timeout)
	return bounded, cancel, func(err *Error) *Error {
		if err.Code == codes.DeadlineExceeded && err.Reason == "" && ctx.Err() == nil {
			return c.contact.timedOut(c.config.timeout)
		}
		return err
	}
}

// unary is a generated method that takes one message and returns one.
type unary[Request, Response any] func(context.Context, Request, ...grpc.CallOption) (Response, error)

// read makes a call that changes nothing, again if that is of use.
func read[Request, Response any](
	ctx context.Context, c *Client, method unary[Request, Response], request Request,
) (response Response, err error) {
	ctx, cancel, failure := c.bounded(ctx)
	defer cancel()
	failed := c.config.retry.repeated(ctx, func() *Error {
		var err error
		if response, err = method(ctx, request); err != nil {
			return fromCall(err)
		}
		return nil
	})
	if failed != nil {
		return response, failure(failed)
	}
	return response, nil
}

// change makes a call that changes something, once.
func change[Request, Response any](
	ctx context.Context, c *Client, method unary[Request, Response], request Request,
) (Response, error) {
	ctx, cancel, failure := c.bounded(ctx)
	defer cancel()
	response, err := method(ctx, request)
	if err != nil {
		return response, failure(fromCall(err))
	}
	return response, nil
}

// pages goes through a list, fetching page by page. fetch returns a page and
// the token of the next.
func pages[T any](fetch func(token string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for token := ""; ; {
			page, next, err := fetch(token)
			if err != nil {
				yield(none, err)
				return
			}
			for _, one := range page {
				if !yield(one, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}
