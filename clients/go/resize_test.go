package tipserve_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// resizer is a client of a server that states how it resizes, and sends pictures
// by its way of resizing.
type resizer struct {
	client *tipserve.Client
	got    *pb.Input
}

func resizing(t testing.TB, how tipserve.Resizing, side, crop int32, limit int64) *resizer {
	t.Helper()
	return resizingFor(t, how, &pb.BundleInfo{ImageSize: crop, ResizeTo: side}, limit)
}

func resizingFor(t testing.TB, how tipserve.Resizing, bundle *pb.BundleInfo, limit int64) *resizer {
	t.Helper()
	r := &resizer{}
	bundle.Name, bundle.Width = "fake", 4
	f := start(t, &fake{
		limits: map[string]int64{"max_message_bytes": limit, "max_pixels": 1 << 20},
		bundle: bundle,
		unary: map[string]func(any) (any, error){"Classify": func(request any) (any, error) {
			r.got = request.(*pb.ClassifyRequest).GetInput()
			return &pb.ClassifyResponse{}, nil
		}},
	})
	r.client = dial(t, f.address, tipserve.WithResize(how))
	return r
}

// sent is what the wire gets of a picture.
func (r *resizer) sent(t testing.TB, picture tipserve.Picture) (*pb.Input, error) {
	t.Helper()
	r.got = nil
	_, err := r.client.ClassifyOne(within(t), "pets", picture)
	return r.got, err
}

// pixelsOf are a picture's, its transparency ignored.
func pixelsOf(picture image.Image) []byte {
	var pixels []byte
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := color.NRGBAModel.Convert(picture.At(x, y)).(color.NRGBA)
			pixels = append(pixels, c.R, c.G, c.B)
		}
	}
	return pixels
}

// difference is the largest and the mean one of two pictures' levels.
func difference(t testing.TB, a, b []byte) (largest int, mean float64) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%d and %d levels", len(a), len(b))
	}
	for i := range a {
		apart := int(a[i]) - int(b[i])
		largest = max(largest, apart, -apart)
		mean += math.Abs(float64(apart)) / float64(len(a))
	}
	return largest, mean
}

// What Pillow made of these pictures (testdata/make.py) is what is sent: to the
// byte, but for the inverse DCT of Go's JPEG decoder.
func TestPicturesAreResizedAsPillowResizesThem(t *testing.T) {
	archive := must(zip.OpenReader(filepath.Join("testdata", "resize.zip")))(t)
	defer archive.Close()
	content := func(name string) []byte { return must(fs.ReadFile(archive, name))(t) }
	var cases []struct {
		File          string
		Side, Crop    int32
		Interpolation string
		Sent          *string
	}
	if err := json.Unmarshal(content("cases.json"), &cases); err != nil {
		t.Fatal(err)
	}
	for _, one := range cases {
		t.Run(fmt.Sprintf("%s/%d/%s", one.File, one.Side, one.Interpolation), func(t *testing.T) {
			file := content(one.File)
			path := filepath.Join(t.TempDir(), "picture")
			if err := os.WriteFile(path, file, 0o644); err != nil {
				t.Fatal(err)
			}
			r := resizingFor(t, tipserve.ResizeOnClient, &pb.BundleInfo{
				ImageSize: one.Crop, ResizeTo: one.Side, Interpolation: one.Interpolation}, 1<<20)
			for name, picture := range map[string]tipserve.Picture{
				"a file": tipserve.FromFile(path), "bytes": tipserve.FromBytes(file),
				"a function": tipserve.FromFunc(func() ([]byte, error) { return file, nil }),
			} {
				got := must(r.sent(t, picture))(t)
				// What is turned is its version's matter, and a progressive file the server's.
				if one.Sent == nil || one.File == "exif.jpg" || one.File == "progressive.jpg" {
					if !bytes.Equal(got.GetEncodedImage(), file) {
						t.Errorf("%s is not sent as it is", name)
					}
					continue
				}
				raw := got.GetRawRgb()
				if raw.GetWidth() != uint32(one.Side) || raw.GetHeight() != uint32(one.Side) {
					t.Fatalf("%s is sent as %d × %d", name, raw.GetWidth(), raw.GetHeight())
				}
				want := pixelsOf(must(png.Decode(bytes.NewReader(content(*one.Sent))))(t))
				largest, mean := difference(t, raw.GetData(), want)
				exact := filepath.Ext(one.File) != ".jpg" || strings.HasPrefix(one.File, "blocks")
				if exact && largest > 0 || largest > 4 || mean > 0.2 {
					t.Errorf("%s: levels %d apart, %.4f on average", name, largest, mean)
				} else if largest > 0 && name == "bytes" {
					t.Logf("levels %d apart at most, %.4f on average", largest, mean)
				}
			}
		})
	}
}

// Whatever is damaged, something is sent: pixels, or the file as it is.
func TestDamagedPicturesAreSentAllTheSame(t *testing.T) {
	archive := must(zip.OpenReader(filepath.Join("testdata", "resize.zip")))(t)
	defer archive.Close()
	rng := random(t)
	r := resizing(t, tipserve.ResizeOnClient, 24, 19, 1<<20)
	for _, entry := range archive.File {
		if strings.Count(entry.Name, ".") != 1 || entry.Name == "cases.json" {
			continue
		}
		whole := must(fs.ReadFile(archive, entry.Name))(t)
		for range 40 {
			file := bytes.Clone(whole)
			for range 1 + rng.IntN(6) {
				file[rng.IntN(len(file))] = byte(rng.Uint32())
			}
			if rng.IntN(4) == 0 {
				file = file[:1+rng.IntN(len(file)-1)]
			}
			got, err := r.sent(t, tipserve.FromBytes(file))
			raw := got.GetRawRgb()
			if err != nil || !bytes.Equal(got.GetEncodedImage(), file) && (raw.GetWidth() != 24 || raw.GetHeight() != 24) {
				t.Fatalf("%s, damaged to %x: %v", entry.Name, file, err)
			}
		}
	}
}

// A server may be newer than this client.
func TestForAnUnknownInterpolationPicturesAreSentAsTheyAre(t *testing.T) {
	picture := painted(t, 30, 21)
	var file bytes.Buffer
	if err := png.Encode(&file, picture); err != nil {
		t.Fatal(err)
	}
	for _, how := range []tipserve.Resizing{tipserve.ResizeOnClient, tipserve.ResizeOnClientJPEG} {
		r := resizingFor(t, how, &pb.BundleInfo{ImageSize: 9, ResizeTo: 16, Interpolation: "lanczos"}, 1<<20)
		if got := must(r.sent(t, tipserve.FromBytes(file.Bytes())))(t); !bytes.Equal(got.GetEncodedImage(), file.Bytes()) {
			t.Error("the file is not sent as it is")
		}
		if got := must(r.sent(t, tipserve.FromImage(picture)))(t).GetRawRgb(); got.GetWidth() != 30 || got.GetHeight() != 21 {
			t.Errorf("sent as %d × %d", got.GetWidth(), got.GetHeight())
		}
	}
}

func TestEveryKindOfDecodedPictureIsResized(t *testing.T) {
	source := painted(t, 30, 21)
	opaque := image.NewRGBA(source.Rect)
	deep, deepOpaque := image.NewNRGBA64(source.Rect), image.NewRGBA64(source.Rect)
	for y := range 21 {
		for x := range 30 {
			c := source.NRGBAAt(x, y)
			opaque.SetRGBA(x, y, color.RGBA{c.R, c.G, c.B, 255})
			// Low bytes that count for nothing, under a faint transparency.
			deep.SetNRGBA64(x, y, color.NRGBA64{uint16(c.R)<<8 | 0xff, uint16(c.G) << 8, uint16(c.B)<<8 | 0x80, 3})
			deepOpaque.SetRGBA64(x, y, color.RGBA64{uint16(c.R)<<8 | 0xff, uint16(c.G) << 8, uint16(c.B) << 8, 0xffff})
		}
	}
	r := resizing(t, tipserve.ResizeOnClient, 16, 9, 1<<20)
	want := must(r.sent(t, tipserve.FromImage(source)))(t).GetRawRgb()
	if want.GetWidth() != 16 || want.GetHeight() != 16 {
		t.Fatal(want)
	}
	for name, picture := range map[string]image.Image{
		"RGBA": opaque, "NRGBA64": deep, "RGBA64": deepOpaque, "another type": struct{ image.Image }{opaque},
	} {
		got := must(r.sent(t, tipserve.FromImage(picture)))(t).GetRawRgb()
		if !bytes.Equal(got.GetData(), want.GetData()) {
			t.Errorf("%s: other pixels", name)
		}
	}
	got := must(r.sent(t, tipserve.FromEmbedding([]float32{1, 2})))(t)
	if len(got.GetEmbedding().GetValues()) != 2 {
		t.Error("an embedding became", got)
	}
	for _, nothing := range []tipserve.Picture{
		tipserve.FromBytes(nil), tipserve.FromImage(nil), tipserve.FromRGB(0, 4, nil), tipserve.FromRGB(2, 2, []byte{1}),
		tipserve.FromImage(image.NewGray(image.Rectangle{})), tipserve.FromFile(t.TempDir()), nil,
	} {
		if _, err := r.sent(t, nothing); !errors.Is(err, tipserve.ErrInvalidArgument) {
			t.Error(nothing, err)
		}
	}
	if _, err := tipserve.New("localhost:1", tipserve.WithResize(7)); err == nil {
		t.Error("a way of resizing that there is not")
	}
}

func TestLargeFilesAreResizedBeforeTheyAreMeasured(t *testing.T) {
	var file bytes.Buffer
	if err := png.Encode(&file, painted(t, 300, 200)); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write := func(name string, data []byte) tipserve.Picture {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return tipserve.FromFile(path)
	}
	large := write("large.png", file.Bytes())
	r := resizing(t, tipserve.ResizeOnClient, 20, 20, 50_000)
	for _, picture := range []tipserve.Picture{large, tipserve.FromBytes(file.Bytes())} {
		if got := must(r.sent(t, picture))(t).GetRawRgb(); got.GetWidth() != 20 {
			t.Error(got)
		}
	}
	// What cannot be made smaller is too large still.
	var failure *tipserve.Error
	for name, data := range map[string][]byte{
		"text": bytes.Repeat([]byte("no picture "), 9000), "half": file.Bytes()[:file.Len()/2],
	} {
		if _, err := r.sent(t, write(name, data)); !errors.As(err, &failure) || failure.Reason != tipserve.ReasonPictureTooLarge {
			t.Error(name, err)
		}
	}
	// Pixels of a square that does not fit go as PNG.
	r = resizing(t, tipserve.ResizeOnClient, 150, 150, 50_000)
	plain := image.NewGray(image.Rect(0, 0, 200, 150))
	got := must(r.sent(t, tipserve.FromImage(plain)))(t)
	if decoded, err := png.Decode(bytes.NewReader(got.GetEncodedImage())); err != nil || decoded.Bounds().Dx() != 150 {
		t.Error(err)
	}
	// A small file of what does not fit even so goes as it is.
	r = resizing(t, tipserve.ResizeOnClient, 150, 150, 20_000)
	file.Reset()
	if err := png.Encode(&file, painted(t, 50, 40)); err != nil {
		t.Fatal(err)
	}
	if got := must(r.sent(t, tipserve.FromBytes(file.Bytes())))(t); !bytes.Equal(got.GetEncodedImage(), file.Bytes()) {
		t.Error("a picture whose square does not fit is not sent as its file")
	}
	// A picture over the server's limits is the server's to refuse.
	r = resizing(t, tipserve.ResizeOnClient, 20, 20, 1<<20)
	file.Reset()
	if err := png.Encode(&file, image.NewGray(image.Rect(0, 0, 1<<11, 1<<10))); err != nil {
		t.Fatal(err)
	}
	if got := must(r.sent(t, tipserve.FromBytes(file.Bytes())))(t); !bytes.Equal(got.GetEncodedImage(), file.Bytes()) {
		t.Error("a picture of too many pixels is decoded")
	}
}

// With full colour: where the colours' differences are halved, levels are 3 to 4
// apart on average.
func TestResizedPicturesCanGoAsJPEG(t *testing.T) {
	rng := random(t)
	for range 5 {
		picture, side := photo(rng, 300, 200), int32(50+rng.IntN(60))
		var sent [2]*pb.Input
		for i, how := range []tipserve.Resizing{tipserve.ResizeOnClient, tipserve.ResizeOnClientJPEG} {
			sent[i] = must(resizing(t, how, side, side, 1<<20).sent(t, tipserve.FromImage(picture)))(t)
		}
		raw, file := sent[0].GetRawRgb().GetData(), sent[1].GetEncodedImage()
		decoded := must(jpeg.Decode(bytes.NewReader(file)))(t)
		if largest, mean := difference(t, pixelsOf(decoded), raw); mean > 2.2 || largest > 40 {
			t.Errorf("side %d: levels %d apart, %.2f on average", side, largest, mean)
		}
		if len(file) > len(raw)/2 {
			t.Errorf("%d bytes as JPEG, %d raw", len(file), len(raw))
		}
	}
}

// photo is like a photograph: smooth light, coloured shapes, some grain.
func photo(rng *rand.Rand, width, height int) *image.NRGBA {
	var coarse [4][5][3]float64
	for y := range coarse {
		for x := range coarse[y] {
			for c := range 3 {
				coarse[y][x][c] = rng.Float64() * 255
			}
		}
	}
	shapes := make([]struct {
		x, y, radius float64
		ink          [3]float64
	}, 4+rng.IntN(8))
	for i := range shapes {
		s := &shapes[i]
		s.x, s.y = rng.Float64()*float64(width), rng.Float64()*float64(height)
		s.radius = (0.05 + 0.25*rng.Float64()) * float64(min(width, height))
		s.ink = [3]float64{rng.Float64() * 255, rng.Float64() * 255, rng.Float64() * 255}
	}
	made := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			u, v := float64(x)/float64(width)*4, float64(y)/float64(height)*3
			i, j := int(u), int(v)
			u, v = u-float64(i), v-float64(j)
			// Edges are a pixel or two wide, as a lens makes them.
			var pixel [3]float64
			for c := range 3 {
				pixel[c] = (1-v)*((1-u)*coarse[j][i][c]+u*coarse[j][i+1][c]) +
					v*((1-u)*coarse[j+1][i][c]+u*coarse[j+1][i+1][c])
				for _, s := range shapes {
					inside := s.radius - math.Hypot(float64(x)-s.x, float64(y)-s.y)
					cover := math.Min(math.Max(inside/2+0.5, 0), 1)
					pixel[c] += cover * (s.ink[c] - pixel[c])
				}
				pixel[c] += rng.NormFloat64() * 4
			}
			level := func(c int) byte { return byte(math.Min(math.Max(pixel[c], 0), 255)) }
			made.SetNRGBA(x, y, color.NRGBA{level(0), level(1), level(2), 255})
		}
	}
	return made
}

// Squashed pictures keep every edge; what only the server can do is left to it.
func TestPicturesAreResizedByTheRuleThatIsStated(t *testing.T) {
	picture := image.NewNRGBA(image.Rect(0, 0, 90, 30))
	for x := range 90 {
		for y := range 30 {
			picture.Set(x, y, color.NRGBA{R: byte(x * 255 / 89), G: byte(y * 255 / 29), A: 255})
		}
	}
	var file bytes.Buffer
	if err := png.Encode(&file, picture); err != nil {
		t.Fatal(err)
	}
	for rule, leftmost := range map[string]int{"": 85, "shortest-side": 85, "squash": 4} {
		bundle := &pb.BundleInfo{ImageSize: 30, ResizeTo: 30, Interpolation: "bilinear", Resize: rule}
		r := resizingFor(t, tipserve.ResizeOnClient, bundle, 1<<20)
		raw := must(r.sent(t, tipserve.FromBytes(file.Bytes())))(t).GetRawRgb()
		if raw.GetWidth() != 30 || raw.GetHeight() != 30 {
			t.Fatalf("%q: sent as %d × %d", rule, raw.GetWidth(), raw.GetHeight())
		}
		if red := int(raw.GetData()[0]); red < leftmost-4 || red > leftmost+4 {
			t.Errorf("%q: the first pixel's red is %d, not about %d", rule, red, leftmost)
		}
	}
	bundle := &pb.BundleInfo{ImageSize: 30, ResizeTo: 30, Interpolation: "bicubic", Resize: "server"}
	r := resizingFor(t, tipserve.ResizeOnClient, bundle, 1<<20)
	if got := must(r.sent(t, tipserve.FromBytes(file.Bytes())))(t); !bytes.Equal(got.GetEncodedImage(), file.Bytes()) {
		t.Error("what only the server can resize is not sent as it is")
	}
}
