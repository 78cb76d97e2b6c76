package tipserve

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Item is one thing to classify.
type Item struct {
	// Picture is the picture or embedding.
	Picture Picture
	// ID comes back with the result. Default: the file's path, else the position.
	ID string
	// TimeLimit is how long the answer is of use, from when the item is first
	// sent. Default: that of [TimeLimit], or none.
	TimeLimit time.Duration
}

// Result is what became of one item.
type Result struct {
	// ID is the item's.
	ID string
	// Position is the item's, from 0.
	Position int
	// Classification is the answer; nil where Err is set.
	Classification *pb.Classification
	// Err is why there is no answer: an *Error, or nil.
	Err error
}

// Best is the best class; nil if there is none.
func (r Result) Best() *pb.ClassScore {
	if top := r.Classification.GetTop(); len(top) > 0 {
		return top[0]
	}
	return nil
}

// ClassifyOption changes what [Client.Classify], [Client.ClassifyChan] and
// [Client.ClassifyOne] return, and how.
type ClassifyOption func(*classifyConfig)

type classifyConfig struct {
	options     pb.ClassifyOptions
	priority    pb.Priority
	unordered   bool
	timeLimit   time.Duration
	window      int
	windowBytes int
	resend      int // -1: as the client's policy says
}

// TopK returns the k best classes. Default 5; more than there are classes
// means all.
func TopK(k int32) ClassifyOption { return func(c *classifyConfig) { c.options.TopK = k } }

// Logits returns all classes' logits.
func Logits() ClassifyOption { return func(c *classifyConfig) { c.options.Logits = true } }

// Probabilities returns all classes' probabilities.
func Probabilities() ClassifyOption {
	return func(c *classifyConfig) { c.options.Probabilities = true }
}

// Neighbours returns the n nearest cached examples.
func Neighbours(n int32) ClassifyOption {
	return func(c *classifyConfig) { c.options.Neighbours = n }
}

// Embedding returns the embedding.
func Embedding() ClassifyOption { return func(c *classifyConfig) { c.options.Embedding = true } }

// Reject says of each item whether it is of any class that the version knows
// (Accepted, Score, Threshold): accept is the share of pictures of known classes
// that are to be accepted, over 0 and under 1; 0 for the server's 0.95.
func Reject(accept float64) ClassifyOption {
	return func(c *classifyConfig) {
		c.options.Reject = &pb.RejectOptions{}
		if accept != 0 {
			c.options.Reject.Accept = proto.Float64(accept)
		}
	}
}

// RejectBelow is [Reject] with the least score that is accepted.
func RejectBelow(threshold float64) ClassifyOption {
	return func(c *classifyConfig) {
		c.options.Reject = &pb.RejectOptions{Threshold: proto.Float64(threshold)}
	}
}

// Precision accepts an answer (Accepted) from the threshold of its class on at
// which answers are right with this precision, over 0 and under 1; of a version
// with MultiLabel it returns the Labels at these thresholds.
func Precision(precision float64) ClassifyOption {
	return func(c *classifyConfig) {
		c.options.Reject = &pb.RejectOptions{Precision: proto.Float64(precision)}
	}
}

// Coverage returns the smallest set of classes that holds the item's with this
// probability (PredictionSet), over 0 and under 1.
func Coverage(probability float64) ClassifyOption {
	return func(c *classifyConfig) { c.options.Coverage = proto.Float64(probability) }
}

// Timings returns how long each stage took.
func Timings() ClassifyOption { return func(c *classifyConfig) { c.options.Timings = true } }

// Bulk is for work that nobody waits for: it takes what interactive work leaves.
func Bulk() ClassifyOption {
	return func(c *classifyConfig) { c.priority = pb.Priority_PRIORITY_BULK }
}

// Unordered hands results out as they are ready. Default: in the order of the
// items.
func Unordered() ClassifyOption { return func(c *classifyConfig) { c.unordered = true } }

// TimeLimit is the time limit of items that bring none of their own.
func TimeLimit(limit time.Duration) ClassifyOption {
	return func(c *classifyConfig) { c.timeLimit = limit }
}

// Window bounds memory: how many items may be read and not yet handed out
// (default 512), and how many bytes of unanswered pictures are held (default
// 64 MiB, exceeded by at most one picture). Both must be at least 1.
func Window(items, bytes int) ClassifyOption {
	return func(c *classifyConfig) { c.window, c.windowBytes = items, bytes }
}

// Resend is how often an item that is refused for now (a full queue) is sent
// again, after the delay that the server named. Default: as often as the
// client's [RetryPolicy] says.
func Resend(times int) ClassifyOption { return func(c *classifyConfig) { c.resend = times } }

func classifyConfigured(options []ClassifyOption) (*classifyConfig, error) {
	configured := &classifyConfig{window: 512, windowBytes: 64 << 20, resend: -1}
	for _, option := range options {
		option(configured)
	}
	if configured.window < 1 || configured.windowBytes < 1 {
		return nil, fmt.Errorf("tipserve: the window is %d items and %d bytes, both must be at least 1",
			configured.window, configured.windowBytes)
	}
	return configured, nil
}

// Classify classifies a stream of items, any number of them, and yields a
// result for every item. An item that fails is a result with Err, and the
// stream goes on. The second value is an error of the stream as a whole, and
// comes last.
//
// Items are read in a goroutine of their own, ahead of the results taken by no
// more than the [Window]. A broken connection is opened again, and unanswered
// items, no others, are sent again: every item gets one result. An error that
// items yields is yielded after the results of the items before it.
//
// Leaving the loop cancels the stream. The goroutine that reads items ends with
// their next yield: an iterator that may wait for ever should watch a context;
// for items from a channel, [Client.ClassifyChan] does.
func (c *Client) Classify(
	ctx context.Context, cache string, items iter.Seq2[Item, error], options ...ClassifyOption,
) iter.Seq2[Result, error] {
	return c.classifyStream(ctx, cache, options, func(_ context.Context, take func(Item) bool) error {
		for item, err := range items {
			if err != nil {
				return err
			}
			if !take(item) {
				break
			}
		}
		return nil
	})
}

// ClassifyChan is [Client.Classify] for items from a channel, until that is
// closed. Nothing is taken from the channel once the loop is left.
func (c *Client) ClassifyChan(
	ctx context.Context, cache string, items <-chan Item, options ...ClassifyOption,
) iter.Seq2[Result, error] {
	return c.classifyStream(ctx, cache, options, func(ctx context.Context, take func(Item) bool) error {
		for {
			select {
			case item, open := <-items:
				if !open || !take(item) {
					return nil
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func (c *Client) classifyStream(
	ctx context.Context, cache string, options []ClassifyOption, source itemSource,
) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		configured, err := classifyConfigured(options)
		if err != nil {
			yield(Result{}, err)
			return
		}
		encoder, err := c.encoder(ctx, 1)
		if err != nil {
			yield(Result{}, err)
			return
		}
		itemPolicy := c.config.retry
		if configured.resend >= 0 {
			itemPolicy.Attempts = configured.resend
		}
		run := &classifyRun{
			open: c.classify.ClassifyStream,
			config: &pb.ClassifyStreamConfig{
				Cache: cache, Options: &configured.options, Priority: configured.priority,
				// The order is put right here, across connections and resends;
				// the server need hold nothing back.
				Ordered: false,
			},
			source:    source,
			encoder:   encoder,
			timeLimit: configured.timeLimit,
			policy:    c.config.retry,
			ledger: ledger{
				ordered:      !configured.unordered,
				window:       configured.window,
				windowBytes:  configured.windowBytes,
				messageBytes: messageBytes(encoder.maxMessageBytes),
				itemPolicy:   itemPolicy,
				now:          time.Now,
				sent:         map[uint64]*pending{},
				heldBack:     map[int]Result{},
			},
		}
		run.results(ctx, yield)
	}
}

// ClassifyOne classifies one picture.
func (c *Client) ClassifyOne(
	ctx context.Context, cache string, picture Picture, options ...ClassifyOption,
) (*pb.Classification, error) {
	configured, err := classifyConfigured(options)
	if err != nil {
		return nil, err
	}
	encoder, err := c.encoder(ctx, 1)
	if err != nil {
		return nil, err
	}
	input, failed := encoder.encode(picture)
	if failed != nil {
		return nil, failed
	}
	response, err := read(ctx, c, c.classify.Classify, &pb.ClassifyRequest{
		Cache: cache, Input: input, Options: &configured.options, Priority: configured.priority,
	})
	if err != nil {
		return nil, err
	}
	return response.GetClassification(), nil
}

// Items are the given ones.
func Items(items ...Item) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

// Pictures are items of these pictures.
func Pictures(pictures ...Picture) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for _, picture := range pictures {
			if !yield(Item{Picture: picture}, nil) {
				return
			}
		}
	}
}

// Files are items of the pictures in these files.
func Files(paths ...string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for _, path := range paths {
			if !yield(Item{Picture: FromFile(path)}, nil) {
				return
			}
		}
	}
}

// FolderItems are items of the files under a folder, each folder sorted by name,
// without hidden files, texts, and what systems leave behind. Files that are no pictures become results that say so.
func FolderItems(root string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for path, err := range pictureFiles(root) {
			if !yield(Item{Picture: FromFile(path)}, err) {
				return
			}
		}
	}
}
