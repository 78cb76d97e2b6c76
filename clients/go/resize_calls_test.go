package tipserve_test

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Every call that takes pictures resizes them; but for augmented views whole
// pictures are wanted.
func TestEveryCallResizes(t *testing.T) {
	var file bytes.Buffer
	if err := png.Encode(&file, painted(t, 50, 40)); err != nil {
		t.Fatal(err)
	}
	picture := tipserve.FromBytes(file.Bytes())
	var mu sync.Mutex
	var seen []*pb.Input
	note := func(input *pb.Input) {
		if input != nil {
			mu.Lock()
			seen = append(seen, input)
			mu.Unlock()
		}
	}
	var baseViews int32
	made := &pb.Version{Name: "caches/pets/versions/2", Version: 2}
	f := start(t, &fake{
		unary: map[string]func(any) (any, error){
			"Classify": func(request any) (any, error) {
				note(request.(*pb.ClassifyRequest).GetInput())
				return &pb.ClassifyResponse{}, nil
			},
			"Embed": func(request any) (any, error) {
				note(request.(*pb.EmbedRequest).GetInputs()[0])
				return &pb.EmbedResponse{Inputs: []*pb.EmbedResult{{}}}, nil
			},
			"GetVersion": func(any) (any, error) {
				return &pb.Version{Name: "caches/pets/versions/1", Version: 1, Views: baseViews,
					Classes: []*pb.ClassInfo{{Index: 0, DisplayName: "cat"}}}, nil
			},
		},
		streams: []behaviour{func(c *connection) error {
			item, sequence, _ := c.item()
			note(item.GetInput())
			return c.answer(item, sequence)
		}},
		create: func(_ int, stream grpc.BidiStreamingServer[pb.CreateCacheRequest, pb.CreateCacheResponse]) error {
			for {
				request, err := stream.Recv()
				if err != nil {
					return stream.Send(&pb.CreateCacheResponse{Event: &pb.CreateCacheResponse_Version{Version: made}})
				}
				for _, example := range request.GetExamples().GetExamples() {
					note(example.GetInput())
				}
			}
		},
		add: func(stream grpc.BidiStreamingServer[pb.AddExamplesRequest, pb.AddExamplesResponse]) error {
			for {
				request, err := stream.Recv()
				if err != nil {
					return stream.Send(&pb.AddExamplesResponse{Event: &pb.AddExamplesResponse_Version{Version: made}})
				}
				for _, example := range request.GetExamples().GetExamples() {
					note(example.GetInput())
				}
			}
		},
		evaluate: func(_ int, stream grpc.ClientStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
			for {
				request, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return stream.SendAndClose(&pb.EvaluateResponse{})
				}
				if err != nil {
					return err
				}
				for _, item := range request.GetItems().GetItems() {
					note(item.GetInput())
				}
			}
		},
	})
	client, ctx := dial(t, f.address, tipserve.WithResize(tipserve.ResizeOnClient)), within(t)
	examples := tipserve.Examples(tipserve.Example{Class: "cat", ID: "new", Picture: picture})
	check := func(call string, whole bool, err error) {
		t.Helper()
		if err != nil || len(seen) != 1 {
			t.Fatal(call, len(seen), err)
		}
		if raw := seen[0].GetRawRgb(); whole && !bytes.Equal(seen[0].GetEncodedImage(), file.Bytes()) ||
			!whole && (raw.GetWidth() != 32 || raw.GetHeight() != 32) {
			t.Errorf("%s sent %d bytes of a file, %d × %d pixels",
				call, len(seen[0].GetEncodedImage()), raw.GetWidth(), raw.GetHeight())
		}
		seen = nil
	}
	_, err := client.ClassifyOne(ctx, "pets", picture)
	check("ClassifyOne", false, err)
	_, err = collect(client.Classify(ctx, "pets", tipserve.Pictures(picture)))
	check("Classify", false, err)
	_, err = client.EmbedPictures(ctx, []tipserve.Picture{picture})
	check("EmbedPictures", false, err)
	_, err = client.Evaluate(ctx, examples, "pets")
	check("Evaluate", false, err)
	for _, views := range []int32{0, 1, 10} {
		_, err = client.CreateCache(ctx, &pb.CacheSpec{CacheId: "pets", Views: views}, examples)
		check(fmt.Sprint("CreateCache of views ", views), views > 1, err)
		baseViews = views
		_, err = client.AddExamples(ctx, &pb.AddExamplesSpec{Base: "pets"}, examples)
		check(fmt.Sprint("AddExamples of views ", views), views > 1, err)
	}
	_, err = dial(t, f.address).ClassifyOne(ctx, "pets", picture)
	check("ClassifyOne without the option", true, err)
}
