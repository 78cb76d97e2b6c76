package tipserve

import (
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// pictureFiles are the files under a folder, hidden ones left out, each folder
// sorted by name. What is no picture, the server says. It holds one folder's
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
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
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

func folderError(folder string, err error) *Error {
	return invalid(ReasonFolderUnreadable, "cannot read the folder: %w", err).with("path", folder)
}

// classFolder is a folder of one class's pictures.
type classFolder struct {
	path        string
	displayName string
}

// classFolders are the folders in a folder, sorted by name. A class's display
// name is its folder's, '_' read as a space.
func classFolders(root string) ([]classFolder, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, folderError(root, err)
	}
	var folders []classFolder
	for _, entry := range entries {
		path := filepath.Join(root, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if status, err := os.Stat(path); err != nil || !status.IsDir() {
			continue
		}
		folders = append(folders, classFolder{path, plainName(entry.Name())})
	}
	if len(folders) == 0 {
		return nil, invalid(ReasonFolderWithoutClasses,
			"%s has no folders in it: expected one folder a class", root).with("path", root)
	}
	return folders, nil
}

// plainName is a name as folders write it: '_' is ' '.
func plainName(name string) string { return strings.ReplaceAll(name, "_", " ") }

// relativeID is a file's id: its path in the folder, with slashes.
func relativeID(root, path string) string {
	relative, err := filepath.Rel(root, path)
	if err != nil {
		relative = path
	}
	return filepath.ToSlash(relative)
}
