package tipserve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
)

// Markers of a JPEG's segments (ITU-T T.81, table B.1).
const (
	markerSOF0 = 0xc0 // the frame: size and components
	markerSOI  = 0xd8 // start of the picture
	markerEOI  = 0xd9 // end of the picture
	markerSOS  = 0xda // start of a scan
)

// fullColourJPEG is a JPEG of RGB pixels whose colour differences are not
// halved (4:4:4), as the Python client makes them. image/jpeg always halves
// them, which costs edges of equal brightness their place. So it encodes the
// three planes apart, each as a grey picture, and their scans become those of
// one picture: a sequential JPEG may have a scan for each component (T.81,
// B.2.3).
func fullColourJPEG(width, height int, pixels []byte, quality int) ([]byte, error) {
	planes := [3]*image.Gray{}
	for i := range planes {
		planes[i] = image.NewGray(image.Rect(0, 0, width, height))
	}
	for i := range width * height {
		pixel := pixels[3*i : 3*i+3]
		planes[0].Pix[i], planes[1].Pix[i], planes[2].Pix[i] = color.RGBToYCbCr(pixel[0], pixel[1], pixel[2])
	}
	made := []byte{0xff, markerSOI}
	for i, plane := range planes {
		var file bytes.Buffer
		if err := jpeg.Encode(&file, plane, &jpeg.Options{Quality: quality}); err != nil {
			return nil, fmt.Errorf("as JPEG: %w", err)
		}
		tables, scan, err := splitGrey(file.Bytes())
		if err != nil {
			return nil, err
		}
		if i == 0 {
			// Tables depend on the quality alone, so those of one plane do for all.
			made = append(made, tables...)
			made = append(made, 0xff, markerSOF0, 0, 17, 8)
			made = binary.BigEndian.AppendUint16(made, uint16(height))
			made = binary.BigEndian.AppendUint16(made, uint16(width))
			// Components 1, 2 and 3, which means Y, Cb and Cr: no side halved,
			// table 0.
			made = append(made, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0)
		}
		// One component, tables 0, all coefficients.
		made = append(made, 0xff, markerSOS, 0, 8, 1, byte(i+1), 0, 0, 63, 0)
		made = append(made, scan...)
	}
	return append(made, 0xff, markerEOI), nil
}

// splitGrey takes a grey JPEG of image/jpeg's apart: its segments of tables, and
// the data of its only scan.
func splitGrey(file []byte) (tables, scan []byte, err error) {
	for at := 2; at+4 <= len(file) && file[at] == 0xff; {
		marker, end := file[at+1], at+2+int(binary.BigEndian.Uint16(file[at+2:]))
		if end+2 > len(file) {
			break
		}
		switch marker {
		case markerSOF0:
		case markerSOS:
			return tables, file[end : len(file)-2], nil
		default:
			tables = append(tables, file[at:end]...)
		}
		at = end
	}
	return nil, nil, errors.New("image/jpeg made a file that is none")
}
