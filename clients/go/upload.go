package tipserve

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
)

// Rejected is an example or item that could not be used, and why.
type Rejected struct {
	// ID is its id.
	ID string
	// Err is the reason.
	Err *Error
}

// An upload is a call that streams messages up: CreateCache, AddExamples,
// Evaluate, ImportVersion.
type upload struct {
	// again: what is sent can be read a second time.
	again bool
	// send sends every message, without the end of the stream.
	send func() error
	// closeSend ends the sending.
	closeSend func() error
	// receive takes in the answers until the last.
	receive func() error
	// done, where set, is called after sending and receiving have succeeded.
	done func()
}

// errOwn marks an error of the caller's own, on the way through an upload.
type errOwn struct{ error }

func (e errOwn) Unwrap() error { return e.error }

// run opens the call and makes it, again where it failed in a way that another
// try may mend. open makes the upload of one try; its context ends with it.
func (p RetryPolicy) run(ctx context.Context, open func(context.Context) (*upload, error)) error {
	for repetition := 1; ; repetition++ {
		err, safe := once(ctx, open)
		if err == nil {
			return nil
		}
		var own errOwn
		if errors.As(err, &own) {
			return own.error
		}
		failed := fromCall(err)
		if ctx.Err() != nil || !safe || !isTransient(failed) {
			return failed
		}
		delay, ok := p.delay(repetition, failed)
		if !ok || !sleep(ctx, delay) {
			return failed
		}
	}
}

// once makes one try. It returns how that failed, and whether another is safe.
func once(ctx context.Context, open func(context.Context) (*upload, error)) (err error, safe bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, err := open(ctx)
	if err != nil {
		return err, true // nothing was sent
	}
	// Answers come while examples are sent, so one goroutine does the sending.
	sent := make(chan error, 1)
	go func() {
		err := call.send()
		if err == nil {
			// From here on the server may take what it has for the whole.
			sent <- call.closeSend()
			return
		}
		sent <- err
		if !errors.Is(err, io.EOF) {
			// Cancelled, not ended: what was sent is not the whole. (io.EOF is
			// gRPC's word for a stream that has ended; receiving says how.)
			cancel()
		}
	}()
	err = call.receive()
	if err != nil {
		cancel() // so that sending ends
	}
	var failed error
	if err == nil || call.again {
		failed = <-sent
	} else {
		// The caller's own iterator or reader may take as long as it likes to
		// give its next piece. The failure need not wait for it.
		select {
		case failed = <-sent:
		default:
		}
	}
	var own errOwn
	if errors.As(failed, &own) {
		return own, false
	}
	if err == nil {
		if call.done != nil {
			call.done()
		}
		return nil, false
	}
	if !call.again {
		return err, false
	}
	// It may have succeeded, and only the answer be lost: what must not be made
	// twice carries a request id.
	return err, true
}

// requestID is given, or an id that tells this call from every other: all its
// tries carry it, so that the server carries it out once (AIP-155).
func requestID(given string) string {
	if given != "" {
		return given
	}
	return rand.Text()
}
