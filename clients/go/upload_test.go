package tipserve_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// tree makes files of these names, their names being their content.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestACacheFromAFolder(t *testing.T) {
	var spec *pb.CacheSpec
	var examples []*pb.Example
	f := start(t, &fake{create: func(_ int, stream createStream) (err error) {
		if spec, examples, err = received(stream); err != nil {
			return err
		}
		stream.Send(&pb.CreateCacheResponse{Event: &pb.CreateCacheResponse_Progress{
			Progress: &pb.CreateProgress{Stage: pb.CreateProgress_STAGE_STORING, Received: 5}}})
		stream.Send(&pb.CreateCacheResponse{Event: &pb.CreateCacheResponse_Rejected{
			Rejected: &pb.RejectedExample{ExampleId: "big_cat/x.txt", Code: 3, Reason: "PICTURE_UNRECOGNISED"}}})
		return finished(stream)
	}})
	root := tree(t, "dog/1.png", "big_cat/b.png", "big_cat/a.png", "big_cat/more/z.png",
		"big_cat/.hidden.png", ".git/x", "README")
	// A file over the message limit, a link in a circle, a link to nowhere.
	large := filepath.Join(root, "dog", "large.png")
	if err := os.WriteFile(large, make([]byte, 70_000), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Symlink(root, filepath.Join(root, "dog", "circle"))
	os.Symlink("nowhere", filepath.Join(root, "dog", "zzz"))
	os.Symlink(filepath.Join(root, "dog", "1.png"), filepath.Join(root, "dog", "2.png"))

	given := &pb.CacheSpec{CacheId: "pets", Views: 4, Description: "d"}
	var stages []pb.CreateProgress_Stage
	made, err := dial(t, f.address).CreateCache(within(t), given, tipserve.Folder(root),
		tipserve.OnProgress(func(p *pb.CreateProgress) { stages = append(stages, p.GetStage()) }))
	if err != nil {
		t.Fatal(err)
	}
	if len(given.GetClasses()) != 0 {
		t.Error("the caller's spec was changed")
	}
	if spec.GetCacheId() != "pets" || spec.GetViews() != 4 || spec.GetDescription() != "d" {
		t.Error(spec)
	}
	var classes []string
	for _, class := range spec.GetClasses() {
		classes = append(classes, class.GetDisplayName())
	}
	if !slices.Equal(classes, []string{"big cat", "dog"}) {
		t.Errorf("classes %q", classes)
	}
	var got []string
	for _, example := range examples {
		got = append(got, fmt.Sprintf("%d %s = %s", example.GetClassIndex(), example.GetExampleId(), example.GetInput().GetEncodedImage()))
	}
	want := []string{
		"0 big_cat/a.png = big_cat/a.png", "0 big_cat/b.png = big_cat/b.png",
		"0 big_cat/more/z.png = big_cat/more/z.png", "1 dog/1.png = dog/1.png", "1 dog/2.png = dog/1.png",
		// Through the link: the same tree once more, but not the circle's own
		// folder a second time.
		"1 dog/circle/README = README",
		"1 dog/circle/big_cat/a.png = big_cat/a.png", "1 dog/circle/big_cat/b.png = big_cat/b.png",
		"1 dog/circle/big_cat/more/z.png = big_cat/more/z.png",
	}
	if !slices.Equal(got, want) {
		t.Errorf("examples\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if made.Version.GetVersion() != 1 || !slices.Equal(stages, []pb.CreateProgress_Stage{pb.CreateProgress_STAGE_STORING}) {
		t.Error(made.Version, stages)
	}
	var rejected []string
	for _, one := range made.Rejected {
		rejected = append(rejected, one.ID+" "+one.Err.Reason)
	}
	if !slices.Equal(rejected, []string{"dog/large.png PICTURE_TOO_LARGE", "dog/zzz FILE_UNREADABLE",
		"big_cat/x.txt PICTURE_UNRECOGNISED"}) {
		t.Errorf("rejected %q", rejected)
	}
	if !errors.Is(made.Rejected[1].Err, os.ErrNotExist) {
		t.Error("the cause of an unreadable file is lost")
	}
}

func TestOnRejectedFailIsKeptByTheClient(t *testing.T) {
	ended := make(chan error, 1)
	f := start(t, &fake{create: func(_ int, stream createStream) error {
		_, _, err := received(stream)
		ended <- err
		return err
	}})
	_, err := dial(t, f.address).CreateCache(within(t),
		&pb.CacheSpec{CacheId: "pets", OnRejected: pb.CacheSpec_ON_REJECTED_FAIL},
		tipserve.Examples(tipserve.Example{Class: "cat", Picture: tipserve.FromBytes(nil)}))
	var failure *tipserve.Error
	if !errors.As(err, &failure) || failure.Reason != tipserve.ReasonPictureEmpty {
		t.Fatal(err)
	}
	// The server must not take what it has for the whole. (It may never have
	// seen the call.)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the server saw a whole upload")
		}
	case <-time.After(50 * time.Millisecond):
	}
}

func TestShotsAreThoseOfTheSeedAndTheIDs(t *testing.T) {
	var examples []*pb.Example
	f := start(t, &fake{create: func(_ int, stream createStream) (err error) {
		_, examples, err = received(stream)
		if err == nil {
			err = finished(stream)
		}
		return err
	}})
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("cat/%02d.png", i))
	}
	root := tree(t, append(names, "dog/1.png")...)
	seed := random(t).Uint64N(1 << 63)
	must(dial(t, f.address).CreateCache(within(t), &pb.CacheSpec{CacheId: "pets"}, tipserve.Folder(root),
		tipserve.Shots(5, seed), tipserve.Validation(tipserve.Folder(root))))(t)
	slices.SortFunc(names, func(a, b string) int {
		x, y := sha256.Sum256(fmt.Appendf(nil, "%d/%s", seed, a)), sha256.Sum256(fmt.Appendf(nil, "%d/%s", seed, b))
		return bytes.Compare(x[:], y[:])
	})
	want := append(slices.Sorted(slices.Values(names[:5])), "dog/1.png")
	var got, validation []string
	for _, example := range examples {
		if example.GetValidation() {
			validation = append(validation, example.GetExampleId())
			continue
		}
		got = append(got, example.GetExampleId())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if len(validation) != 21 || validation[20] != "validation/dog/1.png" {
		t.Errorf("validation %q", validation)
	}
}

func TestClassesByNameAndIndex(t *testing.T) {
	var examples []*pb.Example
	f := start(t, &fake{create: func(_ int, stream createStream) (err error) {
		_, examples, err = received(stream)
		if err == nil {
			err = finished(stream)
		}
		return err
	}})
	client, ctx := dial(t, f.address), within(t)
	picture := tipserve.FromEmbedding([]float32{1, 2, 3, 4})
	twice := []*pb.ClassSpec{{DisplayName: "cat"}, {DisplayName: "cat"}, {DisplayName: "big dog"}}
	must(client.CreateCache(ctx, &pb.CacheSpec{CacheId: "pets", Classes: twice}, tipserve.Examples(
		tipserve.Example{ClassIndex: 1, Picture: picture},
		tipserve.Example{Class: "big_dog", Picture: picture, ID: "mine", Validation: true})))(t)
	if examples[0].GetClassIndex() != 1 || examples[0].GetExampleId() != "0" ||
		examples[1].GetClassIndex() != 2 || examples[1].GetExampleId() != "mine" || !examples[1].GetValidation() {
		t.Error(examples)
	}
	f = start(t, &fake{create: func(_ int, stream createStream) error {
		_, _, err := received(stream)
		return err
	}})
	client = dial(t, f.address)
	for name, bad := range map[string]struct {
		classes []*pb.ClassSpec
		source  tipserve.Source
	}{
		"ambiguous":         {twice, tipserve.Examples(tipserve.Example{Class: "cat", Picture: picture})},
		"unknown":           {twice, tipserve.Examples(tipserve.Example{Class: "cow", Picture: picture})},
		"outside":           {twice, tipserve.Examples(tipserve.Example{ClassIndex: 3, Picture: picture})},
		"index, no classes": {nil, tipserve.Examples(tipserve.Example{ClassIndex: 1, Picture: picture})},
		"no folder":         {nil, tipserve.Folder(filepath.Join(t.TempDir(), "none"))},
		"no class folders":  {nil, tipserve.Folder(t.TempDir())},
		"stream, no classes": {nil, tipserve.ExampleStream(func(func(tipserve.Example, error) bool) {
			t.Error("read")
		})},
	} {
		_, err := client.CreateCache(ctx, &pb.CacheSpec{CacheId: "pets", Classes: bad.classes}, bad.source)
		if !errors.Is(err, tipserve.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
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
		{"broken after the last example", manyExamples(100), all, down, false},
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

func TestAddingExamples(t *testing.T) {
	var spec *pb.AddExamplesSpec
	var examples []*pb.Example
	f := start(t, &fake{add: func(stream grpc.BidiStreamingServer[pb.AddExamplesRequest, pb.AddExamplesResponse]) error {
		for {
			request, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return stream.Send(&pb.AddExamplesResponse{Event: &pb.AddExamplesResponse_Version{
					Version: &pb.Version{Name: "caches/pets/versions/2"}}})
			}
			if err != nil {
				return err
			}
			if request.GetSpec() != nil {
				spec = request.GetSpec()
			}
			examples = append(examples, request.GetExamples().GetExamples()...)
		}
	}})
	client := dial(t, f.address)
	given := &pb.AddExamplesSpec{Base: "pets@stable", NewClasses: []*pb.ClassSpec{{DisplayName: "cow"}},
		RemoveExampleIds: []string{"old"}, Etag: "e1"}
	made := must(client.AddExamples(within(t), given, tipserve.Examples(
		tipserve.Example{Class: "cow", Picture: tipserve.FromBytes([]byte("moo"))},
		tipserve.Example{Class: "dog", Picture: tipserve.FromBytes([]byte("wau"))})))(t)
	if made.Version.GetName() != "caches/pets/versions/2" {
		t.Error(made.Version)
	}
	// The base is the version whose classes were looked at.
	if spec.GetBase() != "caches/pets/versions/1" || spec.GetEtag() != "e1" || spec.GetRemoveExampleIds()[0] != "old" {
		t.Error(spec)
	}
	if examples[0].GetClassIndex() != 2 || examples[1].GetClassIndex() != 1 {
		t.Error(examples)
	}
	if given.GetBase() != "pets@stable" {
		t.Error("the caller's spec was changed")
	}
	if examples[0].GetExampleId() != "1+0" || examples[1].GetExampleId() != "1+1" {
		t.Error("ids that the base may have:", examples)
	}
	// Classes that the base does not have are new, unless they are refused.
	examples = nil
	folder := tipserve.Folder(tree(t, "dog/a", "big_cow/b"))
	must(client.AddExamples(within(t), &pb.AddExamplesSpec{Base: "pets"}, folder))(t)
	if len(spec.GetNewClasses()) != 1 || spec.GetNewClasses()[0].GetDisplayName() != "big cow" ||
		examples[0].GetClassIndex() != 2 || examples[0].GetExampleId() != "big_cow/b" || examples[1].GetClassIndex() != 1 {
		t.Error(spec, examples)
	}
	refused := &pb.AddExamplesSpec{Base: "pets", NewClasses: []*pb.ClassSpec{}}
	if _, err := client.AddExamples(within(t), refused, folder); !errors.Is(err, tipserve.ErrInvalidArgument) {
		t.Error(err)
	}
	// Removing alone needs no examples.
	examples = nil
	must(client.AddExamples(within(t), &pb.AddExamplesSpec{Base: "pets", RemoveExampleIds: []string{"a"}}, nil))(t)
	if len(examples) != 0 {
		t.Error(examples)
	}
}

func TestEvaluateIsRepeatedAndCounts(t *testing.T) {
	items := 0
	f := start(t, &fake{evaluate: func(try int, stream grpc.ClientStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
		items = 0
		for {
			request, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			items += len(request.GetItems().GetItems())
		}
		if try == 0 {
			return status.Error(codes.Unavailable, "down")
		}
		return stream.SendAndClose(&pb.EvaluateResponse{
			Evaluations:   []*pb.Evaluation{{Version: "caches/pets/versions/1", Top1: 0.5}},
			Rejected:      []*pb.RejectedExample{{ExampleId: "7", Code: 3, Reason: "PICTURE_UNDECODABLE"}},
			RejectedCount: 1})
	}})
	client := dial(t, f.address)
	done := must(client.Evaluate(within(t), tipserve.Examples(
		tipserve.Example{Class: "cat", Picture: tipserve.FromBytes([]byte("x"))},
		tipserve.Example{Class: "cat", Picture: tipserve.FromBytes(nil)},
		tipserve.Example{Class: "dog", Picture: tipserve.FromBytes([]byte("y"))}), "pets"))(t)
	if items != 2 || done.Evaluations[0].GetTop1() != 0.5 || done.RejectedCount != 2 ||
		done.Rejected[0].ID != "1" || done.Rejected[1].Err.Reason != "PICTURE_UNDECODABLE" {
		t.Error(items, done)
	}
	if f.count("Evaluate") != 2 {
		t.Error("not repeated")
	}
	if _, err := client.Evaluate(within(t), nil); !errors.Is(err, tipserve.ErrInvalidArgument) {
		t.Error(err)
	}
}

// exporter sends a header and content in pieces, then fails or not.
func exporter(announced int64, pieces [][]byte, end error) func(grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
	return func(stream grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
		stream.Send(&pb.ExportVersionResponse{Payload: &pb.ExportVersionResponse_Header{
			Header: &pb.ExportHeader{Version: &pb.Version{Version: 3}, SizeBytes: announced}}})
		for _, piece := range pieces {
			stream.Send(&pb.ExportVersionResponse{Payload: &pb.ExportVersionResponse_Chunk{Chunk: piece}})
		}
		return end
	}
}

type fullDisk struct{}

var errFull = errors.New("disk full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestExport(t *testing.T) {
	down := status.Error(codes.Unavailable, "down")
	whole := exporter(6, [][]byte{[]byte("abc"), []byte("def")}, nil)
	f := start(t, &fake{})
	client := dial(t, f.address)
	export := func(w io.Writer, tries ...func(grpc.ServerStreamingServer[pb.ExportVersionResponse]) error) (int, error) {
		before := f.count("ExportVersion")
		f.export = func(try int, stream grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
			return tries[try-before](stream)
		}
		version, err := client.ExportVersion(within(t), "pets", w)
		if err == nil && version.GetVersion() != 3 {
			t.Error(version)
		}
		return f.count("ExportVersion") - before, err
	}
	var file bytes.Buffer
	if tries, err := export(&file, exporter(6, nil, down), whole); err != nil || tries != 2 || file.String() != "abcdef" {
		t.Error("broken before the first byte:", tries, err, file.String())
	}
	file.Reset()
	if tries, err := export(&file, exporter(6, [][]byte{[]byte("abc")}, down), whole); !errors.Is(err, tipserve.ErrUnavailable) || tries != 1 {
		t.Error("broken half-way:", tries, err)
	}
	if _, err := export(io.Discard, exporter(7, [][]byte{[]byte("abc")}, nil)); !errors.Is(err, tipserve.ErrDataLoss) {
		t.Error("ended early:", err)
	}
	if _, err := export(fullDisk{}, whole); err != errFull {
		t.Error("the writer's own error:", err)
	}
}

func TestExportIntoAFile(t *testing.T) {
	down := status.Error(codes.Unavailable, "down")
	f := start(t, &fake{export: func(try int, stream grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
		if try == 0 {
			return exporter(6, [][]byte{[]byte("abc")}, down)(stream)
		}
		return exporter(6, [][]byte{[]byte("abc"), []byte("def")}, nil)(stream)
	}})
	client, folder := dial(t, f.address), t.TempDir()
	path := filepath.Join(folder, "pets.safetensors")
	// Half a file is thrown away, and fetched again.
	must(client.ExportVersionFile(within(t), "pets", path))(t)
	if content, err := os.ReadFile(path); err != nil || string(content) != "abcdef" || f.count("ExportVersion") != 2 {
		t.Error(string(content), err, f.count("ExportVersion"))
	}
	if _, err := client.ExportVersionFile(within(t), "pets", path); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	f.export = func(int, grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
		return refusal(codes.NotFound, "NOT_FOUND", "no such version", -1).Err()
	}
	if _, err := client.ExportVersionFile(within(t), "pets", path+"2"); !errors.Is(err, tipserve.ErrNotFound) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(folder); len(left) != 1 {
		t.Error("left over:", left)
	}
}

func TestImport(t *testing.T) {
	content := make([]byte, 1_500_000)
	for i := range content {
		content[i] = byte(random(t).Uint32())
		if i > 1000 {
			break
		}
	}
	var spec *pb.ImportSpec
	var got bytes.Buffer
	whole := func(stream grpc.ClientStreamingServer[pb.ImportVersionRequest, pb.Version]) error {
		got.Reset()
		for {
			request, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if request.GetSpec() != nil {
				spec = request.GetSpec()
			}
			got.Write(request.GetChunk())
		}
	}
	f := start(t, &fake{take: func(try int, stream grpc.ClientStreamingServer[pb.ImportVersionRequest, pb.Version]) error {
		if try == 0 {
			stream.Recv()
			return status.Error(codes.Unavailable, "down")
		}
		if err := whole(stream); err != nil {
			return err
		}
		return stream.SendAndClose(&pb.Version{Version: 9})
	}})
	client := dial(t, f.address)
	// From the middle of what can be sought, and from there again.
	file := bytes.NewReader(append([]byte("before"), content...))
	file.Seek(6, io.SeekStart)
	version := must(client.ImportVersion(within(t), &pb.ImportSpec{CacheId: "pets", Etag: "new"}, file))(t)
	if version.GetVersion() != 9 || spec.GetSizeBytes() != int64(len(content)) || spec.GetEtag() != "new" ||
		!bytes.Equal(got.Bytes(), content) || f.count("ImportVersion") != 2 {
		t.Error(version, spec, got.Len(), f.count("ImportVersion"))
	}
	// What cannot be sought needs a size, and must have it.
	pipe := io.MultiReader(strings.NewReader("abc"))
	if _, err := client.ImportVersion(within(t), &pb.ImportSpec{CacheId: "pets"}, pipe); !errors.Is(err, tipserve.ErrInvalidArgument) {
		t.Error(err)
	}
	if _, err := client.ImportVersion(within(t), &pb.ImportSpec{CacheId: "pets", SizeBytes: 4}, pipe); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestFineTuning(t *testing.T) {
	run := func(state pb.FineTuneRun_State, version *pb.Version) *pb.FineTuneResponse {
		return &pb.FineTuneResponse{Event: &pb.FineTuneResponse_Run{
			Run: &pb.FineTuneRun{Name: "fineTunes/1", State: state, Version: version}}}
	}
	progress := &pb.FineTuneResponse{Event: &pb.FineTuneResponse_Progress{Progress: &pb.FineTuneProgress{Epoch: 1}}}
	f := start(t, &fake{})
	client := dial(t, f.address)

	f.tune = func(request *pb.FineTuneRequest, stream grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		stream.Send(run(pb.FineTuneRun_STATE_RUNNING, nil))
		stream.Send(progress)
		return stream.Send(run(pb.FineTuneRun_STATE_SUCCEEDED, &pb.Version{Version: int64(request.GetEpochs())}))
	}
	events := 0
	done, err := client.FineTune(within(t), &pb.FineTuneRequest{Cache: "pets", Epochs: 3},
		func(*pb.FineTuneResponse) { events++ })
	if err != nil || done.GetVersion().GetVersion() != 3 || events != 3 {
		t.Error(done, err, events)
	}

	f.tune = func(_ *pb.FineTuneRequest, stream grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		stream.Send(run(pb.FineTuneRun_STATE_RUNNING, nil))
		return refusal(codes.FailedPrecondition, "UNSUPPORTED", "nothing to train", -1).Err()
	}
	done, err = client.FineTune(within(t), &pb.FineTuneRequest{Cache: "pets"}, nil)
	if !errors.Is(err, tipserve.ErrFailedPrecondition) || done.GetName() != "fineTunes/1" {
		t.Error(done, err)
	}

	ended := make(chan struct{})
	f.tune = func(_ *pb.FineTuneRequest, stream grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		stream.Send(run(pb.FineTuneRun_STATE_RUNNING, nil))
		<-stream.Context().Done()
		close(ended)
		return nil
	}
	ctx, cancel := context.WithCancel(within(t))
	_, err = client.FineTune(ctx, &pb.FineTuneRequest{Cache: "pets"}, func(*pb.FineTuneResponse) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
	f.tune = func(*pb.FineTuneRequest, grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		return status.Error(codes.Unavailable, "down")
	}
	before := f.count("FineTune")
	if _, err := client.FineTune(within(t), &pb.FineTuneRequest{}, nil); !errors.Is(err, tipserve.ErrUnavailable) || f.count("FineTune") != before+1 {
		t.Error(err, f.count("FineTune"))
	}
}
