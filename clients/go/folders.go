package tipserve

import (
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// pictureFiles are the files under a folder that count, each folder sorted by
// name. What is no picture, the server says. It holds one folder's
// names at a time and follows links, but not in circles. An error ends it.
func pictureFiles(root string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { walk(root, nil, yield) }
}

// walk says whether to go on.
func walk(folder string, above []os.FileInfo, yield func(string, error) bool) bool {
	here, err := os.Stat(folder)
	if err != nil {
		return yield("", folderError(folder, err)) && false
	}
	for _, one := range above {
		if os.SameFile(one, here) {
			return true
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return yield("", folderError(folder, err)) && false
	}
	above = append(above[:len(above):len(above)], here)
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		mode := entry.Type()
		if mode&os.ModeSymlink != 0 {
			// A link that leads nowhere is a file that cannot be read.
			if target, err := os.Stat(path); err == nil {
				mode = target.Mode().Type()
			} else {
				mode = 0
			}
		}
		if !counts(entry.Name(), mode.IsDir()) || (mode.IsDir() && leadsUp(entry, folder)) {
			continue
		}
		goOn := true
		switch {
		case mode.IsDir():
			goOn = walk(path, above, yield)
		case mode.IsRegular():
			goOn = yield(path, nil)
		}
		if !goOn {
			return false
		}
	}
	return true
}

// leadsUp says whether an entry is a link to a folder that holds it, also one
// above where the walk began.
func leadsUp(entry os.DirEntry, folder string) bool {
	if entry.Type()&os.ModeSymlink == 0 {
		return false
	}
	target, err := filepath.EvalSymlinks(filepath.Join(folder, entry.Name()))
	if err != nil {
		return false
	}
	parent, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return false
	}
	// Of relative folders, links are relative too.
	for _, path := range []*string{&target, &parent} {
		if *path, err = filepath.Abs(*path); err != nil {
			return false
		}
	}
	below, err := filepath.Rel(target, parent)
	return err == nil && below != ".." && !strings.HasPrefix(below, ".."+string(filepath.Separator))
}

func folderError(folder string, err error) *Error {
	return invalid(ReasonFolderUnreadable, "cannot read the folder: %w", err).with("path", readable(folder))
}

// classFolder is a folder of one class's pictures.
type classFolder struct {
	path        string
	displayName string
}

// classFolders are the folders in a folder that count, sorted by name. A
// class's display name is its folder's, '_' read as a space.
func classFolders(root string) ([]classFolder, error) {
	folders, err := subfolders(root)
	if err != nil {
		return nil, err
	}
	if len(folders) == 0 {
		return nil, invalid(ReasonFolderWithoutClasses,
			"%s has no folders in it: expected one folder a class", readable(root)).with("path", readable(root))
	}
	if err := refuseSplits(root, folders); err != nil {
		return nil, err
	}
	classes := make([]classFolder, len(folders))
	for i, name := range folders {
		if err := checkClassName(readable(name)); err != nil {
			return nil, err
		}
		classes[i] = classFolder{filepath.Join(root, name), strings.ReplaceAll(readable(name), "_", " ")}
	}
	return classes, nil
}

// subfolders are the names of the folders in a folder that count, sorted.
func subfolders(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, folderError(root, err)
	}
	var names []string
	for _, entry := range entries {
		if !counts(entry.Name(), true) {
			continue
		}
		if status, err := os.Stat(filepath.Join(root, entry.Name())); err == nil && status.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// relativeID is a file's id: its path in the folder, with slashes.
func relativeID(root, path string) string {
	relative, err := filepath.Rel(root, path)
	if err != nil {
		relative = path
	}
	return readable(filepath.ToSlash(relative))
}
