package tipserve

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// What operating systems, archivers and file servers leave in folders, in lower
// case.
var (
	systemFiles = []string{
		"thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
		"icon\r", "zbthumbnail.info", "pspbrwse.jbf", "sync.ffs_db"}
	systemFolders = []string{
		"__macosx", "network trash folder", "temporary items",
		"$recycle.bin", "system volume information",
		"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
		"lost+found", "__pycache__"}
	// textFiles lie beside pictures: labels.txt, annotations.xml, an editor's
	// notes (xmp, aae), notebooks, checksums, shortcuts.
	textFiles = []string{
		".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".md",
		".html", ".htm", ".log", ".ini", ".xmp", ".aae", ".ipynb", ".py", ".md5", ".sha256", ".url",
		".lnk", ".webloc"}
)

// counts says whether a file or folder of this name is looked at in a folder.
// The command line and the Python client have the same rule.
func counts(name string, isFolder bool) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	plain := strings.ToLower(name)
	if isFolder {
		return !slices.Contains(systemFolders, plain)
	}
	return !slices.Contains(systemFiles, plain) && !slices.Contains(textFiles, filepath.Ext(plain))
}

// readable is a name as text: bytes that are not UTF-8 are written as \xNN, so
// that every file has an id, and two files have two.
func readable(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	var text strings.Builder
	for len(name) > 0 {
		r, size := utf8.DecodeRuneInString(name)
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&text, "\\x%02x", name[0])
		} else {
			text.WriteString(name[:size])
		}
		name = name[size:]
	}
	return text.String()
}

// plainName is a name as names are compared: folders write '_' for ' ', and
// macOS writes é as two characters.
func plainName(name string) string { return strings.ReplaceAll(norm.NFC.String(name), "_", " ") }

// checkClassName refuses a name that does something to a terminal or a table: a
// line break, an escape sequence, a turn of the writing's direction.
func checkClassName(name string) error {
	for _, r := range name {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' || unicode.Is(unicode.Bidi_Control, r) {
			return invalid(ReasonClassName,
				"the class name %q holds the control character %U: rename its folder, or give another name",
				name, r).with("name", name)
		}
	}
	return nil
}

// partNames are the names of the parts of a data set: for training, validation
// and testing.
var partNames = [][]string{
	{"train", "training"},
	{"val", "valid", "validation", "dev", "eval", "evaluation"},
	{"test", "testing", "holdout"},
}

// afterPart may follow a part's name: a word for pictures, and a year.
var afterPart = regexp.MustCompile(`^([_ -]?(set|images|data|split))?([_ -]?[0-9]{4})?$`)

// partOf says which part a name is that of, by position; -1 for none. "val2017"
// and "train_images" are, too.
func partOf(name string) int {
	plain := strings.ToLower(name)
	return slices.IndexFunc(partNames, func(names []string) bool {
		return slices.ContainsFunc(names, func(one string) bool {
			rest, found := strings.CutPrefix(plain, one)
			return found && afterPart.MatchString(rest)
		})
	})
}

// refuseSplits refuses a folder of the parts of a data set: its folders all hold
// folders, and either all are named as parts, or one is for training and one for
// validation or testing. A class may be called "test": then there are pictures in
// its folder, and no folders. The command line and the Python client have the
// same rule.
func refuseSplits(root string, folders []string) error {
	parts, others := [3]string{}, false
	for _, name := range folders {
		if part := partOf(name); part < 0 {
			others = true
		} else if parts[part] == "" {
			parts[part] = filepath.Join(root, name)
		}
	}
	if others && (parts[0] == "" || parts[1] == "" && parts[2] == "") {
		return nil
	}
	for _, name := range folders {
		if inside, err := subfolders(filepath.Join(root, name)); err != nil || len(inside) == 0 {
			return nil
		}
	}
	if parts[0] == "" && parts[2] == "" {
		parts[2] = parts[1]
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s holds parts of a data set, not classes", readable(root))
	if train := parts[0]; train != "" {
		fmt.Fprintf(&text, "; make the cache of one: CreateCache(ctx, spec, Folder(%q)", train)
		if parts[1] != "" {
			fmt.Fprintf(&text, ", Validation(Folder(%q))", parts[1])
		}
		text.WriteString(")")
	}
	if parts[2] != "" {
		fmt.Fprintf(&text, "; and see how well it does: Evaluate(ctx, Folder(%q), cache)", parts[2])
	}
	return invalid(ReasonFolderOfSplits, "%s", text.String()).with("path", readable(root))
}
