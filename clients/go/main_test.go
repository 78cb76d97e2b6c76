package tipserve_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	tipserve "github.com/tipserve/tipserve/clients/go"
)

// Every test's goroutines have ended when all have run, or the run fails.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// fast repeats without making tests wait.
var fast = tipserve.RetryPolicy{
	Attempts: 4, FirstDelay: 5 * time.Millisecond, Factor: 2, MaxDelay: 20 * time.Millisecond,
	Jitter: 0.3, MaxServerDelay: time.Minute,
}

// patient repeats until the test's own end, nearly.
var patient = tipserve.RetryPolicy{
	Attempts: 300, FirstDelay: 5 * time.Millisecond, Factor: 2, MaxDelay: 100 * time.Millisecond,
	Jitter: 0.3, MaxServerDelay: time.Minute,
}

// dial makes a client that ends with the test.
func dial(t testing.TB, address string, options ...tipserve.Option) *tipserve.Client {
	t.Helper()
	client, err := tipserve.New(address, append([]tipserve.Option{tipserve.WithRetry(fast)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// within is a context that no test should outlive.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// random is a source of numbers whose seed a failing test prints.
// TIPSERVE_TEST_SEED gives it again.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("TIPSERVE_TEST_SEED"); given != "" {
		if _, err := fmt.Sscan(given, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("TIPSERVE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
