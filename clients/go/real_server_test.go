package tipserve_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

const repository = "../.."

// real is a `tipserve serve` with a store of its own.
type real struct {
	address string
	folder  string
	bundle  string
	flags   []string
	process *exec.Cmd
	starts  int
}

var servingOn = regexp.MustCompile(`serving on (\S+:\d+)`)

// serve starts a real server with a bundle, or skips if there is none.
func serve(t *testing.T, bundle string, flags ...string) *real {
	t.Helper()
	if _, err := os.Stat(binary()); err != nil {
		t.Skipf("no server at %s: build it (`make build`), or set TIPSERVE_BIN", binary())
	}
	if _, err := os.Stat(filepath.Join(bundle, "bundle.toml")); err != nil {
		t.Skipf("no bundle at %s (`make bundle` makes the demo's)", bundle)
	}
	r := &real{address: "127.0.0.1:0", folder: t.TempDir(), bundle: bundle, flags: flags}
	r.start(t)
	t.Cleanup(func() { r.stop(syscall.SIGTERM) })
	return r
}

func binary() string {
	for _, name := range []string{"TIPSERVE_BIN", "TIPSERVE_BINARY"} {
		if named := os.Getenv(name); named != "" {
			return named
		}
	}
	return filepath.Join(repository, "target", "release", "tipserve")
}

// start starts the server, again on the same address, and waits until it says
// where it listens.
func (r *real) start(t *testing.T) {
	t.Helper()
	path := filepath.Join(r.folder, "log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r.process = exec.Command(binary(), append([]string{"serve", "--bundle", r.bundle,
		"--store", filepath.Join(r.folder, "store"), "--listen", r.address,
		"--metrics-listen", "127.0.0.1:0", "--device", "cpu"}, r.flags...)...)
	r.process.Stdout, r.process.Stderr = log, log
	if err := r.process.Start(); err != nil {
		t.Fatal(err)
	}
	for range 1200 {
		text, _ := os.ReadFile(path)
		if found := servingOn.FindAllSubmatch(text, -1); len(found) > r.starts {
			r.starts = len(found)
			r.address = string(found[len(found)-1][1])
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.stop(syscall.SIGKILL)
	text, _ := os.ReadFile(path)
	t.Fatalf("%s serve did not start:\n%s", binary(), text)
}

// stop ends it: with SIGTERM in order, with SIGKILL as a crash would.
func (r *real) stop(signal syscall.Signal) {
	r.process.Process.Signal(signal)
	r.process.Wait()
}
