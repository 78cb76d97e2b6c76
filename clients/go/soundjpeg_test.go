package tipserve

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"testing"
)

func noise(rng *rand.Rand, width, height int) image.Image {
	made := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			made.SetRGBA(x, y, color.RGBA{byte(x*7 + rng.IntN(40)), byte(y * 5), byte(rng.IntN(256)), 255})
		}
	}
	return made
}

func TestSoundJPEGs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		var file bytes.Buffer
		picture := noise(rng, 1+rng.IntN(70), 1+rng.IntN(70))
		if err := jpeg.Encode(&file, picture, &jpeg.Options{Quality: 1 + rng.IntN(100)}); err != nil {
			t.Fatal(err)
		}
		whole := file.Bytes()
		scan := bytes.LastIndex(whole, []byte{0xff, markerSOS})
		spliced := func(at int, more ...byte) []byte {
			return append(append(bytes.Clone(whole[:at]), more...), whole[at:]...)
		}
		if !soundJPEG(whole) || !uprightJPEG(whole) {
			t.Fatalf("not sound: %x", whole)
		}
		// After the end mark there may be anything.
		if !soundJPEG(append(bytes.Clone(whole), 1, 2, 3)) {
			t.Error("what follows the end mark counts")
		}
		end := len(whole) - 2
		for name, bad := range map[string][]byte{
			"without its end mark":            whole[:end],
			"data that goes on":               spliced(end, 0x12, 0x34),
			"bytes between segments":          spliced(scan, 7),
			"a restart that nobody announced": spliced(end, 0xff, markerRST0),
			"half":                            append(bytes.Clone(whole[:scan+14+(end-scan-14)/2]), 0xff, markerEOI),
			"nothing":                         nil,
		} {
			if soundJPEG(bad) {
				t.Errorf("%s: %x", name, bad)
			}
		}
		// Tables that are none: twelve codes of two bits.
		table := bytes.Index(whole, []byte{0xff, markerDHT})
		bad := bytes.Clone(whole)
		bad[table+6] = 12
		if soundJPEG(bad) {
			t.Errorf("a table of too many codes: %x", bad)
		}
		for range 100 {
			changed := bytes.Clone(whole)
			changed[rng.IntN(len(changed))] ^= byte(1 << rng.IntN(8))
			soundJPEG(changed[:rng.IntN(len(changed))]) // whatever it says, it says something
			uprightJPEG(changed)
		}
	}
}

func TestWhatTurnsAPictureIsFound(t *testing.T) {
	exif := func(order string, orientation ...byte) []byte {
		return append([]byte(order), orientation...)
	}
	little := "II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00"
	big := "MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01"
	for orientation := range byte(10) {
		if got := exifOrientation(exif(little, orientation, 0, 0, 0)); got != int(orientation) {
			t.Errorf("little endian %d: %d", orientation, got)
		}
		if got := exifOrientation(exif("Exif\x00\x00"+big, 0, orientation, 0, 0)); got != int(orientation) {
			t.Errorf("big endian %d: %d", orientation, got)
		}
	}
	for text, want := range map[string]int{
		"": 0, "II*\x00": 0, "II*\x00\xff\xff\xff\xff": 0, "JJ*\x00\x08\x00\x00\x00\x00\x00": 0,
		"II*\x00\x08\x00\x00\x00\x00\x00": 1, "II*\x00\x08\x00\x00\x00\x05\x00": 0,
	} {
		if got := exifOrientation([]byte(text)); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
	if !turns([]byte("http://ns.adobe.com/xap/1.0/\x00<x tiff:Orientation=\"6\"/>")) || turns([]byte("XMP")) {
		t.Error("XMP")
	}
}
