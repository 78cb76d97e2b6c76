package tipserve

import (
	"bytes"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// pictureLimits are the server's. What is over them is not decoded here, and a
// small file that claims to be a huge picture costs nothing.
type pictureLimits struct{ pixels, side int64 }

// limitsOf are those that a server states, or its defaults.
func limitsOf(info *pb.ServerInfo) pictureLimits {
	limits := pictureLimits{pixels: 64_000_000, side: 32_768}
	if stated := info.GetLimits()["max_pixels"]; stated > 0 {
		limits.pixels = stated
	}
	if stated := info.GetLimits()["max_side"]; stated > 0 {
		limits.side = stated
	}
	return limits
}

// fileBytes is what a file within the limits can take at most, or nearly: eight
// bytes a pixel, RGBA of 16 bits that no compression helps.
func (l pictureLimits) fileBytes() int64 { return 8 * min(l.pixels, 1<<40) }

func (l pictureLimits) allow(size image.Config) bool {
	width, height := int64(size.Width), int64(size.Height)
	return width >= 1 && height >= 1 && max(width, height) <= l.side && width*height <= l.pixels
}

// A format decodes files of one kind to what the server would make of them:
// Pillow's Image.open(…).convert("RGB"), without transparency. What it would
// make otherwise, or not at all, or turn upright, is nil.
type format func(file []byte, limits pictureLimits) scanlines

// formatOf tells a file's format by its first bytes; nil: none of these.
func formatOf(file []byte) format {
	begins := func(with string) bool { return bytes.HasPrefix(file, []byte(with)) }
	switch {
	case begins("\xff\xd8\xff"):
		return decodeJPEG
	case begins("\x89PNG\r\n\x1a\n"):
		return decodePNG
	case begins("GIF87a"), begins("GIF89a"):
		return decodeGIF
	}
	return nil
}

// decode decodes a picture's file; nil if the server should do it.
func decode(file []byte, limits pictureLimits) scanlines {
	if one := formatOf(file); one != nil {
		return one(file, limits)
	}
	return nil
}

// header is what a file's header says, if it is within the limits.
func header(
	read func(io.Reader) (image.Config, error), file []byte, limits pictureLimits,
) (image.Config, bool) {
	config, err := read(bytes.NewReader(file))
	return config, err == nil && limits.allow(config)
}

// decodeJPEG takes grey and YCbCr. Of RGB and CMYK, which are rare, Go's decoder
// hands out what it has brought to full resolution in its own way.
func decodeJPEG(file []byte, limits pictureLimits) scanlines {
	config, ok := header(jpeg.DecodeConfig, file, limits)
	if !ok || !uprightJPEG(file) || !soundJPEG(file) || config.ColorModel == color.CMYKModel {
		return nil
	}
	decoded, err := jpeg.Decode(bytes.NewReader(file))
	if err != nil {
		return nil
	}
	switch picture := decoded.(type) {
	case *image.Gray:
		return rowsOf(picture)
	case *image.YCbCr:
		return newLibjpegRows(picture)
	}
	return nil
}

// decodePNG takes all but grey of 16 bits, which the server refuses.
func decodePNG(file []byte, limits pictureLimits) scanlines {
	const depthAt, kindAt, grey = 24, 25, 0 // in IHDR, the first chunk
	if _, ok := header(png.DecodeConfig, file, limits); !ok || !uprightPNG(file) {
		return nil
	}
	if file[depthAt] == 16 && file[kindAt] == grey {
		return nil
	}
	decoded, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		return nil
	}
	return rowsOf(decoded)
}

// decodeGIF takes those whose first frame covers the screen and has no
// transparent colour: of such a colour Go's decoder does not tell which it is.
func decodeGIF(file []byte, limits pictureLimits) scanlines {
	config, ok := header(gif.DecodeConfig, file, limits)
	if !ok {
		return nil
	}
	decoded, err := gif.Decode(bytes.NewReader(file))
	if err != nil {
		return nil
	}
	frame, ok := decoded.(*image.Paletted)
	if !ok || frame.Rect != image.Rect(0, 0, config.Width, config.Height) {
		return nil
	}
	for _, colour := range frame.Palette {
		if _, _, _, alpha := colour.RGBA(); alpha != 0xffff {
			return nil
		}
	}
	return rowsOf(frame)
}
