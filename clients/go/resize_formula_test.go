package tipserve_test

import (
	"math"
	"testing"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// formulas are the kernels' definitions; a server that states none has the first.
var formulas = map[string]func(x float64) float64{
	"": keys, "bicubic": keys,
	"bilinear": func(x float64) float64 { return math.Max(1-math.Abs(x), 0) },
}

func keys(x float64) float64 {
	switch x = math.Abs(x); {
	case x < 1:
		return 1.5*x*x*x - 2.5*x*x + 1
	case x < 2:
		return -0.5*x*x*x + 2.5*x*x - 4*x + 2
	}
	return 0
}

// resampled is Pillow's resampling by its definition, slowly: weights that sum to
// 1, rounded to 22 bits. The sums of these are exact in float64.
func resampled(rows [][][3]float64, to int, formula func(x float64) float64) [][][3]float64 {
	const unit = 1 << 22
	scale := float64(len(rows)) / float64(to)
	wide := math.Max(scale, 1)
	made := make([][][3]float64, to)
	weights := make([]float64, len(rows))
	for i := range made {
		made[i] = make([][3]float64, len(rows[0]))
		centre := (float64(i) + 0.5) * scale
		total := 0.0
		for k := range rows {
			weights[k] = formula((float64(k) + 0.5 - centre) / wide)
			total += weights[k]
		}
		for k, row := range rows {
			weight := math.Round(weights[k]/total*unit) / unit
			for x := range row {
				for c := range 3 {
					made[i][x][c] += weight * row[x][c]
				}
			}
		}
		for x := range made[i] {
			for c := range 3 {
				made[i][x][c] = math.Min(math.Max(math.Floor(made[i][x][c]+0.5), 0), 255)
			}
		}
	}
	return made
}

func turned(rows [][][3]float64) [][][3]float64 {
	made := make([][][3]float64, len(rows[0]))
	for x := range made {
		for _, row := range rows {
			made[x] = append(made[x], row[x])
		}
	}
	return made
}

// cropped is the centre of a picture as torchvision's CenterCrop takes it.
func cropped(rows [][][3]float64, side int) []byte {
	top := int(math.RoundToEven(float64(len(rows)-side) / 2))
	left := int(math.RoundToEven(float64(len(rows[0])-side) / 2))
	var pixels []byte
	for _, row := range rows[top : top+side] {
		for _, pixel := range row[left : left+side] {
			pixels = append(pixels, byte(pixel[0]), byte(pixel[1]), byte(pixel[2]))
		}
	}
	return pixels
}

// Fresh pictures of all shapes, against the formula; and what the server then
// cuts out is the centre of the whole picture.
func TestFreshPicturesAreResizedByTheFormula(t *testing.T) {
	rng := random(t)
	for run := range 90 {
		interpolation := []string{"", "bicubic", "bilinear"}[run%3]
		width, height := 1+rng.IntN(90), 1+rng.IntN(90)
		side := 1 + rng.IntN(50)
		crop := 1 + rng.IntN(side)
		data := make([]byte, width*height*3)
		rows := make([][][3]float64, height)
		for y := range rows {
			rows[y] = make([][3]float64, width)
			for x := range rows[y] {
				for c := range 3 {
					level := byte(rng.Uint32())
					data[(y*width+x)*3+c], rows[y][x][c] = level, float64(level)
				}
			}
		}
		toWidth, toHeight := side, side
		if width <= height {
			toHeight = side * height / width
		} else {
			toWidth = side * width / height
		}
		// Across first, as Pillow does it. An axis that keeps its length is not
		// changed by the formula either.
		formula := formulas[interpolation]
		across := turned(resampled(turned(rows), toWidth, formula))
		want := cropped(resampled(across, toHeight, formula), crop)
		r := resizingFor(t, tipserve.ResizeOnClient, &pb.BundleInfo{
			ImageSize: int32(crop), ResizeTo: int32(side), Interpolation: interpolation}, 1<<20)
		got := must(r.sent(t, tipserve.FromRGB(width, height, data)))(t).GetRawRgb()
		if got.GetWidth() != uint32(side) || got.GetHeight() != uint32(side) {
			t.Fatalf("%d × %d to %d: %d × %d", width, height, side, got.GetWidth(), got.GetHeight())
		}
		offset := int(math.RoundToEven(float64(side-crop) / 2))
		var centre []byte
		for y := offset; y < offset+crop; y++ {
			centre = append(centre, got.GetData()[(y*side+offset)*3:][:crop*3]...)
		}
		if largest, mean := difference(t, centre, want); largest > 0 {
			t.Errorf("%q, %d × %d to %d, of that %d: levels %d apart, %.4f on average",
				interpolation, width, height, side, crop, largest, mean)
		}
	}
}
