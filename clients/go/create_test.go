package tipserve_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

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
		// The link that leads up, to the folder itself, is not followed.
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

func TestPicturesOfNoClassAndOfSeveral(t *testing.T) {
	var spec *pb.CacheSpec
	var examples []*pb.Example
	f := start(t, &fake{create: func(_ int, stream createStream) (err error) {
		if spec, examples, err = received(stream); err != nil {
			return err
		}
		return finished(stream)
	}})
	client := dial(t, f.address)
	picture := tipserve.FromBytes([]byte("a"))
	source := tipserve.Examples(
		tipserve.Example{Class: "cat", Picture: picture, ID: "a"},
		tipserve.Example{Class: "dog", Picture: picture, ID: "b"})
	if _, err := client.CreateCache(within(t), &pb.CacheSpec{CacheId: "pets"}, source,
		tipserve.Unknown(picture, picture)); err != nil {
		t.Fatal(err)
	}
	var unknown []string
	for _, example := range examples {
		if example.GetUnknown() {
			unknown = append(unknown, example.GetExampleId())
		}
	}
	if len(examples) != 4 || !slices.Equal(unknown, []string{"unknown/0", "unknown/1"}) {
		t.Errorf("%d examples, unknown %q", len(examples), unknown)
	}
	several := tipserve.Examples(
		tipserve.Example{Labels: []string{"dog", "cat"}, Picture: picture, ID: "a"},
		tipserve.Example{Labels: []string{"dog"}, Picture: picture, ID: "b"},
		tipserve.Example{Picture: picture, ID: "c"})
	if _, err := client.CreateCache(within(t),
		&pb.CacheSpec{CacheId: "pets", MultiLabel: true}, several); err != nil {
		t.Fatal(err)
	}
	var sets [][]int32
	for _, example := range examples {
		sets = append(sets, example.GetClassIndices())
	}
	if !spec.GetMultiLabel() || fmt.Sprint(sets) != "[[1 0] [1] []]" {
		t.Errorf("%v %v", spec.GetMultiLabel(), sets)
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
