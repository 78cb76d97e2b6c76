package tipserve

import (
	"fmt"
	"path/filepath"
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
		"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"}
	systemFolders = []string{
		"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
	// textFiles lie beside pictures: labels.txt, metadata.csv, annotations.xml.
	textFiles = []string{
		".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".md", ".html",
		".log", ".ini"}
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
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return invalid(ReasonClassName,
				"the class name %q holds the control character %U: rename its folder, or give another name",
				name, r).with("name", name)
		}
	}
	return nil
}

// The names of the parts of a data set.
var (
	trainingNames   = []string{"train", "training"}
	validationNames = []string{"val", "valid", "validation", "dev"}
	testNames       = []string{"test", "testing"}
)

// refuseSplits refuses a folder whose folders are the parts of a data set, each
// with folders in it. A class may be called "test": then there are pictures in
// its folder, and no folders.
func refuseSplits(root string, folders []string) error {
	parts := [3]string{}
	for _, name := range folders {
		plain := strings.ToLower(name)
		part := slices.IndexFunc([][]string{trainingNames, validationNames, testNames},
			func(names []string) bool { return slices.Contains(names, plain) })
		path := filepath.Join(root, name)
		if part < 0 {
			return nil
		}
		if inside, err := subfolders(path); err != nil || len(inside) == 0 {
			return nil
		}
		if parts[part] == "" {
			parts[part] = path
		}
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
