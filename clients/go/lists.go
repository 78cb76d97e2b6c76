package tipserve

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// ListFile is a file that lists pictures with their classes; paths in it begin
// at its folder. By the end of its name it is
//
//   - .csv or .tsv, with a line of names first: a picture (image, path,
//     file_name, …) and a label, perhaps an id; the columns file and labels
//     ("cat;dog") are for versions with MultiLabel;
//   - .jsonl or .ndjson, an object a line, with the same names; a picture may be
//     an embedding, a label a list of them;
//   - .json, COCO's annotations: a picture is an example of the category that it
//     is annotated with.
//
// The command line and the Python client read the same files by the same rules.
// What would have to be guessed is an error that names the file and the line.
func ListFile(path string) Source { return listSource(path) }

type listSource string

func (s listSource) load(given []*pb.ClassSpec) (*labelled, error) {
	examples, own, err := s.read()
	if err != nil {
		return nil, err
	}
	if own != nil && (given == nil || slices.EqualFunc(own, given, sameClass)) {
		// By position: two of its categories may share a name.
		given = own
		for i := range examples {
			examples[i].Class = ""
		}
	}
	return sliceSource(examples).load(given)
}

func sameClass(one, other *pb.ClassSpec) bool {
	return plainName(one.GetDisplayName()) == plainName(other.GetDisplayName())
}

func (s listSource) names() ([]string, error) {
	examples, own, err := s.read()
	if err != nil {
		return nil, err
	}
	if own == nil {
		return sliceSource(examples).names()
	}
	names := make([]string, len(own))
	for i, class := range own {
		names[i] = class.GetDisplayName()
	}
	return names, nil
}

// read lists the examples, and the classes where the file has a list of its own.
func (s listSource) read() ([]Example, []*pb.ClassSpec, error) {
	path := string(s)
	wrong := func(err error) error {
		return invalid(ReasonFileUnreadable, "cannot read %s: %w", readable(path), err).
			with("path", readable(path))
	}
	var parse func(text []byte, folder string) ([]Example, []*pb.ClassSpec, error)
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		parse = func(text []byte, folder string) ([]Example, []*pb.ClassSpec, error) {
			return fromColumns(text, delimiter(text), folder)
		}
	case ".tsv":
		parse = func(text []byte, folder string) ([]Example, []*pb.ClassSpec, error) {
			return fromColumns(text, '\t', folder)
		}
	case ".jsonl", ".ndjson":
		parse = fromLines
	case ".json":
		parse = func(text []byte, _ string) ([]Example, []*pb.ClassSpec, error) {
			return fromCOCO(text, path)
		}
	default:
		return nil, nil, wrong(errors.New("a list of pictures is a .csv, .tsv, .jsonl or COCO .json file"))
	}
	text, err := readText(path)
	if err != nil {
		return nil, nil, wrong(err)
	}
	examples, own, err := parse(text, filepath.Dir(path))
	if err != nil {
		return nil, nil, wrong(err)
	}
	for _, example := range examples {
		for _, name := range append(example.Labels[:len(example.Labels):len(example.Labels)], example.Class) {
			if err := checkClassName(name); err != nil {
				return nil, nil, wrong(err)
			}
		}
	}
	return examples, own, nil
}

// readText is a file in UTF-8, without the mark that Windows editors put before it.
func readText(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		var failed *os.PathError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return nil, errors.New("it is in UTF-16; save it as UTF-8")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !bytes.ContainsRune(text, '\n') {
		// As on an old Mac.
		text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	}
	return text, nil
}

// beside is a path as it is written in a file of that folder. It is not cleaned:
// where a folder is a link, or is not there, "folder/.." is not here.
func beside(folder, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return folder + string(filepath.Separator) + path
}

// delimiter is what separates a CSV's columns: in countries with a decimal
// comma, spreadsheets write semicolons. Of equally many the comma wins.
func delimiter(text []byte) rune {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	best := ','
	for _, one := range ";\t" {
		if bytes.Count(first, []byte(string(one))) > bytes.Count(first, []byte(string(best))) {
			best = one
		}
	}
	return best
}

func fromColumns(text []byte, delimiter rune, folder string) ([]Example, []*pb.ClassSpec, error) {
	if err := checkQuotes(text, byte(delimiter)); err != nil {
		return nil, nil, err
	}
	reader := csv.NewReader(bytes.NewReader(text))
	reader.Comma, reader.FieldsPerRecord, reader.LazyQuotes = delimiter, -1, true
	names, err := reader.Read()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
	}
	columns, err := columnsAmong(names)
	if err != nil {
		return nil, nil, err
	}
	// The list of labels that `tipserve classify --labels` writes.
	several := delimiter == ',' && len(names) == 2 && columns.picture == "file" && columns.label == "labels"
	var examples []Example
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return examples, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		line, _ := reader.FieldPos(0)
		if len(record) != len(names) {
			return nil, nil, fmt.Errorf("line %d has another number of columns", line)
		}
		row := map[string]string{}
		for i, name := range names {
			row[name] = record[i]
		}
		var example Example
		if columns.id != "" {
			example.ID = row[columns.id]
		}
		if several {
			example.Labels = []string{}
			for label := range strings.SplitSeq(row[columns.label], ";") {
				if label = className(label); label != "" {
					example.Labels = append(example.Labels, label)
				}
			}
		} else if example.Class = className(row[columns.label]); example.Class == "" {
			return nil, nil, fmt.Errorf("line %d has no class", line)
		}
		if err := example.takePath(row[columns.picture], folder); err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", line, err)
		}
		examples = append(examples, example)
	}
}

func fromLines(text []byte, folder string) ([]Example, []*pb.ClassSpec, error) {
	var examples []Example
	var columns *listColumns
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var row map[string]any
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.UseNumber()
		if err := decoder.Decode(&row); err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", number, err)
		}
		if decoder.More() {
			return nil, nil, fmt.Errorf("line %d goes on after its object", number)
		}
		if err := checkJSON(line); err != nil {
			return nil, nil, fmt.Errorf("line %d holds %w", number, err)
		}
		if columns == nil {
			found, err := columnsAmong(slices.Sorted(maps.Keys(row)))
			if err != nil {
				return nil, nil, err
			}
			columns = &found
		}
		example, err := columns.fromObject(row, folder)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", number, err)
		}
		examples = append(examples, example)
	}
	if examples == nil {
		return nil, nil, errors.New("it has no lines")
	}
	return examples, nil, nil
}

func (c *listColumns) fromObject(row map[string]any, folder string) (Example, error) {
	var example Example
	for _, name := range []string{c.picture, c.label} {
		if _, there := row[name]; !there {
			return example, fmt.Errorf("it lacks %q", name)
		}
	}
	switch label := row[c.label].(type) {
	case []any:
		example.Labels = []string{}
		for _, one := range label {
			name, err := classNameOf(one)
			if err != nil {
				return example, err
			}
			example.Labels = append(example.Labels, name)
		}
	default:
		name, err := classNameOf(label)
		if err != nil {
			return example, err
		}
		example.Class = name
	}
	if c.id != "" {
		id, err := idOf(row[c.id])
		if err != nil {
			return example, err
		}
		example.ID = id
	}
	switch picture := row[c.picture].(type) {
	case string:
		return example, example.takePath(picture, folder)
	case []any:
		values, err := embeddingOf(picture)
		example.Picture = FromEmbedding(values)
		return example, err
	default:
		return example, fmt.Errorf("%q is %v, neither a path nor an embedding", c.picture, picture)
	}
}

// idOf is an example's id as JSON has it.
func idOf(value any) (string, error) {
	switch value := value.(type) {
	case nil:
		return "", nil
	case string:
		return value, nil
	case json.Number:
		_, signed := strconv.ParseInt(value.String(), 10, 64)
		_, unsigned := strconv.ParseUint(value.String(), 10, 64)
		if signed == nil || unsigned == nil {
			return value.String(), nil
		}
	}
	return "", fmt.Errorf("its id is %v, neither a text nor a whole number of at most 64 bits", value)
}

// classNameOf is a class's name as JSON has it.
func classNameOf(value any) (string, error) {
	switch value := value.(type) {
	case nil:
	case string:
		if name := className(value); name != "" {
			return name, nil
		}
	default:
		return "", fmt.Errorf("it has the class %v, which is no name: write it as a text", value)
	}
	return "", errors.New("it has no class")
}

// className is a class's name as a list has it: without spaces around it, in NFC.
func className(text string) string { return norm.NFC.String(strings.TrimSpace(text)) }

func embeddingOf(values []any) ([]float32, error) {
	embedding := make([]float32, len(values))
	for i, value := range values {
		number, ok := value.(json.Number)
		if !ok {
			return nil, fmt.Errorf("its embedding holds %v, which is no number", value)
		}
		// Beyond float64's range it is infinite; the server says so.
		float, _ := number.Float64()
		embedding[i] = float32(float)
	}
	return embedding, nil
}

var addressed = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]+://`)

// takePath sets the picture of a path as it is written in a list.
func (e *Example) takePath(path, folder string) error {
	if path == "" {
		return errors.New("it has no picture")
	}
	if data, found, err := ofDataURL(path); found {
		e.Picture = FromFunc(func() ([]byte, error) { return data, err })
		return nil
	}
	path = localPath(path)
	if addressed.MatchString(path) {
		return fmt.Errorf("%s is an address: fetch it in a FromFunc of your own", path)
	}
	if e.ID == "" {
		// The same wherever the folder lies.
		e.ID = readable(path)
	}
	e.Picture = FromFile(beside(folder, path))
	return nil
}

// listColumns are the names of the columns that hold what.
type listColumns struct{ picture, label, id string }

// In the order in which they are preferred.
var (
	pictureColumns = []string{
		"image", "img", "picture", "photo", "image_path", "img_path", "filepath", "file_path",
		"path", "file_name", "filename", "file", "image_url", "img_url", "url", "embedding",
		"embeddings", "features"}
	labelColumns = []string{"label", "labels", "class", "class_name", "category", "target"}
	idColumns    = []string{"id", "example_id", "image_id"}
)

// columnsAmong finds the columns by their names, in any case; an error where
// that would be a guess.
func columnsAmong(names []string) (listColumns, error) {
	byName := map[string]string{}
	for _, name := range names {
		if lower := strings.ToLower(name); byName[lower] == "" {
			byName[lower] = name
		}
	}
	all := func(wanted []string) []string {
		var found []string
		for _, one := range wanted {
			if name, there := byName[one]; there {
				found = append(found, name)
			}
		}
		return found
	}
	listed := strings.Join(names, ", ")
	if listed == "" {
		listed = "none"
	}
	pictures, labels, ids := all(pictureColumns), all(labelColumns), all(idColumns)
	if len(pictures) == 0 {
		return listColumns{}, fmt.Errorf("of its columns (%s) none is a picture's: %s",
			listed, strings.Join(pictureColumns, ", "))
	}
	if len(labels) != 1 {
		which := strings.Join(labels, " and ")
		if which == "" {
			which = "none"
		}
		return listColumns{}, fmt.Errorf("of its columns (%s) %s may be the class's: name one of them 'label'",
			listed, which)
	}
	columns := listColumns{picture: pictures[0], label: labels[0]}
	if len(ids) > 0 {
		columns.id = ids[0]
	}
	for _, wanted := range []string{columns.picture, columns.label, columns.id} {
		same := func(name string) bool { return strings.ToLower(name) == strings.ToLower(wanted) }
		first := slices.IndexFunc(names, same)
		if wanted != "" && slices.ContainsFunc(names[first+1:], same) {
			return listColumns{}, fmt.Errorf("of its columns (%s) several are called %q: leave all but one out",
				listed, wanted)
		}
	}
	return columns, nil
}
