package tipserve

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// RetryPolicy is how calls that are safe to repeat are repeated.
//
// Before repetition n, from 1, the client waits FirstDelay·Factorⁿ⁻¹, at most
// MaxDelay, less up to Jitter of it by chance; never less than the server
// asked for.
type RetryPolicy struct {
	// Attempts is how many repetitions follow the first try; 0 turns them off.
	// On a stream the count begins anew with every answer.
	Attempts int
	// FirstDelay is the wait before the first repetition.
	FirstDelay time.Duration
	// Factor is the growth of the delay, at least 1.
	Factor float64
	// MaxDelay is what the delay does not grow beyond.
	MaxDelay time.Duration
	// Jitter is the share of the delay that chance may take off, 0 to 1.
	Jitter float64
	// MaxServerDelay: if the server asks to wait longer, the error is handed
	// on instead.
	MaxServerDelay time.Duration
}

// DefaultRetry waits 0.1 s, 0.2 s, 0.4 s and so on up to 5 s, 8 times, and
// gives up if the server asks for more than a minute.
var DefaultRetry = RetryPolicy{
	Attempts:       8,
	FirstDelay:     100 * time.Millisecond,
	Factor:         2,
	MaxDelay:       5 * time.Second,
	Jitter:         0.3,
	MaxServerDelay: time.Minute,
}

// NoRetry hands every failure on at once. Streams are not reconnected.
var NoRetry = RetryPolicy{Factor: 1}

func (p RetryPolicy) check() error {
	switch {
	case p.Attempts < 0 || p.FirstDelay < 0 || p.MaxDelay < 0 || p.MaxServerDelay < 0:
		return errors.New("tipserve: a RetryPolicy's attempts and delays must be 0 or more")
	case !(p.Factor >= 1):
		return errors.New("tipserve: a RetryPolicy's Factor must be 1 or more")
	case !(p.Jitter >= 0 && p.Jitter <= 1):
		return errors.New("tipserve: a RetryPolicy's Jitter must be from 0 to 1")
	}
	return nil
}

// delay is how long to wait before a repetition, or false not to repeat.
func (p RetryPolicy) delay(repetition int, err *Error) (time.Duration, bool) {
	if repetition > p.Attempts {
		return 0, false
	}
	var asked time.Duration
	if err != nil {
		asked, _ = err.RetryDelay()
	}
	if asked > p.MaxServerDelay {
		return 0, false
	}
	// In floating point, and bounded before it is a duration: Factor to the
	// power of a large count overflows.
	own := min(float64(p.FirstDelay)*math.Pow(p.Factor, float64(repetition-1)), float64(p.MaxDelay))
	own *= 1 - p.Jitter*rand.Float64()
	return max(time.Duration(own), asked), true
}

// isTransient says whether a call that only reads may succeed if it is repeated.
func isTransient(err *Error) bool {
	if err.Reason == ReasonServerUnreachable {
		return false // it was waited for as long as was asked
	}
	if err.Code == codes.ResourceExhausted {
		return err.hasRetryDelay
	}
	return isBrokenConnection(err)
}

// How grpc-go words that a connection or a proxy, not the server, ended a
// stream. The wire has no code for that, so it comes as one of several.
var transportWords = []string{
	"RST_STREAM",
	"GOAWAY",
	"without sending trailers",
	"connection",
	"transport",
	"unexpected EOF",
}

// isBrokenConnection says whether the way to the server broke, as opposed to
// the server answering. A status of tipserve's own carries an ErrorInfo; one
// that the transport made up does not. The caller's own cancelling is asked
// for elsewhere: it looks the same from here.
func isBrokenConnection(err *Error) bool {
	if err.Code == codes.Unavailable {
		return true
	}
	if err.Reason != "" {
		return false
	}
	switch err.Code {
	case codes.Canceled, codes.Internal, codes.Unknown:
		for _, word := range transportWords {
			if strings.Contains(err.Message, word) {
				return true
			}
		}
	}
	return false
}

// isRefusedForNow says whether an item of a stream may be sent again.
func isRefusedForNow(err *Error) bool {
	return err.hasRetryDelay && (err.Code == codes.ResourceExhausted || err.Code == codes.Unavailable)
}

// sleep waits, and says whether the time passed before the context was done or
// would be: there is no point in waiting for a try that cannot be made.
func sleep(ctx context.Context, delay time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= delay {
		return false
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// repeated makes a call that is safe to repeat until it succeeds or the policy,
// the context or the error forbid.
func (p RetryPolicy) repeated(ctx context.Context, try func() *Error) *Error {
	for repetition := 1; ; repetition++ {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !isTransient(err) {
			return err
		}
		delay, ok := p.delay(repetition, err)
		if !ok || !sleep(ctx, delay) {
			return err
		}
	}
}
