package tipserve

import (
	"container/heap"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// ledger keeps the books of one Classify call: what was read, sent, answered
// and handed out. It starts no goroutine, opens no connection and waits for
// nothing. It holds the promises of the stream:
//
//   - every item that was read is handed out exactly once, as an answer or an
//     error;
//   - after a broken connection the unanswered items, and no others, are sent
//     again;
//   - an item refused for now is sent again after the delay that the server
//     named;
//   - at most window items, and about windowBytes of pictures, are held.
type ledger struct {
	ordered     bool
	window      int
	windowBytes int
	// A message is full at this many bytes.
	messageBytes int
	itemPolicy   RetryPolicy
	now          func() time.Time

	// answered counts the server's answers, of whatever kind: the measure of
	// progress.
	answered int

	read, handedOut int
	bytes           int
	ended           bool

	toSend       []*pending // by position
	later        dueHeap
	sent         map[uint64]*pending // by the connection's sequence
	nextSequence uint64
	ready        []Result
	heldBack     map[int]Result // answered before their turn, by position
}

// pending is an item without an answer yet.
type pending struct {
	position  int
	id        string
	input     *pb.Input
	size      int
	timeLimit time.Duration // 0: none
	expires   time.Time     // set when it is first sent
	refusals  int
	due       time.Time // when to send it again, while it is in later
}

// Reading.

// hasRoom says whether another item may be read.
func (l *ledger) hasRoom() bool {
	return l.read-l.handedOut < l.window && l.bytes < l.windowBytes
}

// add takes in an item to send.
func (l *ledger) add(id string, input *pb.Input, timeLimit time.Duration) {
	item := &pending{
		position: l.read, id: id, input: input, size: proto.Size(input), timeLimit: timeLimit,
	}
	l.read++
	l.bytes += item.size
	l.toSend = append(l.toSend, item)
}

// addFailed takes in an item that cannot even be sent.
func (l *ledger) addFailed(id string, err *Error) {
	position := l.read
	l.read++
	l.put(Result{ID: id, Position: position, Err: err})
}

// end says that nothing more will be read.
func (l *ledger) end() { l.ended = true }

// Sending.

// connected begins a new connection: its sequences begin at 0, and all
// unanswered items are to be sent.
func (l *ledger) connected() {
	for _, item := range l.sent {
		l.toSend = append(l.toSend, item)
	}
	l.sent = map[uint64]*pending{}
	l.nextSequence = 0
	slices.SortFunc(l.toSend, func(a, b *pending) int { return a.position - b.position })
}

// nextBatch returns the items of the next message; none if there are none
// to send now.
func (l *ledger) nextBatch() []*pb.Item {
	now := l.now()
	for len(l.later) > 0 && !l.later[0].due.After(now) {
		l.toSend = append(l.toSend, heap.Pop(&l.later).(*pending))
	}
	var batch []*pb.Item
	size := 0
	for len(l.toSend) > 0 && len(batch) < fullMessageItems {
		item := l.toSend[0]
		if !item.expires.IsZero() && !item.expires.After(now) {
			l.toSend = l.toSend[1:]
			l.settle(item, Result{ID: item.id, Position: item.position, Err: expired(item)})
			continue
		}
		// 2 KiB cover an item's id and lengths.
		if len(batch) > 0 && size+item.size+2048 > l.messageBytes {
			break
		}
		size += item.size + 2048
		l.toSend[0] = nil
		l.toSend = l.toSend[1:]
		batch = append(batch, l.message(item, now))
	}
	return batch
}

func (l *ledger) message(item *pending, now time.Time) *pb.Item {
	l.sent[l.nextSequence] = item
	l.nextSequence++
	message := &pb.Item{Input: item.input}
	// Answers are matched by their sequence, so an id that the protocol does
	// not take need not travel at all.
	if id := valid(item.id); len(id) <= maxIDBytes {
		message.Id = id
	}
	if item.timeLimit > 0 {
		if item.expires.IsZero() {
			item.expires = now.Add(item.timeLimit)
		}
		message.TimeLimit = durationpb.New(item.expires.Sub(now))
	}
	return message
}

// untilDue is how long until a refused item is to be sent again; false where
// there is none.
func (l *ledger) untilDue() (time.Duration, bool) {
	if len(l.later) == 0 {
		return 0, false
	}
	return max(l.later[0].due.Sub(l.now()), 0), true
}

// allAnswered says whether everything is read and answered, so that the stream
// may be closed.
func (l *ledger) allAnswered() bool {
	return l.ended && len(l.toSend) == 0 && len(l.later) == 0 && len(l.sent) == 0
}

// Receiving.

// answer takes in one answer of the current connection.
func (l *ledger) answer(result *pb.ItemResult) {
	item := l.sent[result.GetSequence()]
	if item == nil {
		return // A second answer to one item; the first one counts.
	}
	delete(l.sent, result.GetSequence())
	l.answered++
	made := Result{ID: item.id, Position: item.position}
	switch outcome := result.GetOutcome().(type) {
	case *pb.ItemResult_Classification:
		made.Classification = outcome.Classification
	case *pb.ItemResult_Error:
		err := fromStatus(outcome.Error)
		if l.putOff(item, err) {
			return
		}
		made.Err = err
	default:
		made.Err = &Error{Code: codes.Unknown, Message: "the server's result has no outcome"}
	}
	l.settle(item, made)
}

// putOff plans to send a refused item again, unless it was refused too often.
func (l *ledger) putOff(item *pending, err *Error) bool {
	if !isRefusedForNow(err) {
		return false
	}
	item.refusals++
	delay, ok := l.itemPolicy.delay(item.refusals, err)
	if !ok {
		return false
	}
	item.due = l.now().Add(delay)
	heap.Push(&l.later, item)
	return true
}

func (l *ledger) settle(item *pending, result Result) {
	l.bytes -= item.size
	l.put(result)
}

// Handing out.

func (l *ledger) put(result Result) {
	if !l.ordered {
		l.ready = append(l.ready, result)
		return
	}
	l.heldBack[result.Position] = result
	for expected := l.handedOut + len(l.ready); ; expected++ {
		next, ok := l.heldBack[expected]
		if !ok {
			return
		}
		delete(l.heldBack, expected)
		l.ready = append(l.ready, next)
	}
}

// take returns the next result to hand out, if there is one now.
func (l *ledger) take() (Result, bool) {
	if len(l.ready) == 0 {
		return Result{}, false
	}
	result := l.ready[0]
	l.ready[0] = Result{}
	l.ready = l.ready[1:]
	l.handedOut++
	return result, true
}

func expired(item *pending) *Error {
	return &Error{
		Code:    codes.DeadlineExceeded,
		Reason:  ReasonTimeLimitExceeded,
		Message: "no answer within the item's time limit of " + item.timeLimit.String(),
	}
}

// dueHeap is a heap (container/heap) of refused items, the next one due first.
type dueHeap []*pending

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(*pending)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
