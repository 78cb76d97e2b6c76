package tipserve

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// itemSource gives items to take until that says false; its context is done
// when no more are wanted. It returns an error of the source itself.
type itemSource func(ctx context.Context, take func(Item) bool) error

type classifyStream = grpc.BidiStreamingClient[pb.ClassifyStreamRequest, pb.ClassifyStreamResponse]

// classifyRun is one Classify call, over as many connections as it takes. One
// goroutine reads items, one keeps a connection and receives, one sends; the
// caller's takes results.
type classifyRun struct {
	open      func(context.Context, ...grpc.CallOption) (classifyStream, error)
	config    *pb.ClassifyStreamConfig
	source    itemSource
	encoder   *encoder
	timeLimit time.Duration
	policy    RetryPolicy

	mu      sync.Mutex
	changed *sync.Cond // of anything below
	ledger  ledger
	// sourceErr and streamErr are final once set.
	sourceErr error
	streamErr error
	finished  bool // talking has ended
}

// results runs the call. It returns when the last result is taken, or the
// caller wants no more; the goroutines that talk have ended then.
func (r *classifyRun) results(ctx context.Context, yield func(Result, error) bool) {
	r.changed = sync.NewCond(&r.mu)
	ctx, cancel := context.WithCancel(ctx)
	// Waiters must notice the end of the context, too.
	stop := context.AfterFunc(ctx, r.notify)
	var talking sync.WaitGroup
	talking.Add(1)
	defer func() {
		cancel()
		stop()
		talking.Wait()
	}()
	go r.read(ctx)
	go func() {
		defer talking.Done()
		r.talk(ctx)
	}()
	for {
		result, more, err := r.next()
		if err != nil {
			yield(Result{}, err)
			return
		}
		if !more || !yield(result, nil) {
			return
		}
	}
}

func (r *classifyRun) notify() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed.Broadcast()
}

// next waits for a result; more is false after the last.
func (r *classifyRun) next() (result Result, more bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if result, ok := r.ledger.take(); ok {
			r.changed.Broadcast() // room for another item
			return result, true, nil
		}
		switch {
		case r.streamErr != nil:
			return Result{}, false, r.streamErr
		case r.finished:
			return Result{}, false, r.sourceErr
		}
		r.changed.Wait()
	}
}

// Reading.

func (r *classifyRun) read(ctx context.Context) {
	position := 0
	var err error
	if r.waitForRoom(ctx) {
		err = r.source(ctx, func(item Item) bool {
			id := item.ID
			if id == "" {
				id = defaultID(item.Picture, position)
			}
			position++
			limit := item.TimeLimit
			if limit <= 0 {
				limit = r.timeLimit
			}
			input, failed := r.encoder.encode(item.Picture)
			r.mu.Lock()
			if failed != nil {
				r.ledger.addFailed(id, failed)
			} else {
				r.ledger.add(id, input, limit)
			}
			r.changed.Broadcast()
			r.mu.Unlock()
			return r.waitForRoom(ctx)
		})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sourceErr = err
	r.ledger.end()
	r.changed.Broadcast()
}

// waitForRoom says whether another item is wanted.
func (r *classifyRun) waitForRoom(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ctx.Err() == nil && !r.finished && !r.ledger.hasRoom() {
		r.changed.Wait()
	}
	return ctx.Err() == nil && !r.finished
}

// Talking.

func (r *classifyRun) talk(ctx context.Context) {
	err := r.keepConnected(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.streamErr = err
	}
	r.finished = true
	r.changed.Broadcast()
}

func (r *classifyRun) keepConnected(ctx context.Context) error {
	failures := 0
	for {
		r.mu.Lock()
		before := r.ledger.answered
		r.mu.Unlock()
		failed := r.connection(ctx)
		r.mu.Lock()
		all := r.ledger.allAnswered()
		progress := r.ledger.answered > before
		r.mu.Unlock()
		if all && (failed == nil || progress) {
			return nil // If it broke, then after its last answer: nothing is lost.
		}
		if err := ctx.Err(); err != nil {
			return fromCall(err)
		}
		if failed == nil {
			// A stream that the server ends early, without an error, is one to
			// open again: there are items left.
			failed = &Error{Code: codes.Unavailable,
				Message: "the server ended the stream before its last answer"}
		}
		if !isTransient(failed) {
			return failed
		}
		failures++
		if progress {
			failures = 1
		}
		delay, ok := r.policy.delay(failures, failed)
		if !ok || !sleep(ctx, delay) {
			if errors.Is(ctx.Err(), context.Canceled) {
				return fromCall(ctx.Err())
			}
			return failed
		}
	}
}

// connection talks until the stream ends; it returns why that ended, nil where
// in order.
func (r *classifyRun) connection(ctx context.Context) *Error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, r.notify) // the sender may wait for items
	defer stop()
	defer cancel()
	stream, err := r.open(ctx)
	if err != nil {
		return fromCall(err)
	}
	r.mu.Lock()
	r.ledger.connected()
	r.mu.Unlock()
	var sending sync.WaitGroup
	sending.Add(1)
	go func() {
		defer sending.Done()
		r.send(ctx, stream)
	}()
	// Before the next connection begins its books, nothing of this one runs.
	defer sending.Wait()
	defer cancel()
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fromCall(err)
		}
		r.mu.Lock()
		for _, result := range response.GetResults() {
			r.ledger.answer(result)
		}
		r.changed.Broadcast()
		r.mu.Unlock()
	}
}

// send sends until all is answered or the connection ends. Receiving says how
// that was, so errors here say nothing more.
func (r *classifyRun) send(ctx context.Context, stream classifyStream) {
	err := stream.Send(&pb.ClassifyStreamRequest{
		Payload: &pb.ClassifyStreamRequest_Config{Config: r.config}})
	for err == nil {
		batch := r.nextBatch(ctx)
		if batch == nil {
			stream.CloseSend()
			return
		}
		err = stream.Send(&pb.ClassifyStreamRequest{
			Payload: &pb.ClassifyStreamRequest_Items{Items: &pb.ItemBatch{Items: batch}}})
	}
}

// nextBatch waits for items to send; nil where there will be none.
func (r *classifyRun) nextBatch(ctx context.Context) []*pb.Item {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ctx.Err() == nil {
		if batch := r.ledger.nextBatch(); batch != nil {
			return batch
		}
		// Looking for a batch may have settled expired items.
		r.changed.Broadcast()
		if r.ledger.allAnswered() {
			return nil
		}
		if delay, ok := r.ledger.untilDue(); ok {
			timer := time.AfterFunc(delay, r.notify)
			r.changed.Wait()
			timer.Stop()
			continue
		}
		r.changed.Wait()
	}
	return nil
}
