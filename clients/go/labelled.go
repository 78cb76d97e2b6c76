package tipserve

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Example is a picture or embedding with its class.
type Example struct {
	// Class is the class's display name. If it is empty, ClassIndex counts.
	Class string
	// ClassIndex is the class's index, for classes that share a name.
	ClassIndex int
	// Labels are the display names of its classes in a version with MultiLabel:
	// any number, none included; Class and ClassIndex do not count then.
	Labels []string
	// Picture is what shows the class.
	Picture Picture
	// ID is unique in the cache. Default: the file's path, else the position.
	ID string
	// Validation examples choose numbers; they never become keys.
	Validation bool
	// Unknown examples are of none of the classes: they sharpen what is
	// rejected, and never become keys. Their class does not count.
	Unknown bool
	// Unlabelled examples have no label: AUTO learns from them where that helps.
	// Nothing is kept of them but their features.
	Unlabelled bool

	numbered bool    // its id is its position
	indices  []int32 // of Labels
}

// Source is where labelled pictures come from: [Folder], [ListFile], [Examples]
// or [ExampleStream].
type Source interface {
	// load reads what the classes are, and no picture yet. Given classes are
	// those to match; without any they come from the source.
	load(given []*pb.ClassSpec) (*labelled, error)
	// names are the classes that the source names, sorted; none where it would
	// have to be used up to tell.
	names() ([]string, error)
}

// labelled are examples with the classes that their indices point into.
type labelled struct {
	classes []*pb.ClassSpec
	// examples have ClassIndex and ID set.
	examples iter.Seq2[Example, error]
	// repeatable: examples can be gone through a second time.
	repeatable bool
}

// Folder is a folder with one folder a class, sorted by name; the class is
// called as its folder, '_' read as a space. All files under it count, except
// hidden ones, texts, and what systems leave behind (Thumbs.db, __MACOSX); those
// that are no pictures are reported, not passed over. An example's id is its path
// in the folder. A folder of train, val and test is refused.
func Folder(path string) Source { return folderSource(path) }

// Examples are the given ones. Where no classes are given, they are those that
// the examples name, sorted.
func Examples(examples ...Example) Source { return sliceSource(examples) }

// ExampleStream are as many examples as the iterator yields, read as they are
// sent. The classes must be given. The iterator is gone through once, so a call
// that breaks half-way is not repeated. An error that it yields ends the call.
func ExampleStream(examples iter.Seq2[Example, error]) Source { return streamSource(examples) }

type folderSource string

func (s folderSource) load(given []*pb.ClassSpec) (*labelled, error) {
	root := string(s)
	folders, err := classFolders(root)
	if err != nil {
		return nil, err
	}
	indices := make([]int, len(folders))
	if given == nil {
		// By position: "a_b" and "a b" are two classes of one display name.
		for i, folder := range folders {
			indices[i] = i
			given = append(given, &pb.ClassSpec{DisplayName: folder.displayName})
		}
	} else if sameNames(folders, given) {
		// The same list: names that occur twice do no harm.
		for i := range folders {
			indices[i] = i
		}
	} else {
		find := newLookup(given)
		for i, folder := range folders {
			if indices[i], err = find.byName(folder.displayName); err != nil {
				return nil, err
			}
		}
	}
	return &labelled{
		classes:    given,
		repeatable: true,
		examples: func(yield func(Example, error) bool) {
			for i, folder := range folders {
				for path, err := range pictureFiles(folder.path) {
					if err != nil {
						yield(Example{}, err)
						return
					}
					example := Example{
						ClassIndex: indices[i], Picture: FromFile(path), ID: relativeID(root, path),
					}
					if !yield(example, nil) {
						return
					}
				}
			}
		},
	}, nil
}

func (s folderSource) names() ([]string, error) {
	folders, err := classFolders(string(s))
	var names []string
	for _, folder := range folders {
		names = append(names, folder.displayName)
	}
	return names, err
}

func sameNames(folders []classFolder, given []*pb.ClassSpec) bool {
	return slices.EqualFunc(folders, given, func(folder classFolder, class *pb.ClassSpec) bool {
		return folder.displayName == plainName(class.GetDisplayName())
	})
}

type sliceSource []Example

func (s sliceSource) load(given []*pb.ClassSpec) (*labelled, error) {
	if given == nil {
		multiLabel := slices.ContainsFunc(s, func(one Example) bool { return len(one.Labels) > 0 })
		for i, example := range s {
			if example.Class == "" && !example.Unknown && !example.Unlabelled && !multiLabel {
				return nil, invalid(ReasonClassUnknown,
					"example %d names its class by index, so the classes must be given: "+
						"their number is never guessed from the largest index", i)
			}
		}
		names, err := s.names()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			given = append(given, &pb.ClassSpec{DisplayName: name})
		}
	}
	all := func(yield func(Example, error) bool) {
		for _, example := range s {
			if !yield(example, nil) {
				return
			}
		}
	}
	return &labelled{classes: given, examples: indexed(all, newLookup(given)), repeatable: true}, nil
}

func (s sliceSource) names() ([]string, error) {
	names := map[string]bool{}
	for _, example := range s {
		if example.Class != "" {
			names[example.Class] = true
		}
		for _, label := range example.Labels {
			names[label] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

type streamSource iter.Seq2[Example, error]

func (s streamSource) load(given []*pb.ClassSpec) (*labelled, error) {
	if given == nil {
		return nil, invalid("FIELD_MISSING", "a stream of examples needs its classes given")
	}
	if s == nil {
		return nil, errors.New("tipserve: the stream of examples is nil")
	}
	return &labelled{
		classes:  given,
		examples: indexed(iter.Seq2[Example, error](s), newLookup(given)),
	}, nil
}

func (streamSource) names() ([]string, error) { return nil, nil }

// indexed looks up the classes and fills in ids as the examples are read.
func indexed(examples iter.Seq2[Example, error], find *lookup) iter.Seq2[Example, error] {
	return func(yield func(Example, error) bool) {
		position := 0
		for example, err := range examples {
			if err == nil && len(example.Labels) > 0 {
				example.indices, err = find.indices(example.Labels)
			} else if err == nil && (example.Unknown || example.Unlabelled) {
				example.ClassIndex = 0
			} else if err == nil {
				example.ClassIndex, err = find.index(example)
			}
			if err != nil {
				yield(Example{}, err)
				return
			}
			if example.ID == "" {
				example.ID = defaultID(example.Picture, position)
				example.numbered = example.Picture == nil || example.Picture.name() == ""
			}
			position++
			if !yield(example, nil) {
				return
			}
		}
	}
}

// defaultID is the path if there is one, else the position.
func defaultID(picture Picture, position int) string {
	if picture != nil {
		if name := picture.name(); name != "" {
			return readable(name)
		}
	}
	return strconv.Itoa(position)
}

// lookup goes from display names ('_' and ' ' being the same) to indices.
type lookup struct {
	names []string
	exact map[string][]int
	plain map[string][]int
}

func newLookup(classes []*pb.ClassSpec) *lookup {
	find := &lookup{exact: map[string][]int{}, plain: map[string][]int{}}
	for i, class := range classes {
		name := class.GetDisplayName()
		find.names = append(find.names, name)
		find.exact[name] = append(find.exact[name], i)
		find.plain[plainName(name)] = append(find.plain[plainName(name)], i)
	}
	return find
}

func (l *lookup) index(example Example) (int, error) {
	if example.Class != "" {
		return l.byName(example.Class)
	}
	if example.ClassIndex < 0 || example.ClassIndex >= len(l.names) {
		return 0, invalid(ReasonClassUnknown, "class index %d is not one of the %d classes",
			example.ClassIndex, len(l.names))
	}
	return example.ClassIndex, nil
}

// indices are those of classes of these names.
func (l *lookup) indices(names []string) ([]int32, error) {
	found := make([]int32, 0, len(names))
	for _, name := range names {
		index, err := l.byName(name)
		if err != nil {
			return nil, err
		}
		found = append(found, int32(index))
	}
	return found, nil
}

// has says whether a class, or more than one, is called so.
func (l *lookup) has(name string) bool { return l.plain[plainName(name)] != nil }

func (l *lookup) byName(name string) (int, error) {
	found := l.exact[name]
	if found == nil {
		found = l.plain[plainName(name)]
	}
	switch len(found) {
	case 0:
		return 0, invalid(ReasonClassUnknown, "no class is called %q; there are: %s", name, l.known())
	case 1:
		return found[0], nil
	}
	return 0, invalid(ReasonClassUnknown, "more than one class is called %q: give its index", name)
}

func (l *lookup) known() string {
	if len(l.names) <= 10 {
		return strings.Join(l.names, ", ")
	}
	return fmt.Sprintf("%s, ... %d in all", strings.Join(l.names[:10], ", "), len(l.names))
}

// chooseShots keeps at most shots training examples of each class, in their
// order: those whose SHA-256 of "SEED/ID" comes first. That is the draw of
// `tipserve create --shots`, which depends on nothing but the seed and the ids.
func chooseShots(from *labelled, shots int, seed uint64) (*labelled, error) {
	if shots < 1 {
		return nil, fmt.Errorf("tipserve: the number of shots is %d, must be at least 1", shots)
	}
	type ranked struct {
		position int
		digest   [sha256.Size]byte
	}
	var all []Example
	ofClass := map[int][]ranked{}
	kept := map[int]bool{}
	for example, err := range from.examples {
		if err != nil {
			return nil, err
		}
		position := len(all)
		all = append(all, example)
		if example.Validation || example.Unknown || example.Unlabelled {
			kept[position] = true
			continue
		}
		digest := sha256.Sum256(fmt.Appendf(nil, "%d/%s", seed, example.ID))
		ofClass[example.ClassIndex] = append(ofClass[example.ClassIndex], ranked{position, digest})
	}
	for _, candidates := range ofClass {
		slices.SortStableFunc(candidates, func(a, b ranked) int {
			return slices.Compare(a.digest[:], b.digest[:])
		})
		for _, one := range candidates[:min(shots, len(candidates))] {
			kept[one.position] = true
		}
	}
	var chosen []Example
	for position, example := range all {
		if kept[position] {
			chosen = append(chosen, example)
		}
	}
	return &labelled{
		classes:    from.classes,
		repeatable: true,
		examples: func(yield func(Example, error) bool) {
			for _, example := range chosen {
				if !yield(example, nil) {
					return
				}
			}
		},
	}, nil
}

// addedTo puts a version's number before ids that are positions: those begin at
// 0 in every call, and ids are unique in a version.
func addedTo(version int64, from *labelled) *labelled {
	renamed := *from
	renamed.examples = func(yield func(Example, error) bool) {
		for example, err := range from.examples {
			if example.numbered {
				example.ID = fmt.Sprintf("%d+%s", version, example.ID)
			}
			if !yield(example, err) {
				return
			}
		}
	}
	return &renamed
}

// ofNoClass marks examples, and keeps their ids apart from training's.
func ofNoClass(from *labelled) *labelled {
	marked := *from
	marked.examples = func(yield func(Example, error) bool) {
		for example, err := range from.examples {
			example.Unknown = true
			example.ID = "unknown/" + example.ID
			if !yield(example, err) {
				return
			}
		}
	}
	return &marked
}

// withoutLabel marks examples, and keeps their ids apart from training's.
func withoutLabel(from *labelled) *labelled {
	marked := *from
	marked.examples = func(yield func(Example, error) bool) {
		for example, err := range from.examples {
			example.Unlabelled = true
			example.ID = "unlabelled/" + example.ID
			if !yield(example, err) {
				return
			}
		}
	}
	return &marked
}

// ofOneClass refuses examples with lists of labels: a version without MultiLabel
// would take one of none for an example of the first class.
func ofOneClass(from *labelled) *labelled {
	checked := *from
	checked.examples = func(yield func(Example, error) bool) {
		for example, err := range from.examples {
			if err == nil && example.Labels != nil {
				example, err = Example{}, invalid("FIELD_INVALID", "the examples have lists of labels: "+
					"MultiLabel makes a version of independent labels; otherwise each example has one "+
					"class, not a list")
			}
			if !yield(example, err) || err != nil {
				return
			}
		}
	}
	return &checked
}

// forValidation marks examples, and keeps their ids apart from training's.
func forValidation(from *labelled) *labelled {
	marked := *from
	marked.examples = func(yield func(Example, error) bool) {
		for example, err := range from.examples {
			example.Validation = true
			example.ID = "validation/" + example.ID
			if !yield(example, err) {
				return
			}
		}
	}
	return &marked
}
