package tipserve

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
)

// pauseForServer is the time between two looks at whether a server is there.
const pauseForServer = 100 * time.Millisecond

// contact knows whether a client has reached its server. A server that was
// never there is not worth the retries of one that has gone away: the first
// call says at once that there is none, unless the client is to wait.
type contact struct {
	target  string
	wait    time.Duration
	reached atomic.Bool
	closed  atomic.Bool
	started atomic.Int64 // when waiting began, in Unix nanoseconds; 0: not yet
	// Why TLS could last not be spoken at one of the name's addresses. gRPC
	// goes through all and tells of one: that nothing is at another says less.
	handshake atomic.Pointer[error]
}

// handshakes are credentials that tell a contact of handshakes that failed.
type handshakes struct {
	credentials.TransportCredentials
	contact *contact
}

func (h handshakes) ClientHandshake(ctx context.Context, authority string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	made, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, conn)
	switch {
	case err == nil:
		h.contact.handshake.Store(nil)
	case ctx.Err() == nil:
		h.contact.handshake.Store(&err)
	}
	return made, info, err
}

func (h handshakes) Clone() credentials.TransportCredentials {
	return handshakes{h.TransportCredentials.Clone(), h.contact}
}

// dialOptions are the interceptors that look at every call.
func (c *contact) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, reply any,
			conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return c.attempt(ctx, func() error {
				return call(ctx, method, request, reply, conn, options...)
			})
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc,
			conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
		) (stream grpc.ClientStream, err error) {
			err = c.attempt(ctx, func() error {
				stream, err = open(ctx, desc, conn, method, options...)
				return err
			})
			return stream, err
		}),
	}
}

// attempt makes a call, again while the client waits for its server. Nothing
// was sent if there was no connection.
func (c *contact) attempt(ctx context.Context, call func() error) error {
	for {
		if c.closed.Load() {
			return &Error{Code: codes.FailedPrecondition, Reason: ReasonClientClosed, Message: "this client is closed"}
		}
		err := call()
		if err == nil {
			c.reached.Store(true)
			return nil
		}
		failed := fromCall(err)
		if !isNoConnection(failed) {
			// Cancelled, too late: that says nothing about the server.
			if failed.Reason != "" {
				c.reached.Store(true)
			}
			return err
		}
		if c.reached.Load() {
			return err
		}
		if !c.waitsOn() || !sleep(ctx, pauseForServer) {
			return c.unreachable(failed)
		}
	}
}

// waitsOn says whether there is time left to wait for a server.
func (c *contact) waitsOn() bool {
	now := time.Now()
	c.started.CompareAndSwap(0, now.UnixNano())
	began := time.Unix(0, c.started.Load())
	return now.Add(pauseForServer).Before(began.Add(c.wait))
}

// unreachable says how to start a server, or what is wrong with TLS.
func (c *contact) unreachable(failed *Error) *Error {
	cause := rootCause(failed.Message)
	handshake := c.handshake.Load()
	if handshake != nil {
		cause = (*handshake).Error()
	}
	message := fmt.Sprintf("cannot speak TLS with the server at %s: %s", c.target, cause)
	if handshake == nil && !isHandshakeFailure(failed.Message) {
		start := ""
		if !resolvers.MatchString(c.target) {
			start = fmt.Sprintf("Start one with\n  tipserve serve --bundle DIR --store DIR --listen %s\nor ", c.target)
		}
		message = fmt.Sprintf("no tipserve server answers at %s (%s). %sname another: tipserve.New(\"host:port\"), "+
			"or TIPSERVE_SERVER", c.target, cause, start)
	}
	made := &Error{
		Code: codes.Unavailable, Reason: ReasonServerUnreachable, Message: message, cause: failed.cause,
	}
	return made.with("server", c.target, "cause", cause)
}

// isNoConnection says whether there was no connection to make a call on.
func isNoConnection(err *Error) bool {
	if err.Code != codes.Unavailable || err.Domain != "" {
		return false
	}
	for _, words := range []string{
		"Error while dialing", "error reading server preface", "authentication handshake failed",
		"name resolver error", "produced zero addresses", "no children to pick from",
		"failed to write client preface", "connection error",
	} {
		if strings.Contains(err.Message, words) {
			return true
		}
	}
	return false
}

func isHandshakeFailure(message string) bool {
	for _, words := range []string{"authentication handshake failed", "tls: ", "x509: "} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}

// rootCause is the last and shortest of gRPC's nested reasons.
func rootCause(message string) string {
	message = strings.TrimRight(message, `"`)
	for _, before := range []string{`transport: `, `Error while dialing: `, `desc = "`} {
		if at := strings.LastIndex(message, before); at >= 0 {
			message = message[at+len(before):]
		}
	}
	// What gRPC says where a name was resolved to nothing.
	if message == "no children to pick from" || message == "produced zero addresses" {
		return "its name has no address"
	}
	return message
}

// timedOut says what a deadline of the client's own means.
func (c *contact) timedOut(timeout time.Duration) *Error {
	made := &Error{
		Code: codes.DeadlineExceeded, Reason: ReasonTimeout,
		Message: fmt.Sprintf("no answer from %s within %v", c.target, timeout),
		cause:   context.DeadlineExceeded,
	}
	return made.with("server", c.target, "timeout_seconds", fmt.Sprintf("%g", timeout.Seconds()))
}
