package tipserve_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// numbered are n items whose pictures say which they are.
func numbered(n int) iter.Seq2[tipserve.Item, error] {
	return func(yield func(tipserve.Item, error) bool) {
		for i := range n {
			item := tipserve.Item{ID: fmt.Sprint("item ", i), Picture: tipserve.FromBytes(fmt.Append(nil, i))}
			if !yield(item, nil) {
				return
			}
		}
	}
}

// collect takes all results, and the error of the stream.
func collect(results iter.Seq2[tipserve.Result, error]) ([]tipserve.Result, error) {
	var all []tipserve.Result
	for result, err := range results {
		if err != nil {
			return all, err
		}
		all = append(all, result)
	}
	return all, nil
}

// checkEach wants one right answer for each of n numbered items.
func checkEach(t *testing.T, results []tipserve.Result, n int, ordered bool) {
	t.Helper()
	if len(results) != n {
		t.Fatalf("%d results for %d items", len(results), n)
	}
	seen := map[int]bool{}
	for i, result := range results {
		if ordered && result.Position != i {
			t.Fatalf("result %d is of position %d", i, result.Position)
		}
		if seen[result.Position] {
			t.Fatalf("position %d has two results", result.Position)
		}
		seen[result.Position] = true
		if result.Err != nil {
			t.Fatalf("item %d: %v", result.Position, result.Err)
		}
		if result.ID != fmt.Sprint("item ", result.Position) ||
			result.Best().GetDisplayName() != fmt.Sprint(result.Position) {
			t.Fatalf("position %d has the answer of another: %v", result.Position, result)
		}
	}
}

func TestEveryItemIsAnsweredInOrder(t *testing.T) {
	f := start(t, &fake{})
	n := 1000 + random(t).IntN(1000)
	results, err := collect(dial(t, f.address).Classify(within(t), "pets@7", numbered(n),
		tipserve.TopK(3), tipserve.Logits(), tipserve.Neighbours(2), tipserve.Bulk()))
	if err != nil {
		t.Fatal(err)
	}
	checkEach(t, results, n, true)
	config := f.configs[0]
	if config.GetCache() != "pets@7" || config.GetOptions().GetTopK() != 3 ||
		!config.GetOptions().GetLogits() || config.GetOptions().GetNeighbours() != 2 ||
		config.GetPriority() != pb.Priority_PRIORITY_BULK {
		t.Errorf("the configuration is %v", config)
	}
}

// backwards answers in runs of five, each run from its end.
func backwards(c *connection) error {
	type held struct {
		item     *pb.Item
		sequence uint64
	}
	var run []held
	for {
		item, sequence, more := c.item()
		if more {
			run = append(run, held{item, sequence})
		}
		if len(run) == 5 || !more {
			slices.Reverse(run)
			for _, one := range run {
				if err := c.answer(one.item, one.sequence); err != nil {
					return err
				}
			}
			run = nil
		}
		if !more {
			return nil
		}
	}
}

func TestAnswersOutOfOrder(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		f := start(t, &fake{streams: []behaviour{backwards}})
		var options []tipserve.ClassifyOption
		if !ordered {
			options = append(options, tipserve.Unordered())
		}
		results, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(200), options...))
		if err != nil {
			t.Fatal(err)
		}
		checkEach(t, results, 200, ordered)
		if !ordered && results[0].Position != 4 {
			t.Errorf("the first result is that of position %d, want 4, as ready", results[0].Position)
		}
	}
}

func TestASecondAnswerIsIgnored(t *testing.T) {
	f := start(t, &fake{streams: []behaviour{func(c *connection) error {
		for {
			item, sequence, more := c.item()
			if !more {
				return nil
			}
			for range 2 {
				if err := c.answer(item, sequence); err != nil {
					return err
				}
			}
		}
	}}})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(300), tipserve.Unordered()))
	if err != nil {
		t.Fatal(err)
	}
	checkEach(t, results, 300, false)
}

func TestBadItemsDoNotEndTheStream(t *testing.T) {
	f := start(t, &fake{})
	large := make([]byte, 65<<10)
	items := tipserve.Pictures(
		tipserve.FromBytes([]byte("one")),
		tipserve.FromBytes(nil),
		tipserve.FromBytes(large),
		tipserve.FromFile("no/such/file.png"),
		nil,
		tipserve.FromFunc(func() ([]byte, error) { return nil, errors.New("out of reach") }),
		tipserve.FromRGB(2, 2, make([]byte, 11)),
		tipserve.FromEmbedding(nil),
		tipserve.FromBytes([]byte("last")),
	)
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", items))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", tipserve.ReasonPictureEmpty, tipserve.ReasonPictureTooLarge,
		tipserve.ReasonFileUnreadable, tipserve.ReasonItemUnusable, tipserve.ReasonItemUnusable,
		tipserve.ReasonPictureShape, tipserve.ReasonEmbeddingEmpty, ""}
	if len(results) != len(want) {
		t.Fatalf("%d results, want %d", len(results), len(want))
	}
	for i, result := range results {
		var failure *tipserve.Error
		errors.As(result.Err, &failure)
		if (failure == nil) != (want[i] == "") || failure != nil && failure.Reason != want[i] {
			t.Errorf("item %d: %v, want reason %q", i, result.Err, want[i])
		}
	}
	if results[3].ID != "no/such/file.png" || results[8].ID != "8" {
		t.Errorf("default ids are %q and %q", results[3].ID, results[8].ID)
	}
}

func TestLeavingTheLoopCancelsTheStream(t *testing.T) {
	ended := make(chan error, 1)
	f := start(t, &fake{streams: []behaviour{func(c *connection) error {
		echo(c)
		<-c.Context().Done()
		ended <- c.Context().Err()
		return nil
	}}})
	forever := make(chan tipserve.Item, 1)
	forever <- tipserve.Item{Picture: tipserve.FromBytes([]byte("a"))}
	for range dial(t, f.address).ClassifyChan(within(t), "pets", forever) {
		break
	}
	select {
	case <-ended:
	case <-within(t).Done():
		t.Fatal("the server's side goes on")
	}
}

func TestTheContextEndsTheStream(t *testing.T) {
	stuck := func(c *connection) error {
		<-c.Context().Done()
		return c.Context().Err()
	}
	f := start(t, &fake{streams: []behaviour{stuck, stuck}})
	client := dial(t, f.address)
	silent := make(chan tipserve.Item)

	ctx, cancel := context.WithCancel(within(t))
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := collect(client.ClassifyChan(ctx, "pets", silent)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	ctx, cancel = context.WithTimeout(within(t), 50*time.Millisecond)
	defer cancel()
	_, err := collect(client.Classify(ctx, "pets", numbered(3)))
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, tipserve.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
}

func TestAnItemsTimeLimitIsSentAndKept(t *testing.T) {
	limits := make(chan time.Duration, 8)
	down := func(c *connection) error {
		item, _, _ := c.item()
		limits <- item.GetTimeLimit().AsDuration()
		return refusal(codes.Unavailable, "SHUTTING_DOWN", "down", 40*time.Millisecond).Err()
	}
	f := start(t, &fake{streams: []behaviour{down, down, down, down}})
	item := tipserve.Item{Picture: tipserve.FromBytes([]byte("a"))}
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", tipserve.Items(item),
		tipserve.TimeLimit(60*time.Millisecond)))
	if err != nil {
		t.Fatal(err)
	}
	var failure *tipserve.Error
	if !errors.As(results[0].Err, &failure) || failure.Reason != tipserve.ReasonTimeLimitExceeded {
		t.Fatal(results[0].Err)
	}
	if first, second := <-limits, <-limits; first != 60*time.Millisecond || second >= first {
		t.Errorf("limits sent: %v, %v", first, second)
	}
}

func TestErrorsOfTheItemsComeAfterTheirResults(t *testing.T) {
	f := start(t, &fake{})
	broken := errors.New("no more disk")
	items := func(yield func(tipserve.Item, error) bool) {
		for item := range numbered(30) {
			if !yield(item, nil) {
				return
			}
		}
		yield(tipserve.Item{}, broken)
	}
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", items))
	if err != broken {
		t.Errorf("%v, want the iterator's own error", err)
	}
	checkEach(t, results, 30, true)
}

func TestNoItemsAtAll(t *testing.T) {
	f := start(t, &fake{})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", tipserve.Items()))
	if err != nil || len(results) != 0 {
		t.Fatal(results, err)
	}
}
