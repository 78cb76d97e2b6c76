package tipserve

import (
	"fmt"
	"image"
)

// Resizing says who resizes pictures, and how they are sent then.
type Resizing int

const (
	// ResizeOnServer sends pictures as they are.
	ResizeOnServer Resizing = iota
	// ResizeOnClient sends the pixels that the server would make, as raw RGB:
	// three bytes each, 150 kB for a side of 224.
	ResizeOnClient
	// ResizeOnClientJPEG sends those pixels as JPEG of quality 95 with full
	// colour: a tenth to two fifths of the bytes, and not quite the same pixels.
	ResizeOnClientJPEG
)

// jpegQuality is that of [ResizeOnClientJPEG].
const jpegQuality = 95

// WithResize says who decodes, resizes and crops pictures. Default:
// [ResizeOnServer]. Doing it here pays where pictures are large and the network
// is slow, or where the server's cores are busy with decoding.
//
// Pictures are resized as the server does it, by the sizes and the interpolation
// that it states, in the goroutine that reads them. JPEG, PNG and GIF files are;
// all others, and what cannot be decoded here as the server would decode it, are
// sent as they are. So are all pictures for caches with augmented views, which
// the server cuts out of whole pictures, and those for a server that states an
// interpolation other than bicubic and bilinear, or that only it can resize for.
//
// Raw, PNG and GIF files and decoded pictures get the server's own answers, and
// JPEG files nearly: Go's decoder rounds otherwise. docs/clients.md has figures,
// for [ResizeOnClientJPEG] too.
func WithResize(how Resizing) Option {
	return func(c *config) error {
		if how < ResizeOnServer || how > ResizeOnClientJPEG {
			return fmt.Errorf("tipserve: %d is no way of resizing", how)
		}
		c.resize = how
		return nil
	}
}

// square is what the server's preprocessing makes of a picture before it cuts
// the centre out.
type square struct {
	// side: the shorter side is resized to it, and so much is kept of the other.
	side int
	// crop is the side of the centre that the server then takes of the square.
	crop int
	// by is how it is resized.
	by kernel
	// squash: both sides are resized to side, whatever the aspect ratio.
	squash bool
}

// resizeRules says of the rules that a server may state whether they squash. One
// that states none is from before there were others than the shortest side.
var resizeRules = map[string]bool{"": false, "shortest-side": false, "squash": true}

// of is CLIP's own preprocessing up to the pixels, as the server computes it:
// the shorter side to s.side, the longer to int(side · long / short), then the
// centre, its offset rounded half to even. It is side · side · 3 bytes. The
// square lies so that its own centre of crop × crop pixels is that of the whole
// picture. The server, given it, resizes it to what it is, and only crops.
func (s square) of(picture scanlines) []byte {
	width, height := picture.size()
	longer := func(long, short int) int {
		return int(float64(int64(s.side)*int64(long)) / float64(short))
	}
	toWidth, toHeight := s.side, s.side
	if s.squash {
		return resample(picture, s.side, s.side, window{0, 0, s.side, s.side}, s.by)
	}
	if width <= height {
		toHeight = longer(height, width)
	} else {
		toWidth = longer(width, height)
	}
	// Rounding twice is not rounding once: what the server will take off is left
	// out of the one rounding that there should be.
	offset := func(to int) int { return halfToEven(to-s.crop) - halfToEven(s.side-s.crop) }
	return resample(picture, toWidth, toHeight,
		window{offset(toWidth), offset(toHeight), s.side, s.side}, s.by)
}

// halfToEven is round(n / 2), for n of 0 or more.
func halfToEven(n int) int { return n/2 + n%2*(n/2%2) }

// opaque is pixels as Go's encoders take them.
func opaque(width, height int, pixels []byte) *image.RGBA {
	made := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		copy(made.Pix[4*i:], pixels[3*i:3*i+3])
		made.Pix[4*i+3] = 255
	}
	return made
}
