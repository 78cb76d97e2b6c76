package tipserve_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// madeOf is what the server got of a list: the class names, and each example's
// id with its class.
func madeOf(t *testing.T, name, text string) (names []string, examples map[string]int32, err error) {
	t.Helper()
	return madeWith(t, &pb.CacheSpec{CacheId: "c"}, name, text)
}

func madeWith(
	t *testing.T, spec *pb.CacheSpec, name, text string,
) (names []string, examples map[string]int32, err error) {
	t.Helper()
	folder := t.TempDir()
	for _, picture := range []string{"0.png", "1.png"} {
		write(t, filepath.Join(folder, picture), "IMG "+picture)
	}
	path := filepath.Join(folder, name)
	write(t, path, text)
	server := start(t, &fake{})
	examples = map[string]int32{}
	server.create = func(_ int, stream createStream) error {
		spec, received, err := received(stream)
		if err != nil {
			return err
		}
		for _, class := range spec.GetClasses() {
			names = append(names, class.GetDisplayName())
		}
		for _, one := range received {
			examples[one.GetExampleId()] = one.GetClassIndex()
		}
		return finished(stream)
	}
	_, err = dial(t, server.address).CreateCache(within(t), spec, tipserve.ListFile(path))
	return names, examples, err
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestListsOfAllFormsSayTheSame(t *testing.T) {
	coco := `{"images": [{"id": 7, "file_name": "0.png"}, {"id": "k", "file_name": "1.png"}],
		"categories": [{"id": 3, "name": "a"}, {"id": 1, "name": "b"}],
		"annotations": [{"image_id": 7, "category_id": 1}, {"image_id": 7, "category_id": 1},
		                {"image_id": "k", "category_id": 3}]}`
	for _, one := range [][2]string{
		{"x.csv", "path,label\n0.png,b\n1.png,a\n"},
		{"x.CSV", "\ufeffLabel, PATH\r\nb,0.png\r\n\r\n a ,1.png\r\n"},
		{"x.csv", "file_name;class\n\"0.png\";b\n1.png;a\n"},
		{"x.csv", "path,label\r0.png,b\r1.png,a\r"},
		{"x.tsv", "image\tcategory\tnote\n0.png\tb\tx, y\n1.png\ta\t\n"},
		{"x.jsonl", "{\"path\": \"0.png\", \"label\": \"b\"}\n\n{\"label\": \"a\", \"path\": \"1.png\"}"},
		{"instances_val2017.JSON", coco},
	} {
		names, examples, err := madeOf(t, one[0], one[1])
		if err != nil {
			t.Errorf("%v: %v", one, err)
		}
		if !reflect.DeepEqual(names, []string{"a", "b"}) ||
			!reflect.DeepEqual(examples, map[string]int32{"0.png": 1, "1.png": 0}) {
			t.Errorf("%v: %v, %v", one, names, examples)
		}
	}
}

func TestWhatIsWrongWithAListNamesTheFileAndTheLine(t *testing.T) {
	for _, one := range [][3]string{
		{"x.csv", "path,label,class\n0.png,a,x\n", "label and class may be the class's"},
		{"x.csv", "path,foo\n0.png,a\n", "none may be the class's"},
		{"x.csv", "0.png,a\n1.png,b\n", "none is a picture's"},
		{"x.csv", "", "of its columns (none)"},
		{"x.csv", "path,label\n0.png\n", "line 2 has another number of columns"},
		{"x.csv", "path,label\n0.png,\n", "line 2 has no class"},
		{"x.csv", "path,label\n0.png,\"a\nb\"\n", "the control character U+000A"},
		{"x.csv", "path,label\nhttps://x.org/a.jpg,a\n", "is an address"},
		{"x.jsonl", "{\"path\": \"0.png\", \"label\": 1}", "line 1: it has the class 1"},
		{"x.jsonl", "{\"path\": \"0.png\", \"label\": \"a\"}\n{\"path\": \"1\"}", `line 2: it lacks "label"`},
		{"x.jsonl", "{\"path\": \"0.png\", \"label\": \"a\"} {}", "line 1 goes on"},
		{"x.jsonl", "{\"path\": \"0.png\", \"label\": null}", "it has no class"},
		{"x.jsonl", "\n", "it has no lines"},
		{"x.json", `{"images": []}`, "it is no COCO file"},
		{"x.json", `{"images": [{"id": 1, "file_name": "0.png"}], "categories": [],
			"annotations": [{"image_id": 1, "category_id": 9}]}`, "the category 9"},
		{"x.json", `{"images": [{"id": 1, "file_name": "gone.png"}], "categories": [], "annotations": []}`,
			"is not beside it"},
		{"x.csv", "path,label\n0.png,\xe9\n", "it is not UTF-8"},
		{"x.csv", "\xff\xfep\x00", "UTF-16"},
		{"x.parquet", "PAR1", "a list of pictures is a .csv"},
		{"x.csv", "path,label,Path\n0.png,a,1.png\n", `several are called "path"`},
		{"x.csv", "path,label,label\n0.png,a,b\n", `several are called "label"`},
		{"x.jsonl", "{\"path\": \"0.png\", \"label\": \"a\", \"id\": 1, \"ID\": 2}", "several are called"},
		{"x.json", `{"images": [{"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}],
			"categories": [], "annotations": []}`, "two of its images have the id 1"},
		{"x.json", `{"images": [{"id": 1, "file_name": null}], "categories": [], "annotations": []}`,
			"lacks id or file_name"},
		{"x.json", `{"images": [{"id": 1, "file_name": "0.png"}], "categories": [{"name": "a"}],
			"annotations": []}`, "lacks an id"},
	} {
		_, _, err := madeOf(t, one[0], one[1])
		if err == nil || !strings.Contains(err.Error(), one[2]) || !strings.Contains(err.Error(), one[0]) {
			t.Errorf("%v: %v", one, err)
		}
	}
}

func TestALabelledListIsForIndependentLabels(t *testing.T) {
	for name, text := range map[string]string{
		"x.csv":   "file,labels\n0.png,dog; cat\n1.png,\n",
		"x.jsonl": "{\"file\": \"0.png\", \"labels\": [\"dog\", \"cat\"]}\n{\"file\": \"1.png\", \"labels\": []}",
	} {
		spec := &pb.CacheSpec{CacheId: "c", MultiLabel: true}
		names, examples, err := madeWith(t, spec, name, text)
		if err != nil || !reflect.DeepEqual(names, []string{"cat", "dog"}) || len(examples) != 2 {
			t.Errorf("%s: %v, %v, %v", name, names, examples, err)
		}
		// Of one class each, one of none would be of the first.
		if _, _, err := madeOf(t, name, text); err == nil || !strings.Contains(err.Error(), "lists of labels") {
			t.Errorf("%s without MultiLabel: %v", name, err)
		}
	}
}

func TestCategoriesOfOneNameStayApart(t *testing.T) {
	names, examples, err := madeOf(t, "x.json", `{
		"images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "1.png"}],
		"categories": [{"id": 5, "name": "a"}, {"id": 4, "name": "a"}],
		"annotations": [{"image_id": 1, "category_id": 4}, {"image_id": 2, "category_id": 5}]}`)
	expected := map[string]int32{"0.png": 1, "1.png": 0}
	if err != nil || !reflect.DeepEqual(names, []string{"a", "a"}) || !reflect.DeepEqual(examples, expected) {
		t.Errorf("%v, %v, %v", names, examples, err)
	}
}

func TestSuggestionsComeFromAPoolWithoutLabels(t *testing.T) {
	server := serve(t, features(t, 64))
	client, ctx, rng := dial(t, server.address), within(t), random(t)
	var items []tipserve.Item
	for class := range 4 {
		for range 8 {
			items = append(items, tipserve.Item{Picture: tipserve.FromEmbedding(blob(rng, class, 64))})
		}
	}
	items = append(items, tipserve.Item{Picture: tipserve.FromFile("/gone.jpg")})
	found := must(client.Suggest(ctx, &pb.SuggestExamplesConfig{Count: 4}, tipserve.Items(items...)))(t)
	if len(found.Response.GetSuggestions()) != 4 || found.Response.GetReceived() != 32 {
		t.Fatal(found.Response)
	}
	different := map[uint64]bool{}
	for _, one := range found.Response.GetSuggestions() {
		different[uint64(one.GetSequence())] = true
		if one.GetReason() != pb.Suggestion_REASON_TYPICAL {
			t.Error(one)
		}
	}
	if len(different) != 4 {
		t.Error("different pictures:", found.Response.GetSuggestions())
	}
	if len(found.Rejected) != 1 || found.Rejected[0].ID != "/gone.jpg" {
		t.Error(found.Rejected)
	}
}
