package tipserve

import (
	"bytes"
	"encoding/binary"
)

// Whether a picture is turned as its file says is for its version to say, which
// only the server knows. So what is decoded here is certain to be upright: its
// file names no orientation, or the one of pixels that lie as they are seen.

// orientationTag is EXIF's and TIFF's; xmpOrientation is what XMP calls it.
const (
	orientationTag = 274
	xmpOrientation = "tiff:Orientation"
)

// uprightJPEG tells whether no segment before the picture's data turns it.
func uprightJPEG(file []byte) bool {
	const markerAPP1 = 0xe1
	for at := 2; at+4 <= len(file); {
		if file[at] != 0xff {
			return false // not how a segment begins
		}
		marker := file[at+1]
		if marker == 0xff { // a fill byte
			at++
			continue
		}
		if marker == markerSOS {
			return true
		}
		end := at + 2 + int(binary.BigEndian.Uint16(file[at+2:]))
		if end > len(file) || end < at+4 {
			return false
		}
		if segment := file[at+4 : end]; marker == markerAPP1 && turns(segment) {
			return false
		}
		at = end
	}
	return false
}

// rawProfile begins the text chunk in which ImageMagick kept EXIF data before
// there was a chunk for it.
const rawProfile = "Raw profile type exif\x00"

// compressedXMP begins a text chunk that may hold an orientation.
const compressedXMP = "XML:com.adobe.xmp\x00\x01"

// uprightPNG tells whether no chunk turns the picture, nor asks for what this
// package does not know: a critical chunk, such as Apple's CgBI.
func uprightPNG(file []byte) bool {
	for at := 8; at+12 <= len(file); {
		length := int64(binary.BigEndian.Uint32(file[at:]))
		if length > int64(len(file)-at-12) {
			return false
		}
		kind, data := string(file[at+4:at+8]), file[at+8:at+8+int(length)]
		switch kind {
		case "eXIf":
			if exifOrientation(data) != 1 {
				return false
			}
		case "iTXt":
			if bytes.Contains(data, []byte(xmpOrientation)) || bytes.HasPrefix(data, []byte(compressedXMP)) {
				return false
			}
		case "acTL", "fcTL": // an animation
			return false
		case "tEXt", "zTXt":
			if bytes.HasPrefix(data, []byte(rawProfile)) {
				return false
			}
		case "IHDR":
			if at != 8 {
				return false // the first chunk, and the only one
			}
		case "PLTE", "IDAT":
		case "IEND":
			return true
		default:
			const ancillary = 0x20 // of a kind's first letter: it is a small one
			if kind[0]&ancillary == 0 {
				return false
			}
		}
		at += 12 + int(length)
	}
	return false
}

// turns tells whether an APP1 segment may turn the picture.
func turns(segment []byte) bool {
	if exif, ok := bytes.CutPrefix(segment, []byte("Exif\x00\x00")); ok {
		return exifOrientation(exif) != 1
	}
	return bytes.Contains(segment, []byte(xmpOrientation))
}

// exifOrientation is the orientation in EXIF data, 1 (upright) to 8; 1 where it
// names none, 0 where it cannot be read.
func exifOrientation(exif []byte) int {
	exif = bytes.TrimPrefix(exif, []byte("Exif\x00\x00"))
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(exif, []byte("II*\x00")):
		order = binary.LittleEndian
	case bytes.HasPrefix(exif, []byte("MM\x00*")):
		order = binary.BigEndian
	default:
		return 0
	}
	if len(exif) < 8 {
		return 0
	}
	first := int64(order.Uint32(exif[4:]))
	if first+2 > int64(len(exif)) {
		return 0
	}
	entries := exif[first:]
	count := int(order.Uint16(entries))
	entries = entries[2:]
	if len(entries) < 12*count {
		return 0
	}
	found := 0
	for ; count > 0; count-- {
		const short = 3
		entry := entries[:12]
		entries = entries[12:]
		if order.Uint16(entry) != orientationTag {
			continue
		}
		// Twice, or as another number than usual: the server says which it is.
		if order.Uint16(entry[2:]) != short || order.Uint32(entry[4:]) != 1 || found != 0 {
			return 0
		}
		found = int(order.Uint16(entry[8:]))
		if found == 0 {
			return 0
		}
	}
	return max(found, 1)
}
