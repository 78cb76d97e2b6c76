package tipserve

import "math"

// Pillow's bicubic and bilinear resampling of 8-bit RGB, bit for bit, for a
// window of the output. CLIP was trained on it, and the server computes it.
//
// The algorithm is that of Pillow's Resample.c, up to Pillow 12: a horizontal
// and then a vertical convolution with Keys' cubic (a = -0.5) or the triangle,
// widened by the scale where the picture shrinks (antialiasing). The
// coefficients are computed in float64, normalised and rounded to 22-bit fixed
// point, and each pass is rounded to 8 bits. What others call so,
// golang.org/x/image/draw's CatmullRom and BiLinear too, keeps more digits
// between the passes and gives other pixels.

const (
	// precisionBits of a coefficient: 8 bits of level and 2 of overshoot fit
	// beside them.
	precisionBits = 32 - 8 - 2
	half          = 1 << (precisionBits - 1)
)

// kernel is what pixels are weighted with, by their distance from an output
// pixel's centre.
type kernel struct {
	// support is the distance from which on the weight is 0.
	support float64
	weight  func(distance float64) float64
}

var (
	bicubic  = kernel{2, cubic}
	bilinear = kernel{1, linear}
)

// kernels by the names that the server states.
var kernels = map[string]kernel{
	"bicubic":  bicubic,
	"bilinear": bilinear,
	// A server from before it stated any.
	"": bicubic,
}

// scanlines is a picture as rows of 8-bit RGB.
type scanlines interface {
	// size is columns and rows, both at least 1.
	size() (width, height int)
	// row writes row y into width·3 bytes. One goroutine calls it at a time.
	row(y int, into []byte)
}

// window is a part of a picture, in pixels.
type window struct{ x, y, width, height int }

// axis says which source pixels an output pixel is made of, and how much of each.
type axis struct {
	spans  []span
	taps   []int32 // stride for each output pixel
	stride int
}

// span is the first source pixel and the number of them.
type span struct{ first, count int }

// newAxis is output pixels first to first+count of an axis of input pixels that
// is resized to output.
func newAxis(input, output, first, count int, by kernel) axis {
	if input == output {
		return copied(first, count)
	}
	// Products that are added to something are converted: Go may else fuse the
	// two on some machines, which rounds once where Pillow rounds twice.
	scale := float64(input) / float64(output)
	widened := max(scale, 1)
	support := float64(by.support * widened)
	inverse := 1 / widened
	a := axis{stride: int(math.Ceil(support))*2 + 1}
	a.spans = make([]span, count)
	a.taps = make([]int32, count*a.stride)
	weights := make([]float64, a.stride)
	for i := range count {
		centre := float64((float64(first+i) + 0.5) * scale)
		low := max(int(centre-support+0.5), 0)
		high := min(int(centre+support+0.5), input)
		weights = weights[:high-low]
		total := 0.0
		for k := range weights {
			weights[k] = by.weight(float64((float64(low+k) - centre + 0.5) * inverse))
			total += weights[k]
		}
		for k, weight := range weights {
			if total != 0 {
				weight /= total
			}
			// Away from zero at one half.
			a.taps[i*a.stride+k] = int32(weight*(1<<precisionBits) + math.Copysign(0.5, weight))
		}
		a.spans[i] = span{low, len(weights)}
	}
	return a
}

// copied is an axis that keeps its length: Pillow leaves that pass out.
func copied(first, count int) axis {
	a := axis{spans: make([]span, count), taps: make([]int32, count), stride: 1}
	for i := range count {
		a.spans[i] = span{first + i, 1}
		a.taps[i] = 1 << precisionBits // 1: the pass changes nothing
	}
	return a
}

// cubic is Keys' kernel: R. G. Keys, "Cubic convolution interpolation for
// digital image processing", 1981, with a = -0.5.
func cubic(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	switch {
	case x < 1:
		return float64(float64(float64((a+2)*x)-(a+3))*x*x) + 1
	case x < 2:
		return (float64((float64((x-5)*x)+8)*x) - 4) * a
	}
	return 0
}

// linear is the triangle, the kernel of linear interpolation.
func linear(x float64) float64 { return max(1-math.Abs(x), 0) }

// covered is the source pixels that are read: the first, and one past the last.
func (a axis) covered() (low, high int) {
	low = math.MaxInt
	for _, s := range a.spans {
		low, high = min(low, s.first), max(high, s.first+s.count)
	}
	return low, high
}

func clip8(sum int32) byte { return byte(min(max(sum>>precisionBits, 0), 255)) }

// resample resizes a picture to width × height pixels and returns the window of
// that: window.height · window.width · 3 bytes, those of Pillow's
//
//	picture.resize((width, height), BICUBIC or BILINEAR).crop(window)
//
// The window must lie within the output.
func resample(picture scanlines, width, height int, part window, by kernel) []byte {
	fromWidth, fromHeight := picture.size()
	columns := newAxis(fromWidth, width, part.x, part.width, by)
	rows := newAxis(fromHeight, height, part.y, part.height, by)
	top, bottom := rows.covered()
	pitch := part.width * 3
	if fromHeight > 100*fromWidth && height < fromHeight {
		// Pillow's own exception for pictures that are mere strips: rows first.
		strip := make([]byte, (bottom-top)*fromWidth*3)
		for y := top; y < bottom; y++ {
			picture.row(y, strip[(y-top)*fromWidth*3:][:fromWidth*3])
		}
		fewer := rows.down(strip, top, fromWidth*3)
		out := make([]byte, part.height*pitch)
		for y := range part.height {
			columns.across(fewer[y*fromWidth*3:][:fromWidth*3], out[y*pitch:][:pitch])
		}
		return out
	}
	source := make([]byte, fromWidth*3)
	middle := make([]byte, (bottom-top)*pitch)
	for y := top; y < bottom; y++ {
		picture.row(y, source)
		columns.across(source, middle[(y-top)*pitch:][:pitch])
	}
	return rows.down(middle, top, pitch)
}

// down is the vertical pass over rows of pitch bytes, the first of which is row
// top of the picture.
func (a axis) down(middle []byte, top, pitch int) []byte {
	out := make([]byte, len(a.spans)*pitch)
	sums := make([]int32, pitch)
	for y, s := range a.spans {
		for i := range sums {
			sums[i] = half
		}
		for k, tap := range a.taps[y*a.stride:][:s.count] {
			for i, level := range middle[(s.first-top+k)*pitch:][:pitch] {
				sums[i] += int32(level) * tap
			}
		}
		for i, sum := range sums {
			out[y*pitch+i] = clip8(sum)
		}
	}
	return out
}

// across makes one row of the horizontal pass.
func (a axis) across(source, out []byte) {
	for i, s := range a.spans {
		pixels := source[3*s.first:]
		r, g, b := int32(half), int32(half), int32(half)
		for _, tap := range a.taps[i*a.stride:][:s.count] {
			pixel := pixels[:3]
			r += int32(pixel[0]) * tap
			g += int32(pixel[1]) * tap
			b += int32(pixel[2]) * tap
			pixels = pixels[3:]
		}
		out[3*i], out[3*i+1], out[3*i+2] = clip8(r), clip8(g), clip8(b)
	}
}
