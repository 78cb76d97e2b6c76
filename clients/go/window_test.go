package tipserve_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	tipserve "github.com/tipserve/tipserve/clients/go"
)

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

func TestAnEmptyWindowIsRefused(t *testing.T) {
	f := start(t, &fake{})
	_, err := collect(dial(t, f.address).Classify(within(t), "pets", numbered(1), tipserve.Window(0, 1)))
	if err == nil || f.count("ClassifyStream") != 0 {
		t.Fatal(err)
	}
}
