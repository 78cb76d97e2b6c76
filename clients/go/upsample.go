package tipserve

import "image"

// libjpegRows is a JPEG's picture with its colour differences brought to full
// resolution and made RGB as libjpeg and libjpeg-turbo do it, and so Pillow and
// the server: "fancy upsampling" (jdsample.c), a triangle filter where a side
// is halved, and 16-bit fixed point for the colours (jdcolor.c). Go's own
// conversion repeats the differences, which moves the colours of every edge.
//
// What is left is the inverse DCT, that of image/jpeg: by it one level in twenty
// is beside libjpeg's.
type libjpegRows struct {
	*image.YCbCr
	// Of one row at full resolution, with room for the last column's double.
	cb, cr []byte
}

func newLibjpegRows(picture *image.YCbCr) *libjpegRows {
	width := picture.Rect.Dx()
	return &libjpegRows{picture, make([]byte, width+1), make([]byte, width+1)}
}

func (p *libjpegRows) size() (width, height int) { return p.Rect.Dx(), p.Rect.Dy() }

func (p *libjpegRows) row(y int, into []byte) {
	p.upsample(p.Cb, y, p.cb)
	p.upsample(p.Cr, y, p.cr)
	width := p.Rect.Dx()
	luma := p.Y[p.YOffset(p.Rect.Min.X, p.Rect.Min.Y+y):][:width]
	cb, cr := p.cb[:width], p.cr[:width]
	for x, level := range luma {
		// Of 1.402, 0.34414, 0.71414 and 1.772 the 2¹⁶-fold, rounded.
		l, u, v := int32(level), int32(cb[x])-128, int32(cr[x])-128
		into[3*x] = clamped(l + (91881*v+1<<15)>>16)
		into[3*x+1] = clamped(l + (-22554*u-46802*v+1<<15)>>16)
		into[3*x+2] = clamped(l + (116130*u+1<<15)>>16)
	}
}

func clamped(level int32) byte { return byte(min(max(level, 0), 255)) }

// upsample makes row y of a plane of differences.
func (p *libjpegRows) upsample(plane []byte, y int, out []byte) {
	width, height := p.size()
	// Columns and rows of the plane.
	columns, rows := width, height
	if p.halvesColumns() {
		columns = (width + 1) / 2
	}
	if p.halvesRows() {
		rows = (height + 1) / 2
	}
	line := func(row int) []byte {
		return plane[min(max(row, 0), rows-1)*p.CStride:][:columns]
	}
	// The nearest row, and the one on the other side of y.
	near, far := y/2, y/2-1+y%2*2
	// Too narrow for a filter, says libjpeg.
	narrow := columns <= 2
	switch ratio := p.SubsampleRatio; {
	case ratio == image.YCbCrSubsampleRatio422 && !narrow:
		triangleAcross(line(y), out)
	case ratio == image.YCbCrSubsampleRatio420 && !narrow:
		triangle(line(near), line(far), out)
	case ratio == image.YCbCrSubsampleRatio440:
		bias := 1 + y%2
		other := line(far)
		for x, level := range line(near) {
			out[x] = byte((3*int(level) + int(other[x]) + bias) >> 2)
		}
	default:
		// At full resolution, or so far from it that libjpeg repeats.
		for x := range width {
			out[x] = plane[p.COffset(p.Rect.Min.X+x, p.Rect.Min.Y+y)]
		}
	}
}

func (p *libjpegRows) halvesColumns() bool {
	return p.SubsampleRatio == image.YCbCrSubsampleRatio422 ||
		p.SubsampleRatio == image.YCbCrSubsampleRatio420
}

func (p *libjpegRows) halvesRows() bool {
	return p.SubsampleRatio == image.YCbCrSubsampleRatio440 ||
		p.SubsampleRatio == image.YCbCrSubsampleRatio420
}

// triangleAcross doubles a row of at least two columns: three quarters of the
// nearer level and a quarter of the other. The roundings alternate, so that
// none is favoured.
func triangleAcross(from, out []byte) {
	last := len(from) - 1
	for x, level := range from {
		this := 3 * int(level)
		before, after := from[max(x-1, 0)], from[min(x+1, last)]
		out[2*x] = byte((this + int(before) + 1) >> 2)
		out[2*x+1] = byte((this + int(after) + 2) >> 2)
	}
}

// triangle doubles a row down and across at once.
func triangle(near, far, out []byte) {
	last := len(near) - 1
	sum := func(x int) int { return 3*int(near[x]) + int(far[x]) }
	before, this := sum(0), sum(0)
	for x := range near {
		after := sum(min(x+1, last))
		out[2*x] = byte((3*this + before + 8) >> 4)
		out[2*x+1] = byte((3*this + after + 7) >> 4)
		before, this = this, after
	}
}
