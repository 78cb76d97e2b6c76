package tipserve

import "time"

const (
	// defaultTimeout bounds unary calls without a deadline.
	defaultTimeout = time.Minute

	// defaultConnectTimeout bounds an attempt to connect.
	defaultConnectTimeout = 5 * time.Second

	// defaultMaxMessageBytes is gRPC's own limit, for servers that name none.
	defaultMaxMessageBytes = 4 << 20

	// envelopeBytes: a message carries other things beside its one picture:
	// an id, tags, lengths.
	envelopeBytes = 4096

	// A message is full at so much, however much more the server would take:
	// smaller ones keep the pipe even.
	fullMessageBytes = 1 << 20
	fullMessageItems = 64

	// maxIDBytes is the protocol's bound on an item's id.
	maxIDBytes = 1024
)

// messageBytes is when to close a message of several items.
func messageBytes(limit int) int { return max(min(fullMessageBytes, limit-envelopeBytes), 1) }

// group collects items for a message.
type group[T any] struct {
	limit int
	items []T
	bytes int
}

// add takes in an item of a size; it returns the items of a message that had
// to be closed first, or nil.
func (g *group[T]) add(item T, size int) (full []T) {
	size += 8 // its own tag and length, at most 1 + 5
	if len(g.items) > 0 && (g.bytes+size > messageBytes(g.limit) || len(g.items) >= fullMessageItems) {
		full = g.take()
	}
	g.items = append(g.items, item)
	g.bytes += size
	return full
}

// take returns what is left.
func (g *group[T]) take() []T {
	items := g.items
	g.items, g.bytes = nil, 0
	return items
}
