package tipserve_test

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// sent is what the wire gets of a picture.
func sent(t *testing.T, limit int64, picture tipserve.Picture) (*pb.Input, error) {
	t.Helper()
	var got *pb.Input
	f := start(t, &fake{
		limits: map[string]int64{"max_message_bytes": limit},
		unary: map[string]func(any) (any, error){"Classify": func(request any) (any, error) {
			got = request.(*pb.ClassifyRequest).GetInput()
			return &pb.ClassifyResponse{}, nil
		}},
	})
	_, err := dial(t, f.address).ClassifyOne(within(t), "pets", picture)
	return got, err
}

// painted is a picture of random colours, some of it transparent.
func painted(t testing.TB, width, height int) *image.NRGBA {
	rng := random(t)
	made := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range made.Pix {
		made.Pix[i] = byte(rng.Uint32())
	}
	return made
}

func TestDecodedPicturesAreSentAsTheirPixels(t *testing.T) {
	source := painted(t, 23, 17)
	var want []byte
	for y := range 17 {
		for x := range 23 {
			c := source.NRGBAAt(x, y)
			want = append(want, c.R, c.G, c.B)
		}
	}
	// A part of a larger picture, so that rows do not follow each other.
	framed := image.NewNRGBA(image.Rect(-3, -5, 40, 30))
	for y := range 17 {
		for x := range 23 {
			framed.SetNRGBA(x, y, source.NRGBAAt(x, y))
		}
	}
	// The general way, through At.
	other := struct{ image.Image }{source}
	for name, picture := range map[string]image.Image{
		"NRGBA": source, "a part": framed.SubImage(image.Rect(0, 0, 23, 17)), "another type": other,
	} {
		got, err := sent(t, 1<<20, tipserve.FromImage(picture))
		if err != nil {
			t.Fatal(name, err)
		}
		raw := got.GetRawRgb()
		if raw.GetWidth() != 23 || raw.GetHeight() != 17 || !bytes.Equal(raw.GetData(), want) {
			t.Errorf("%s: pixels differ", name)
		}
	}
	grey := image.NewGray(image.Rect(2, 3, 4, 4))
	grey.SetGray(2, 3, color.Gray{7})
	grey.SetGray(3, 3, color.Gray{9})
	got, err := sent(t, 1<<20, tipserve.FromImage(grey))
	if err != nil || !bytes.Equal(got.GetRawRgb().GetData(), []byte{7, 7, 7, 9, 9, 9}) {
		t.Error(got, err)
	}
}

func TestDecodedPicturesOverTheLimitAreSentAsPNG(t *testing.T) {
	plain := image.NewNRGBA(image.Rect(0, 0, 300, 200)) // black and transparent
	plain.SetNRGBA(7, 8, color.NRGBA{1, 2, 3, 0})
	got, err := sent(t, 50_000, tipserve.FromImage(plain))
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(got.GetEncodedImage()))
	if err != nil || decoded.Bounds() != plain.Bounds() {
		t.Fatal(err)
	}
	if r, g, b, a := decoded.At(7, 8).RGBA(); r>>8 != 1 || g>>8 != 2 || b>>8 != 3 || a != 0xffff {
		t.Error("the colour under the transparency is lost")
	}
	if _, err := sent(t, 50_000, tipserve.FromImage(painted(t, 300, 200))); err == nil {
		t.Error("a picture over the limit, as PNG too, is sent")
	}
	if _, err := sent(t, 50_000, tipserve.FromImage(image.NewGray(image.Rectangle{}))); err == nil {
		t.Error("a picture without pixels is sent")
	}
}

func TestFilesAndBytesAreSentAsTheyAre(t *testing.T) {
	var file bytes.Buffer
	if err := jpeg.Encode(&file, painted(t, 40, 30), nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.jpg")
	if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, picture := range map[string]tipserve.Picture{
		"file": tipserve.FromFile(path), "bytes": tipserve.FromBytes(file.Bytes()),
		"func": tipserve.FromFunc(func() ([]byte, error) { return file.Bytes(), nil }),
	} {
		got, err := sent(t, 1<<20, picture)
		if err != nil || !bytes.Equal(got.GetEncodedImage(), file.Bytes()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := sent(t, 1<<20, tipserve.FromFile(t.TempDir())); err == nil {
		t.Error("a folder is sent as a picture")
	}
}
