package tipserve_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

type createStream = grpc.BidiStreamingServer[pb.CreateCacheRequest, pb.CreateCacheResponse]

// received takes in a whole CreateCache.
func received(stream createStream) (spec *pb.CacheSpec, examples []*pb.Example, err error) {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return spec, examples, nil
		}
		if err != nil {
			return spec, examples, err
		}
		if request.GetSpec() != nil {
			spec = request.GetSpec()
		}
		examples = append(examples, request.GetExamples().GetExamples()...)
	}
}

func finished(stream createStream) error {
	return stream.Send(&pb.CreateCacheResponse{Event: &pb.CreateCacheResponse_Version{
		Version: &pb.Version{Name: "caches/pets/versions/1", Version: 1}}})
}

func manyExamples(n int) tipserve.Source {
	var examples []tipserve.Example
	for range n {
		examples = append(examples, tipserve.Example{Class: "cat", Picture: tipserve.FromBytes(make([]byte, 1000))})
	}
	return tipserve.Examples(examples...)
}

func once() tipserve.Source {
	return tipserve.ExampleStream(func(yield func(tipserve.Example, error) bool) {
		for range 100 {
			if !yield(tipserve.Example{Class: "cat", Picture: tipserve.FromBytes(make([]byte, 1000))}, nil) {
				return
			}
		}
	})
}

func TestWhenCreatingIsRepeated(t *testing.T) {
	down := status.New(codes.Unavailable, "connection reset")
	busy := refusal(codes.ResourceExhausted, "BUSY", "busy", time.Millisecond)
	wrong := refusal(codes.InvalidArgument, "CACHE_INVALID", "no", -1)
	all, spec := true, false
	cases := []struct {
		name    string
		source  tipserve.Source
		readAll bool // the server takes in everything before it fails
		why     *status.Status
		again   bool
	}{
		{"broken half-way", manyExamples(3000), spec, down, true},
		{"broken half-way, a stream", once(), spec, down, false},
		// The request id tells the server that it is the same one.
		{"broken after the last example", manyExamples(100), all, down, true},
		{"refused for now, at the end", manyExamples(100), all, busy, true},
		{"refused for good", manyExamples(100), all, wrong, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, &fake{create: func(try int, stream createStream) error {
				if try == 0 {
					if c.readAll {
						if _, _, err := received(stream); err != nil {
							return err
						}
					} else if _, err := stream.Recv(); err != nil {
						return err
					}
					return c.why.Err()
				}
				if _, _, err := received(stream); err != nil {
					return err
				}
				return finished(stream)
			}})
			_, err := dial(t, f.address).CreateCache(within(t), &pb.CacheSpec{
				CacheId: "pets", Classes: []*pb.ClassSpec{{DisplayName: "cat"}}}, c.source)
			if tries := f.count("CreateCache"); (err == nil) != c.again || (tries == 2) != c.again {
				t.Errorf("%v after %d tries", err, tries)
			}
		})
	}
}

func TestCancellingAnUploadEndsIt(t *testing.T) {
	ended := make(chan error, 1)
	begun := make(chan struct{})
	f := start(t, &fake{create: func(_ int, stream createStream) error {
		close(begun)
		_, _, err := received(stream)
		ended <- err
		return err
	}})
	ctx, cancel := context.WithCancel(within(t))
	var forever iter.Seq2[tipserve.Example, error] = func(yield func(tipserve.Example, error) bool) {
		for yield(tipserve.Example{ClassIndex: 0, Picture: tipserve.FromBytes([]byte("x"))}, nil) {
		}
	}
	go func() {
		<-begun
		cancel()
	}()
	_, err := dial(t, f.address).CreateCache(ctx, &pb.CacheSpec{
		CacheId: "pets", Classes: []*pb.ClassSpec{{DisplayName: "cat"}}}, tipserve.ExampleStream(forever))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the server saw the end of the examples")
	}
}

func TestASourcesOwnErrorIsHandedOn(t *testing.T) {
	broken := errors.New("no more disk")
	f := start(t, &fake{create: func(_ int, stream createStream) error {
		_, _, err := received(stream)
		if err == nil {
			t.Error("the server saw the end of the examples")
		}
		return err
	}})
	_, err := dial(t, f.address).CreateCache(within(t), &pb.CacheSpec{
		CacheId: "pets", Classes: []*pb.ClassSpec{{DisplayName: "cat"}}},
		tipserve.ExampleStream(func(yield func(tipserve.Example, error) bool) {
			yield(tipserve.Example{}, broken)
		}))
	if err != broken {
		t.Errorf("%v, want the source's own error", err)
	}
}
