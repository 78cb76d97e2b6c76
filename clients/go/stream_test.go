package tipserve_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// breaks answers some items, every second one of what it got, and then fails.
func breaks(answers int, how func(*connection) error) behaviour {
	return func(c *connection) error {
		for answered := 0; answered < answers; {
			item, sequence, more := c.item()
			if !more {
				return nil
			}
			if sequence%2 == 0 {
				if err := c.answer(item, sequence); err != nil {
					return err
				}
				answered++
			}
		}
		return how(c)
	}
}

func TestBrokenStreamsAreOpenedAgain(t *testing.T) {
	ways := map[string]func(*connection) error{
		"shutting down": func(*connection) error {
			return refusal(codes.Unavailable, "SHUTTING_DOWN", "going down", 0).Err()
		},
		"ended early": func(*connection) error { return nil },
		"connection cut": func(c *connection) error {
			c.fake.cut()
			<-c.Context().Done()
			return c.Context().Err()
		},
	}
	for name, how := range ways {
		t.Run(name, func(t *testing.T) {
			rng := random(t)
			f := &fake{}
			for range 5 {
				f.streams = append(f.streams, breaks(1+rng.IntN(60), how))
			}
			start(t, f)
			// A cut may take the answers with it, so that there is no progress.
			client := dial(t, f.address, tipserve.WithRetry(patient))
			results, err := collect(client.Classify(within(t), "pets", numbered(700)))
			if err != nil {
				t.Fatal(err)
			}
			checkEach(t, results, 700, true)
			if len(f.received) != 6 {
				t.Errorf("%d connections, want 6", len(f.received))
			}
		})
	}
}

func TestOnlyTheUnansweredAreSentAgain(t *testing.T) {
	// Every second item of the first 40 is answered; the client has all the
	// answers before the stream breaks, as a status follows what was sent.
	f := start(t, &fake{streams: []behaviour{breaks(20, func(*connection) error {
		return refusal(codes.Unavailable, "SHUTTING_DOWN", "going down", -1).Err()
	})}})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(100)))
	if err != nil {
		t.Fatal(err)
	}
	checkEach(t, results, 100, true)
	for i := range 100 {
		want := i%2 == 1 || i > 38
		if got := slices.Contains(f.received[1], fmt.Sprint("item ", i)); got != want {
			t.Errorf("item %d sent again: %v, want %v", i, got, want)
		}
	}
}

func TestServerKilledAndStartedAgain(t *testing.T) {
	f := &fake{}
	killed := make(chan struct{})
	f.streams = []behaviour{breaks(10, func(c *connection) error {
		close(killed)
		<-c.Context().Done()
		return c.Context().Err()
	})}
	start(t, f)
	client := dial(t, f.address, tipserve.WithRetry(patient))
	go func() {
		<-killed
		f.stop()
		f.listen(t)
	}()
	results, err := collect(client.Classify(within(t), "pets", numbered(300)))
	if err != nil {
		t.Fatal(err)
	}
	checkEach(t, results, 300, true)
}

func TestAServerThatNeverComesBackIsAnError(t *testing.T) {
	down := func(*connection) error { return refusal(codes.Unavailable, "SHUTTING_DOWN", "down", -1).Err() }
	f := start(t, &fake{streams: slices.Repeat([]behaviour{down}, 100)})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(10)))
	if !errors.Is(err, tipserve.ErrUnavailable) || len(results) != 0 {
		t.Fatalf("%v results and %v", results, err)
	}
	if got := f.count("ClassifyStream"); got != fast.Attempts+1 {
		t.Errorf("%d tries, want %d", got, fast.Attempts+1)
	}
}

func TestAStreamThatIsRefusedIsNotRepeated(t *testing.T) {
	f := start(t, &fake{streams: []behaviour{func(*connection) error {
		return refusal(codes.NotFound, "NOT_FOUND", "no such cache", -1).Err()
	}}})
	_, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(10)))
	var failure *tipserve.Error
	if !errors.Is(err, tipserve.ErrNotFound) || !errors.As(err, &failure) || failure.Reason != "NOT_FOUND" {
		t.Fatal(err)
	}
	if got := f.count("ClassifyStream"); got != 1 {
		t.Errorf("%d tries, want 1", got)
	}
}

func TestItemsRefusedForNowAreSentAgain(t *testing.T) {
	full := refusal(codes.ResourceExhausted, "QUEUE_FULL", "full", time.Millisecond)
	refusals := map[string]int{}
	f := start(t, &fake{streams: []behaviour{func(c *connection) error {
		for {
			item, sequence, more := c.item()
			if !more {
				return nil
			}
			var err error
			switch refusals[item.GetId()]++; {
			// Item 3 is refused twice, item 5 for ever.
			case item.GetId() == "item 3" && refusals["item 3"] <= 2, item.GetId() == "item 5":
				err = c.refuse(item, sequence, full)
			default:
				err = c.answer(item, sequence)
			}
			if err != nil {
				return err
			}
		}
	}}})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(8), tipserve.Resend(3)))
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range results {
		if i == 5 {
			var failure *tipserve.Error
			if !errors.As(result.Err, &failure) || !errors.Is(failure, tipserve.ErrExhausted) ||
				failure.Reason != "QUEUE_FULL" || failure.Metadata["limit"] != "7" {
				t.Errorf("item 5: %v", result.Err)
			}
			if delay, ok := failure.RetryDelay(); !ok || delay != time.Millisecond {
				t.Errorf("the retry delay is %v, %v", delay, ok)
			}
		} else if result.Err != nil {
			t.Errorf("item %d: %v", i, result.Err)
		}
	}
	if refusals["item 5"] != 4 || refusals["item 3"] != 3 || refusals["item 1"] != 1 {
		t.Errorf("items were sent %v times", refusals)
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

func TestMessagesStayUnderTheLimit(t *testing.T) {
	rng := random(t)
	f := start(t, &fake{limits: map[string]int64{"max_message_bytes": 20_000}})
	items := func(yield func(tipserve.Item, error) bool) {
		for range 400 {
			size := 1 + rng.IntN(15_000)
			id := strings.Repeat("ä", rng.IntN(700)) // some over the bound on ids
			if !yield(tipserve.Item{ID: id, Picture: tipserve.FromBytes(make([]byte, size))}, nil) {
				return
			}
		}
	}
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", items))
	if err != nil || len(results) != 400 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	if largest := slices.Max(f.sizes); largest > 20_000 {
		t.Errorf("a message of %d bytes", largest)
	}
}

func TestReadingStaysWithinTheWindow(t *testing.T) {
	f := start(t, &fake{})
	var reading atomic.Int64
	items := func(yield func(tipserve.Item, error) bool) {
		for item := range numbered(2000) {
			reading.Add(1)
			if !yield(item, nil) {
				return
			}
		}
	}
	var taken int64
	for _, err := range dial(t, f.address).Classify(within(t), "pets", items, tipserve.Window(16, 1<<20)) {
		if err != nil {
			t.Fatal(err)
		}
		taken++
		if ahead := reading.Load() - taken; ahead > 16 {
			t.Fatalf("read %d items ahead of the results taken", ahead)
		}
	}
	if taken != 2000 {
		t.Errorf("%d results", taken)
	}
}

func TestBytesStayWithinTheWindow(t *testing.T) {
	var reading atomic.Int64
	f := start(t, &fake{streams: []behaviour{func(c *connection) error {
		for answered := int64(0); ; answered++ {
			item, sequence, more := c.item()
			if !more {
				return nil
			}
			time.Sleep(time.Millisecond) // A reader without bounds runs ahead.
			// Pictures of 1000 bytes: the eleventh passes the bound.
			if ahead := reading.Load() - answered; ahead > 11 {
				t.Errorf("read %d pictures ahead of the answers", ahead)
			}
			if err := c.answer(item, sequence); err != nil {
				return err
			}
		}
	}}})
	items := func(yield func(tipserve.Item, error) bool) {
		for range 100 {
			reading.Add(1)
			if !yield(tipserve.Item{Picture: tipserve.FromBytes(make([]byte, 1000))}, nil) {
				return
			}
		}
	}
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", items, tipserve.Window(512, 10_000)))
	if err != nil || len(results) != 100 {
		t.Fatal(len(results), err)
	}
}

func TestEveryAnswerBeginsTheCountOfTriesAnew(t *testing.T) {
	down := breaks(1, func(*connection) error {
		return refusal(codes.Unavailable, "SHUTTING_DOWN", "down", -1).Err()
	})
	f := start(t, &fake{streams: slices.Repeat([]behaviour{down}, 3*fast.Attempts)})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(50)))
	if err != nil {
		t.Fatal(err)
	}
	checkEach(t, results, 50, true)
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

func TestASlowServerAndAFastReader(t *testing.T) {
	// A transport window far below what is sent: sending has to wait for
	// receiving, and receiving must not wait for sending.
	slow := func(c *connection) error {
		for {
			item, sequence, more := c.item()
			if !more {
				return nil
			}
			if sequence%50 == 0 {
				time.Sleep(time.Millisecond)
			}
			if err := c.answer(item, sequence); err != nil {
				return err
			}
		}
	}
	f := start(t, &fake{
		streams: []behaviour{slow},
		options: []grpc.ServerOption{grpc.InitialWindowSize(64 << 10), grpc.InitialConnWindowSize(64 << 10)},
	})
	items := func(yield func(tipserve.Item, error) bool) {
		for range 1500 {
			if !yield(tipserve.Item{Picture: tipserve.FromBytes(make([]byte, 3000))}, nil) {
				return
			}
		}
	}
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", items))
	if err != nil || len(results) != 1500 {
		t.Fatal(len(results), err)
	}
}

func TestAProxysResetIsABrokenConnection(t *testing.T) {
	f := start(t, &fake{streams: []behaviour{breaks(3, func(*connection) error {
		return status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: PROTOCOL_ERROR")
	})}})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(20)))
	if err != nil {
		t.Fatal(err)
	}
	checkEach(t, results, 20, true)
}

func TestWithoutRetriesABrokenStreamIsAnError(t *testing.T) {
	f := start(t, &fake{streams: []behaviour{breaks(1, func(*connection) error { return nil })}})
	client := dial(t, f.address, tipserve.WithRetry(tipserve.NoRetry))
	_, err := collect(client.Classify(within(t), "pets", numbered(20)))
	if !errors.Is(err, tipserve.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestAnEmptyWindowIsRefused(t *testing.T) {
	f := start(t, &fake{})
	_, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(1), tipserve.Window(0, 1)))
	if err == nil || f.count("ClassifyStream") != 0 {
		t.Fatal(err)
	}
}
