package tipserve

import (
	"encoding/base64"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// fileURL begins an address that stands for a path of this machine.
var fileURL = regexp.MustCompile(`(?i)^file://(localhost)?/`)

// localPath is the path that "file:///pets/a%20cat.jpg" stands for; anything
// else as it is.
func localPath(text string) string {
	scheme := fileURL.FindString(text)
	if scheme == "" {
		return text
	}
	path := text[len(scheme)-1:]
	// Not everybody writes a space as %20.
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	if plain, err := url.PathUnescape(path); err == nil {
		return plain
	}
	return path
}

// dataURL begins an address that is a picture itself.
var dataURL = regexp.MustCompile(`(?i)^data:[^,]*,`)

// ofDataURL is the picture of "data:image/png;base64,iVBOR...", and whether the
// text is such an address.
func ofDataURL(text string) (data []byte, found bool, err error) {
	head := dataURL.FindString(text)
	if head == "" {
		return nil, false, nil
	}
	raw := text[len(head):]
	plain, wrong := url.PathUnescape(raw)
	if wrong != nil {
		plain = raw
	}
	if strings.HasSuffix(strings.ToLower(head), ";base64,") {
		plain = strings.Join(strings.Fields(plain), "")
		// Not everybody fills it up to four characters.
		data, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(plain, "="))
	} else {
		data = []byte(plain)
	}
	if err != nil {
		err = invalid(ReasonFileUnreadable, "cannot read a data: address: %w", err)
	}
	return data, true, err
}
