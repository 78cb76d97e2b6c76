package tipserve

import (
	"image"
	"image/color"
)

// rgb is all of a picture's pixels, height · width · 3 bytes.
func rgb(picture scanlines) []byte {
	width, height := picture.size()
	data := make([]byte, height*width*3)
	for y := range height {
		picture.row(y, data[y*width*3:][:width*3])
	}
	return data
}

// rowsOf is a decoded picture by rows: transparency is dropped, not blended,
// and of 16 bits the high byte is kept, as the server does both.
func rowsOf(picture image.Image) scanlines {
	if paletted, ok := picture.(*image.Paletted); ok {
		return newPalettedRows(paletted)
	}
	return imageRows{picture}
}

// imageRows is a picture of any kind. Where a kind has no case of its own, it
// is read through At, which is slow.
type imageRows struct{ image.Image }

func (p imageRows) size() (width, height int) { return p.Bounds().Dx(), p.Bounds().Dy() }

func (p imageRows) row(y int, into []byte) {
	left := p.Bounds().Min.X
	y += p.Bounds().Min.Y
	width := p.Bounds().Dx()
	switch picture := p.Image.(type) {
	case *image.NRGBA:
		row := picture.Pix[picture.PixOffset(left, y):]
		for x := range width {
			copy(into[3*x:3*x+3], row[4*x:4*x+3])
		}
	case *image.RGBA:
		row := picture.Pix[picture.PixOffset(left, y):]
		for x := range width {
			if row[4*x+3] == 255 {
				copy(into[3*x:3*x+3], row[4*x:4*x+3])
			} else {
				put(into[3*x:], picture.RGBAAt(left+x, y))
			}
		}
	case *image.NRGBA64:
		row := picture.Pix[picture.PixOffset(left, y):]
		for x := range width {
			into[3*x], into[3*x+1], into[3*x+2] = row[8*x], row[8*x+2], row[8*x+4]
		}
	case *image.RGBA64:
		row := picture.Pix[picture.PixOffset(left, y):]
		for x := range width {
			if row[8*x+6] == 255 && row[8*x+7] == 255 {
				into[3*x], into[3*x+1], into[3*x+2] = row[8*x], row[8*x+2], row[8*x+4]
			} else {
				put(into[3*x:], picture.RGBA64At(left+x, y))
			}
		}
	case *image.Gray:
		for x, level := range picture.Pix[picture.PixOffset(left, y):][:width] {
			into[3*x], into[3*x+1], into[3*x+2] = level, level, level
		}
	case *image.YCbCr:
		for x := range width {
			c := picture.YCbCrAt(left+x, y)
			into[3*x], into[3*x+1], into[3*x+2] = color.YCbCrToRGB(c.Y, c.Cb, c.Cr)
		}
	case *image.CMYK:
		for x := range width {
			c := picture.CMYKAt(left+x, y)
			into[3*x], into[3*x+1], into[3*x+2] = color.CMYKToRGB(c.C, c.M, c.Y, c.K)
		}
	default:
		for x := range width {
			put(into[3*x:], picture.At(left+x, y))
		}
	}
}

// put writes a colour without its transparency.
func put(into []byte, c color.Color) {
	plain := color.NRGBAModel.Convert(c).(color.NRGBA)
	into[0], into[1], into[2] = plain.R, plain.G, plain.B
}

// palettedRows looks its colours up.
type palettedRows struct {
	*image.Paletted
	colours [256][3]byte
}

func newPalettedRows(picture *image.Paletted) *palettedRows {
	made := &palettedRows{Paletted: picture}
	for i, c := range picture.Palette[:min(len(picture.Palette), 256)] {
		put(made.colours[i][:], c)
	}
	return made
}

func (p *palettedRows) size() (width, height int) { return p.Rect.Dx(), p.Rect.Dy() }

func (p *palettedRows) row(y int, into []byte) {
	indices := p.Pix[p.PixOffset(p.Rect.Min.X, p.Rect.Min.Y+y):][:p.Rect.Dx()]
	for x, index := range indices {
		copy(into[3*x:3*x+3], p.colours[index][:])
	}
}

func (p rgbPicture) size() (width, height int) { return p.width, p.height }

func (p rgbPicture) row(y int, into []byte) { copy(into, p.data[y*p.width*3:]) }
