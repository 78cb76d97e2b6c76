package tipserve_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/protobuf/proto"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// features is a bundle without encoders, of this width.
func features(t *testing.T, width int) string {
	t.Helper()
	folder := t.TempDir()
	text := fmt.Sprintf("format = 1\nname = \"features-%d\"\nwidth = %d\nlogit_scale = 100.0\n"+
		"templates = [\"a photo of a {}.\"]\n\n[files]\n", width, width)
	if err := os.WriteFile(filepath.Join(folder, "bundle.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return folder
}

// blob is an embedding near its class's axis.
func blob(rng *rand.Rand, class, width int) []float32 {
	values := make([]float32, width)
	for i := range values {
		values[i] = float32(rng.NormFloat64() * 0.1)
	}
	values[class] += 1
	return values
}

func blobs(rng *rand.Rand, prefix string, perClass int, classes []string, width int) []tipserve.Example {
	var made []tipserve.Example
	for class, name := range classes {
		for i := range perClass {
			made = append(made, tipserve.Example{
				Class: name, ID: fmt.Sprintf("%s%s/%d", prefix, name, i),
				Picture: tipserve.FromEmbedding(blob(rng, class, width))})
		}
	}
	return made
}

func TestCompressedMessagesAreAnsweredAlike(t *testing.T) {
	server := serve(t, features(t, 64))
	plain, ctx, rng := dial(t, server.address), within(t), random(t)
	compressed := dial(t, server.address, tipserve.WithDialOptions(
		grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))))
	names := []string{"ash", "oak"}
	made := must(compressed.CreateCache(ctx, &pb.CacheSpec{CacheId: "trees"},
		tipserve.Examples(blobs(rng, "", 8, names, 64)...)))(t)
	if made.Version.GetKeyCount() != 16 {
		t.Fatal(made.Version)
	}
	ours, theirs := must(compressed.ServerInfo(ctx))(t), must(plain.ServerInfo(ctx))(t)
	if !proto.Equal(ours, theirs) {
		t.Error(ours, theirs)
	}
}

func TestWhatAVersionsExamplesAndItsTrafficSay(t *testing.T) {
	server := serve(t, features(t, 64))
	client, ctx, rng := dial(t, server.address), within(t), random(t)
	names := []string{"ash", "oak"}
	must(client.CreateCache(ctx, &pb.CacheSpec{CacheId: "trees"},
		tipserve.Examples(blobs(rng, "", 8, names, 64)...)))(t)
	analysis := must(client.Analyze(ctx, &pb.AnalyzeVersionRequest{Cache: "trees"}))(t)
	if analysis.GetVersion() != "caches/trees/versions/1" || analysis.GetExampleCount() != 16 {
		t.Error(analysis)
	}
	must(client.ClassifyOne(ctx, "trees", tipserve.FromEmbedding(blob(rng, 0, 64))))(t)
	drift := must(client.Drift(ctx, "trees"))(t)
	if drift.GetVersion() != analysis.GetVersion() || drift.GetItemCount() != 1 {
		t.Error(drift)
	}
}

func TestRealServerOfEmbeddings(t *testing.T) {
	server := serve(t, features(t, 64))
	client, ctx, rng := dial(t, server.address), within(t), random(t)
	info := must(client.ServerInfo(ctx))(t)
	width := int(info.GetBundle().GetWidth())
	names := []string{"oak", "ash", "elm"}

	var seen []*pb.CreateProgress
	made := must(client.CreateCache(ctx, &pb.CacheSpec{CacheId: "trees", CreatedBy: "go test",
		Labels: map[string]string{"team": "wood"}},
		tipserve.Examples(append(blobs(rng, "", 8, names, width),
			tipserve.Example{Class: "oak", ID: "short", Picture: tipserve.FromEmbedding([]float32{1})})...),
		tipserve.Validation(tipserve.Examples(blobs(rng, "", 4, names, width)...)),
		tipserve.OnProgress(func(p *pb.CreateProgress) { seen = append(seen, p) })))(t)
	if made.Version.GetName() != "caches/trees/versions/1" || made.Version.GetKeyCount() != 24 || len(seen) == 0 {
		t.Fatal(made.Version, len(seen))
	}
	if len(made.Rejected) != 1 || made.Rejected[0].ID != "short" || made.Rejected[0].Err.Reason == "" {
		t.Errorf("rejected: %v", made.Rejected)
	}
	// Classes are sorted by name.
	sorted := slices.Sorted(slices.Values(names))
	for i, class := range made.Version.GetClasses() {
		if class.GetDisplayName() != sorted[i] || class.GetExampleCount() != 8 || class.GetValidationCount() != 4 {
			t.Error(class)
		}
	}

	// A stream, and one at a time, say the same.
	var items []tipserve.Item
	for i := range 600 {
		items = append(items, tipserve.Item{ID: names[i%3], Picture: tipserve.FromEmbedding(blob(rng, i%3, width))})
	}
	results, err := collect(client.Classify(ctx, "trees", tipserve.Items(items...),
		tipserve.Logits(), tipserve.Probabilities(), tipserve.Neighbours(2), tipserve.Embedding(), tipserve.Timings()))
	if err != nil || len(results) != len(items) {
		t.Fatal(len(results), err)
	}
	for i, result := range results {
		c := result.Classification
		if result.Err != nil || result.Best().GetDisplayName() != items[i].ID || len(c.GetLogits()) != 3 ||
			len(c.GetProbabilities()) != 3 || len(c.GetNeighbours()) != 2 || c.GetTimings() == nil ||
			len(c.GetEmbedding().GetValues()) != width {
			t.Fatalf("item %d, %s: %v", i, items[i].ID, result)
		}
	}
	one := must(client.ClassifyOne(ctx, "trees@1", items[5].Picture, tipserve.Logits(), tipserve.TopK(1)))(t)
	for i, logit := range one.GetLogits() {
		if math.Abs(float64(logit-results[5].Classification.GetLogits()[i])) > 1e-3 {
			t.Errorf("logits %v and %v", one.GetLogits(), results[5].Classification.GetLogits())
		}
	}
	if len(one.GetTop()) != 1 {
		t.Error(one)
	}

	done := must(client.Evaluate(ctx, tipserve.Examples(blobs(rng, "", 50, names, width)...), "trees", "trees@1"))(t)
	if len(done.Evaluations) != 2 || done.Evaluations[0].GetCount() != 150 || done.Evaluations[0].GetTop1() < 0.99 {
		t.Error(done)
	}

	// Embeddings come back as unit vectors.
	for i, embedded := range must(client.EmbedPictures(ctx, []tipserve.Picture{items[0].Picture}))(t) {
		var norm float64
		for _, v := range embedded.Values {
			norm += float64(v) * float64(v)
		}
		if embedded.Err != nil || math.Abs(norm-1) > 1e-4 {
			t.Errorf("embedding %d: |v|² = %v, %v", i, norm, embedded.Err)
		}
	}
	if _, err := client.EmbedTexts(ctx, []string{"a tree"}); !errors.Is(err, tipserve.ErrFailedPrecondition) {
		t.Errorf("texts without a text encoder: %v", err)
	}

	// Fine-tuning makes version 2.
	var progress int
	run := must(client.FineTune(ctx, &pb.FineTuneRequest{Cache: "trees", Epochs: 2, MoveAlias: "tuned"},
		func(event *pb.FineTuneResponse) {
			if event.GetProgress() != nil {
				progress++
			}
		}))(t)
	if run.GetVersion().GetVersion() != 2 || !run.GetAliasMoved() || progress == 0 {
		t.Error(run, progress)
	}
	if got := must(client.GetFineTune(ctx, run.GetName()))(t); got.GetState() != pb.FineTuneRun_STATE_SUCCEEDED {
		t.Error(got)
	}
	for listed, err := range client.FineTunes(ctx, "trees") {
		if err != nil || listed.GetName() != run.GetName() {
			t.Error(listed, err)
		}
	}
	must(client.CancelFineTune(ctx, run.GetName()))(t)

	// Aliases, lists, names.
	cache := must(client.SetAlias(ctx, "trees", "stable", 1))(t)
	if cache.GetAliases()["stable"] != 1 || cache.GetAliases()["tuned"] != 2 {
		t.Error(cache)
	}
	if version := must(client.GetVersion(ctx, "trees@tuned"))(t); version.GetParent() != "caches/trees/versions/1" {
		t.Error(version)
	}
	must(client.DeleteAlias(ctx, "trees", "stable"))(t)
	var numbers []int64
	for version, err := range client.Versions(ctx, "trees", tipserve.PageSize(1), tipserve.Fields("version")) {
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, version.GetVersion())
	}
	if !slices.Equal(numbers, []int64{2, 1}) {
		t.Error(numbers)
	}
	for _, id := range []string{"a", "b", "c"} {
		must(client.CreateCache(ctx, &pb.CacheSpec{CacheId: id}, tipserve.Examples(blobs(rng, "", 2, names, width)...)))(t)
	}
	var ids []string
	for cache, err := range client.Caches(ctx, tipserve.PageSize(2)) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, cache.GetName())
	}
	if !slices.Equal(ids, []string{"caches/a", "caches/b", "caches/c", "caches/trees"}) {
		t.Error(ids)
	}

	// Refusals carry what they are about.
	if err := client.DeleteCache(ctx, "a"); err != nil {
		t.Error(err)
	}
	_, err = client.GetCache(ctx, "a")
	var failure *tipserve.Error
	if !errors.Is(err, tipserve.ErrNotFound) || !errors.As(err, &failure) || failure.Reason != "NOT_FOUND" {
		t.Error(err)
	}
	if _, err := collect(client.Classify(ctx, "a", tipserve.Items(items[:3]...))); !errors.Is(err, tipserve.ErrNotFound) {
		t.Error(err)
	}
	_, err = client.CreateCache(ctx, &pb.CacheSpec{CacheId: "Not A Name"}, tipserve.Examples(blobs(rng, "", 1, names, width)...))
	if !errors.As(err, &failure) || failure.Reason != "NAME_INVALID" || len(failure.Violations) == 0 {
		t.Error(err)
	}
	_, err = client.CreateCache(ctx, &pb.CacheSpec{CacheId: "strict", OnRejected: pb.CacheSpec_ON_REJECTED_FAIL},
		tipserve.Examples(tipserve.Example{Class: "oak", Picture: tipserve.FromEmbedding([]float32{1})}))
	if !errors.Is(err, tipserve.ErrInvalidArgument) {
		t.Error(err)
	}
}

// What changes a cache's history. A server from before these calls skips it.
func TestRealServerOfVersions(t *testing.T) {
	server := serve(t, features(t, 64))
	client, ctx, rng := dial(t, server.address), within(t), random(t)
	width := int(must(client.ServerInfo(ctx))(t).GetBundle().GetWidth())
	names := []string{"ash", "elm"}
	must(client.CreateCache(ctx, &pb.CacheSpec{CacheId: "trees"}, tipserve.Examples(blobs(rng, "first/", 4, names, width)...)))(t)

	more := append(names, "oak")
	added, err := client.AddExamples(ctx, &pb.AddExamplesSpec{
		Base: "trees", NewClasses: []*pb.ClassSpec{{DisplayName: "oak"}}, RemoveExampleIds: []string{"first/ash/0"}},
		tipserve.Examples(blobs(rng, "second/", 3, more, width)...))
	if errors.Is(err, tipserve.ErrUnimplemented) {
		t.Skip("this server is from before AddExamples")
	}
	if err != nil {
		t.Fatal(err)
	}
	if added.Version.GetVersion() != 2 || added.Version.GetKeyCount() != 7+9 || len(added.Version.GetClasses()) != 3 {
		t.Error(added.Version)
	}
	var ids []string
	for example, err := range client.ExamplesOf(ctx, "trees@2", tipserve.PageSize(5), tipserve.Filter(`display_name = "oak"`)) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, example.GetExampleId())
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"second/oak/0", "second/oak/1", "second/oak/2"}) {
		t.Error(ids)
	}

	// What is exported is what is imported, and classifies alike.
	var file bytes.Buffer
	must(client.ExportVersion(ctx, "trees@2", &file))(t)
	must(client.ImportVersion(ctx, &pb.ImportSpec{CacheId: "copy", Etag: "new"}, bytes.NewReader(file.Bytes())))(t)
	picture := tipserve.FromEmbedding(blob(rng, 2, width))
	a := must(client.ClassifyOne(ctx, "trees@2", picture, tipserve.Logits()))(t)
	b := must(client.ClassifyOne(ctx, "copy", picture, tipserve.Logits()))(t)
	if !slices.Equal(a.GetLogits(), b.GetLogits()) {
		t.Errorf("logits %v, of the copy %v", a.GetLogits(), b.GetLogits())
	}
	if _, err := client.ImportVersion(ctx, &pb.ImportSpec{CacheId: "copy", Etag: "new"}, bytes.NewReader(file.Bytes())); !errors.Is(err, tipserve.ErrConflict) {
		t.Error("an import over what is there:", err)
	}
	if _, err := client.ImportVersion(ctx, &pb.ImportSpec{CacheId: "damaged"}, bytes.NewReader(file.Bytes()[:file.Len()/2])); err == nil {
		t.Error("half a file is taken")
	}
	if _, err := client.ExportVersion(ctx, "nothing", io.Discard); !errors.Is(err, tipserve.ErrNotFound) {
		t.Error(err)
	}

	// Who comes second is told so.
	before := must(client.GetCache(ctx, "trees"))(t)
	must(client.SetAlias(ctx, "trees", "stable", 1, tipserve.IfMatch(before.GetEtag())))(t)
	if _, err := client.SetAlias(ctx, "trees", "stable", 2, tipserve.IfMatch(before.GetEtag())); !errors.Is(err, tipserve.ErrConflict) {
		t.Error(err)
	}
	if err := client.DeleteVersion(ctx, "trees@1"); !errors.Is(err, tipserve.ErrFailedPrecondition) {
		t.Error("a version that an alias points at:", err)
	}
	for range 3 {
		must(client.AddExamples(ctx, &pb.AddExamplesSpec{Base: "trees@2", RemoveExampleIds: []string{"second/elm/1"}}, nil))(t)
	}
	if would := must(client.PrunableVersions(ctx, "trees", 2))(t); !slices.Equal(would, []int64{3, 2}) {
		t.Error(would)
	}
	if went := must(client.PruneVersions(ctx, "trees", 2))(t); !slices.Equal(went, []int64{3, 2}) {
		t.Error(went)
	}
	if err := client.DeleteVersion(ctx, "trees@4"); err != nil {
		t.Error(err)
	}
	if _, err := client.GetVersion(ctx, "trees@4"); !errors.Is(err, tipserve.ErrNotFound) {
		t.Error(err)
	}
	var filtered []string
	for cache, err := range client.Caches(ctx, tipserve.Filter(`cache_id = "co*"`)) {
		if err != nil {
			t.Fatal(err)
		}
		filtered = append(filtered, cache.GetName())
	}
	if !slices.Equal(filtered, []string{"caches/copy"}) {
		t.Error(filtered)
	}
}

func TestRealServerKilledUnderAStream(t *testing.T) {
	server := serve(t, features(t, 64))
	client, ctx, rng := dial(t, server.address, tipserve.WithRetry(patient)), within(t), random(t)
	width := int(must(client.ServerInfo(ctx))(t).GetBundle().GetWidth())
	names := []string{"ash", "elm", "oak"}
	must(client.CreateCache(ctx, &pb.CacheSpec{CacheId: "trees"}, tipserve.Examples(blobs(rng, "", 4, names, width)...)))(t)
	const n = 3000
	ways := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}
	at := []int{rng.IntN(n / 3), n/3 + rng.IntN(n/3)}
	items := func(yield func(tipserve.Item, error) bool) {
		for i := range n {
			item := tipserve.Item{ID: names[i%3], Picture: tipserve.FromEmbedding(blob(rng, i%3, width))}
			if !yield(item, nil) {
				return
			}
		}
	}
	taken := 0
	for result, err := range client.Classify(ctx, "trees", items, tipserve.Window(256, 1<<20)) {
		if err != nil {
			t.Fatal(err)
		}
		if result.Err != nil || result.Position != taken || result.Best().GetDisplayName() != result.ID {
			t.Fatalf("item %d: %v", taken, result)
		}
		if len(at) > 0 && taken == at[0] {
			server.stop(ways[0])
			server.start(t)
			at, ways = at[1:], ways[1:]
		}
		taken++
	}
	if taken != n {
		t.Errorf("%d results for %d items", taken, n)
	}
}
