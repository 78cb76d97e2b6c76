package tipserve_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// folderOf makes files whose content is their name.
func folderOf(t *testing.T, paths ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, path := range paths {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(filepath.Base(path)), 0o600); err != nil {
			t.Skip("this file system has no such names: ", err)
		}
	}
	return root
}

// created makes a cache of a folder; its classes and its examples' ids.
func created(t *testing.T, root string) (classes, ids []string, err error) {
	t.Helper()
	f := start(t, &fake{create: func(_ int,
		stream grpc.BidiStreamingServer[pb.CreateCacheRequest, pb.CreateCacheResponse]) error {
		for {
			request, err := stream.Recv()
			if err != nil {
				break
			}
			for _, class := range request.GetSpec().GetClasses() {
				classes = append(classes, class.GetDisplayName())
			}
			for _, example := range request.GetExamples().GetExamples() {
				ids = append(ids, example.GetExampleId())
			}
		}
		return stream.Send(&pb.CreateCacheResponse{
			Event: &pb.CreateCacheResponse_Version{Version: &pb.Version{Version: 1}}})
	}})
	_, err = dial(t, f.address).CreateCache(within(t), &pb.CacheSpec{CacheId: "pets"}, tipserve.Folder(root))
	return classes, ids, err
}

func TestWhatSystemsLeaveBehindIsNotSent(t *testing.T) {
	root := folderOf(t, "cat/0.jpg", "cat/Thumbs.db", "cat/desktop.ini", "cat/labels.txt", "cat/.DS_Store",
		"dog/1.jpg", "dog/@eaDir/1.jpg", "dog/meta.JSON", "__MACOSX/dog/._1.jpg", "@eaDir/x.jpg")
	classes, ids, err := created(t, root)
	if err != nil || !slices.Equal(classes, []string{"cat", "dog"}) ||
		!slices.Equal(ids, []string{"cat/0.jpg", "dog/1.jpg"}) {
		t.Fatal(classes, ids, err)
	}
	f := start(t, &fake{})
	results, err := collect(dial(t, f.address).Classify(within(t), "pets", tipserve.FolderItems(root)))
	if err != nil || len(results) != 2 {
		t.Fatal(results, err)
	}
}

func TestNamesThatAreNotUTF8StayApart(t *testing.T) {
	root := folderOf(t, "caf\xe9/a\xff.jpg", "caf\xe9/a\xfe.jpg", "café/0.jpg")
	classes, ids, err := created(t, root)
	slices.Sort(classes)
	slices.Sort(ids)
	if err != nil || !slices.Equal(classes, []string{"café", `caf\xe9`}) && !slices.Equal(classes, []string{`caf\xe9`, "café"}) {
		t.Fatal(classes, err)
	}
	want := []string{"café/0.jpg", `caf\xe9/a\xfe.jpg`, `caf\xe9/a\xff.jpg`}
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		t.Fatal(ids)
	}
}

func TestAFolderOfSplitsIsRefusedWithWhatToDo(t *testing.T) {
	for _, c := range []struct{ parts, advice []string }{
		{[]string{"train", "val", "test"}, []string{`/train"), Validation(Folder(`, `/val")))`, `Evaluate(ctx, Folder(`}},
		{[]string{"Training", "Validation"}, []string{`/Training"), Validation(Folder(`}},
		{[]string{"test"}, []string{`Evaluate(ctx, Folder(`}},
	} {
		var paths []string
		for _, part := range c.parts {
			paths = append(paths, part+"/cat/0.jpg", part+"/dog/0.jpg")
		}
		_, _, err := created(t, folderOf(t, paths...))
		var failed *tipserve.Error
		if !errors.As(err, &failed) || failed.Reason != tipserve.ReasonFolderOfSplits {
			t.Fatal(err)
		}
		for _, words := range c.advice {
			if !strings.Contains(failed.Message, words) {
				t.Errorf("%q is not in %s", words, failed.Message)
			}
		}
	}
	// Classes may be called so.
	classes, _, err := created(t, folderOf(t, "train/0.jpg", "test/1.jpg"))
	if err != nil || !slices.Equal(classes, []string{"test", "train"}) {
		t.Fatal(classes, err)
	}
	classes, _, err = created(t, folderOf(t, "bus/0.jpg", "train/old/0.jpg"))
	if err != nil || !slices.Equal(classes, []string{"bus", "train"}) {
		t.Fatal(classes, err)
	}
}

func TestNamesWithControlCharactersAreRefused(t *testing.T) {
	for _, name := range []string{"a\nb", "a\x1b[31m", "a\u202eb"} {
		_, _, err := created(t, folderOf(t, name+"/0.jpg"))
		var failed *tipserve.Error
		if !errors.As(err, &failed) || failed.Reason != tipserve.ReasonClassName ||
			strings.ContainsAny(failed.Message, "\n\x1b\u202e") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNamesAreTheSameHoweverTheyAreComposed(t *testing.T) {
	f := start(t, &fake{unary: map[string]func(any) (any, error){
		"GetVersion": func(any) (any, error) {
			return &pb.Version{Name: "caches/pets/versions/1", Version: 1,
				Classes: []*pb.ClassInfo{{Index: 0, DisplayName: "tea"}, {Index: 1, DisplayName: "caf\u00e9"}}}, nil
		},
	}, evaluate: func(_ int, stream grpc.ClientStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
		answer := &pb.EvaluateResponse{}
		for {
			request, err := stream.Recv()
			if err != nil {
				return stream.SendAndClose(answer)
			}
			for _, item := range request.GetItems().GetItems() {
				if item.GetClassIndex() != 1 {
					answer.RejectedCount++
				}
			}
		}
	}})
	root := folderOf(t, "cafe\u0301/0.jpg")
	done, err := dial(t, f.address).Evaluate(within(t), tipserve.Folder(root), "pets")
	if err != nil || done.RejectedCount != 0 {
		t.Fatal(done, err)
	}
}
