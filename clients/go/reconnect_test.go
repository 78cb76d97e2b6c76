package tipserve_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tipserve "github.com/tipserve/tipserve/clients/go"
)

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
