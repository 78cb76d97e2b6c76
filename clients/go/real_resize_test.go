package tipserve_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// resizedTo is the demo's bundle, resized by another rule to another side (it
// takes 260) with another interpolation.
func resizedTo(t *testing.T, side int, interpolation, rule string) string {
	t.Helper()
	demo := filepath.Join(repository, "bundles", "demo")
	text, err := os.ReadFile(filepath.Join(demo, "bundle.toml"))
	if err != nil {
		t.Skipf("no bundle at %s (`make bundle` makes it)", demo)
	}
	folder := t.TempDir()
	for _, entry := range must(os.ReadDir(demo))(t) {
		from := must(filepath.Abs(filepath.Join(demo, entry.Name())))(t)
		if err := os.Symlink(from, filepath.Join(folder, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(folder, "bundle.toml")); err != nil {
		t.Fatal(err)
	}
	changed := regexp.MustCompile(`(?m)^resize_to = .*$`).ReplaceAll(text, fmt.Appendf(nil, "resize_to = %d", side))
	changed = regexp.MustCompile(`(?m)^interpolation = .*$`).
		ReplaceAll(changed, fmt.Appendf(nil, "interpolation = %q", interpolation))
	changed = regexp.MustCompile(`(?m)^resize = .*$`).ReplaceAll(changed, fmt.Appendf(nil, "resize = %q", rule))
	if err := os.WriteFile(filepath.Join(folder, "bundle.toml"), changed, 0o644); err != nil {
		t.Fatal(err)
	}
	return folder
}

// freshFiles are pictures like photographs: PNG and GIF by what they are, and
// JPEG, of several shapes.
func freshFiles(t *testing.T, rng *rand.Rand) map[string][]byte {
	t.Helper()
	sides := func(low, high int) (int, int) { return low + rng.IntN(high-low), low + rng.IntN(high-low) }
	files := map[string][]byte{}
	asPNG := func(name string, picture image.Image) {
		var file bytes.Buffer
		if err := png.Encode(&file, picture); err != nil {
			t.Fatal(err)
		}
		files[name+".png"] = file.Bytes()
	}
	asJPEG := func(name string, picture image.Image, quality int) []byte {
		var file bytes.Buffer
		if err := jpeg.Encode(&file, picture, &jpeg.Options{Quality: quality}); err != nil {
			t.Fatal(err)
		}
		files[name+".jpg"] = file.Bytes()
		return file.Bytes()
	}
	short, more := sides(300, 500)
	for _, one := range []struct {
		name          string
		width, height int
	}{
		{"landscape", short + more, short}, {"portrait", short, short + more/2},
		{"small", 60 + rng.IntN(90), 50 + rng.IntN(90)}, {"banner", 700 + rng.IntN(200), 90 + rng.IntN(40)},
	} {
		picture := photo(rng, one.width, one.height)
		asPNG(one.name, picture)
		asJPEG(one.name, picture, 75+rng.IntN(21))
	}
	width, height := sides(280, 420)
	picture := photo(rng, width, height)
	grey := image.NewGray(picture.Rect)
	deep := image.NewNRGBA64(picture.Rect)
	clear := image.NewNRGBA(picture.Rect)
	for y := range height {
		for x := range width {
			c := picture.NRGBAAt(x, y)
			grey.Set(x, y, c)
			low := uint16(rng.IntN(256))
			deep.SetNRGBA64(x, y, color.NRGBA64{uint16(c.R)<<8 | low, uint16(c.G)<<8 | low, uint16(c.B)<<8 | low, 0xffff})
			clear.SetNRGBA(x, y, color.NRGBA{c.R, c.G, c.B, byte(rng.IntN(256))})
		}
	}
	asPNG("grey", grey)
	asPNG("16-bit", deep)
	asPNG("transparent", clear)
	asJPEG("grey", grey, 90)
	// An APP1 segment with orientation 6: to be turned by a quarter, which
	// neither side does.
	plain := asJPEG("turned", picture, 92)
	exif := "\xff\xe1\x00\x22Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
	files["turned.jpg"] = append(append(append([]byte{}, plain[:2]...), exif...), plain[2:]...)
	return files
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		ab += float64(a[i]) * float64(b[i])
		aa += float64(a[i]) * float64(a[i])
		bb += float64(b[i]) * float64(b[i])
	}
	return ab / math.Sqrt(aa*bb)
}

// Pictures resized here get the answers of those that the server resizes.
func TestRealServerOfResizedPictures(t *testing.T) {
	for _, stated := range []struct {
		side          int
		interpolation string
		rule          string
	}{
		{260, "bicubic", "shortest-side"}, {263, "bicubic", "shortest-side"},
		{260, "bilinear", "shortest-side"}, {263, "bilinear", "squash"},
	} {
		t.Run(fmt.Sprint(stated.rule, " ", stated.side, " ", stated.interpolation), func(t *testing.T) {
			server := serve(t, resizedTo(t, stated.side, stated.interpolation, stated.rule), "--dtype", "float32")
			ctx, rng := within(t), random(t)
			client := dial(t, server.address)
			bundle := must(client.ServerInfo(ctx))(t).GetBundle()
			if int(bundle.GetResizeTo()) != stated.side || bundle.GetInterpolation() != stated.interpolation {
				t.Fatal(bundle)
			}
			files := freshFiles(t, rng)
			var examples []tipserve.Example
			for i := range 8 {
				var file bytes.Buffer
				if err := png.Encode(&file, photo(rng, 300, 280)); err != nil {
					t.Fatal(err)
				}
				examples = append(examples, tipserve.Example{
					Class: string(rune('a' + i%4)), ID: fmt.Sprint(i), Picture: tipserve.FromBytes(file.Bytes())})
			}
			spec := &pb.CacheSpec{CacheId: "c", WithoutText: true, Method: pb.Method_METHOD_TIP_ADAPTER,
				Alpha: proto.Float64(1), Beta: proto.Float64(5.5)}
			must(client.CreateCache(ctx, spec, tipserve.Examples(examples...)))(t)
			answers := map[tipserve.Resizing]map[string]*pb.Classification{}
			for _, how := range []tipserve.Resizing{
				tipserve.ResizeOnServer, tipserve.ResizeOnClient, tipserve.ResizeOnClientJPEG,
			} {
				answers[how] = map[string]*pb.Classification{}
				var items []tipserve.Item
				for name, file := range files {
					items = append(items, tipserve.Item{ID: name, Picture: tipserve.FromBytes(file)})
				}
				results, err := collect(dial(t, server.address, tipserve.WithResize(how)).Classify(
					ctx, "c", tipserve.Items(items...), tipserve.Logits(), tipserve.Embedding()))
				if err != nil {
					t.Fatal(err)
				}
				for _, result := range results {
					if result.Err != nil {
						t.Fatal(result.ID, result.Err)
					}
					answers[how][result.ID] = result.Classification
				}
			}
			for name := range files {
				by := func(how tipserve.Resizing) ([]float32, []float32) {
					answer := answers[how][name]
					return answer.GetLogits(), answer.GetEmbedding().GetValues()
				}
				wantLogits, want := by(tipserve.ResizeOnServer)
				rawLogits, raw := by(tipserve.ResizeOnClient)
				_, compressed := by(tipserve.ResizeOnClientJPEG)
				apart := 0.0
				for i := range wantLogits {
					apart = math.Max(apart, math.Abs(float64(rawLogits[i]-wantLogits[i])))
				}
				t.Logf("%-16s logits %.2e apart, cosine raw 1 - %.2e, JPEG 1 - %.2e",
					name, apart, 1-cosine(raw, want), 1-cosine(compressed, want))
				// The same pixels; what is left is the order of sums in batches
				// of other sizes. Of a JPEG, Go's inverse DCT.
				if strings.HasSuffix(name, ".png") && apart > 1e-4 {
					t.Errorf("%s: raw logits %.2e apart", name, apart)
				}
				// JPEG of quality 95 alone moves this network's embeddings so
				// far, with any encoder; a ViT's far less.
				if cosine(raw, want) < 0.999 || cosine(compressed, want) < 0.85 {
					t.Errorf("%s: cosine raw %.6f, JPEG %.6f", name, cosine(raw, want), cosine(compressed, want))
				}
			}
		})
	}
}

// The server decodes the client's JPEG as Go does.
func TestRealServerReadsTheClientsJPEG(t *testing.T) {
	server := serve(t, filepath.Join(repository, "bundles", "demo"), "--dtype", "float32")
	ctx, rng := within(t), random(t)
	client := dial(t, server.address)
	bundle := must(client.ServerInfo(ctx))(t).GetBundle()
	maker := resizingFor(t, tipserve.ResizeOnClientJPEG, proto.CloneOf(bundle), 4<<20)
	var pictures []tipserve.Picture
	for range 4 {
		file := must(maker.sent(t, tipserve.FromImage(photo(rng, 400, 300))))(t).GetEncodedImage()
		decoded := must(jpeg.Decode(bytes.NewReader(file)))(t)
		pictures = append(pictures, tipserve.FromBytes(file), tipserve.FromImage(decoded))
	}
	embedded := must(client.EmbedPictures(ctx, pictures))(t)
	for i := 0; i < len(embedded); i += 2 {
		file, pixels := embedded[i], embedded[i+1]
		if file.Err != nil || pixels.Err != nil || cosine(file.Values, pixels.Values) < 0.999 {
			t.Error(file.Err, pixels.Err, cosine(file.Values, pixels.Values))
		}
	}
}

// What the client cannot decode gets the server's own answer, or its error.
func TestRealServerDecidesAboutWhatTheClientCannotDecode(t *testing.T) {
	server := serve(t, filepath.Join(repository, "bundles", "demo"))
	rng := random(t)
	var file bytes.Buffer
	if err := jpeg.Encode(&file, photo(rng, 200, 180), nil); err != nil {
		t.Fatal(err)
	}
	deep := image.NewGray16(image.Rect(0, 0, 30, 20))
	var grey bytes.Buffer
	if err := png.Encode(&grey, deep); err != nil {
		t.Fatal(err)
	}
	portable := append([]byte("P6 40 30 255\n"), pixelsOf(photo(rng, 40, 30))...)
	pictures := []tipserve.Picture{
		tipserve.FromBytes(portable), tipserve.FromBytes([]byte("no picture")),
		tipserve.FromBytes(file.Bytes()[:file.Len()/2]), tipserve.FromBytes(grey.Bytes()),
		tipserve.FromBytes(file.Bytes()),
	}
	ctx := within(t)
	here := must(dial(t, server.address, tipserve.WithResize(tipserve.ResizeOnClient)).EmbedPictures(ctx, pictures))(t)
	there := must(dial(t, server.address).EmbedPictures(ctx, pictures))(t)
	for i, reason := range []string{
		"", "PICTURE_UNRECOGNISED", "PICTURE_TRUNCATED", "PICTURE_UNSUPPORTED", "",
	} {
		for _, one := range []tipserve.Embedded{here[i], there[i]} {
			if failure, _ := one.Err.(*tipserve.Error); reason != "" && (failure == nil || failure.Reason != reason) ||
				reason == "" && one.Err != nil {
				t.Errorf("picture %d: %v, expected %q", i, one.Err, reason)
			}
		}
	}
}
