package tipserve_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// stripes is a picture whose stripes tell its class, in a random colour.
func stripes(rng *rand.Rand, vertical bool) image.Image {
	made := image.NewNRGBA(image.Rect(0, 0, 96, 96))
	ink := color.NRGBA{byte(rng.IntN(100)), byte(rng.IntN(100)), byte(rng.IntN(100)), 255}
	period := 6 + rng.IntN(4)
	for y := range 96 {
		for x := range 96 {
			along := y
			if vertical {
				along = x
			}
			if along/period%2 == 0 {
				made.SetNRGBA(x, y, ink)
			} else {
				made.SetNRGBA(x, y, color.NRGBA{230, 230, 230, 255})
			}
		}
	}
	return made
}

func TestRealServerOfPictures(t *testing.T) {
	server := serve(t, filepath.Join(repository, "bundles", "demo"))
	client, rng := dial(t, server.address), random(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	root := t.TempDir()
	for i := range 8 {
		for class, name := range []string{"across", "up_down"} {
			var file bytes.Buffer
			var err error
			picture := stripes(rng, class == 1)
			if i%2 == 0 {
				err = png.Encode(&file, picture)
			} else {
				err = jpeg.Encode(&file, picture, &jpeg.Options{Quality: 95})
			}
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(root, name, fmt.Sprint(i))
			os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, "across", "notes.jpg"), []byte("no picture"), 0o644); err != nil {
		t.Fatal(err)
	}
	made := must(client.CreateCache(ctx, &pb.CacheSpec{CacheId: "stripes"}, tipserve.Folder(root)))(t)
	if len(made.Rejected) != 1 || made.Rejected[0].ID != "across/notes.jpg" || made.Version.GetKeyCount() != 16 {
		t.Error(made)
	}
	if got := made.Version.GetClasses()[1].GetDisplayName(); got != "up down" {
		t.Error(got)
	}
	wrong := 0
	var pictures []tipserve.Picture
	for i := range 20 {
		pictures = append(pictures, tipserve.FromImage(stripes(rng, i%2 == 1)))
	}
	results, err := collect(client.Classify(ctx, "stripes", tipserve.Pictures(pictures...)))
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range results {
		if result.Err != nil {
			t.Fatal(result.Err)
		}
		if int(result.Best().GetIndex()) != i%2 {
			wrong++
		}
	}
	if wrong > 2 {
		t.Errorf("%d of 20 plain stripes taken for the other kind", wrong)
	}
	for result, err := range client.Classify(ctx, "stripes", tipserve.FolderItems(root), tipserve.Unordered()) {
		if err != nil {
			t.Fatal(err)
		}
		if text := filepath.Base(result.ID) == "notes.jpg"; text != (result.Err != nil) {
			t.Error(result)
		}
	}
	// The example program finds the same.
	example := exec.CommandContext(ctx, "go", "run", "./examples/classify",
		"-server", server.address, "-cache", "stripes", filepath.Join(root, "up_down"), filepath.Join(root, "across", "0"))
	example.Stderr = os.Stderr
	lines, err := example.Output()
	if err != nil || bytes.Count(lines, []byte("\n")) != 9 || !bytes.Contains(lines, []byte("\tup down\t")) {
		t.Errorf("%v\n%s", err, lines)
	}
	texts := must(client.EmbedTexts(ctx, []string{"vertical stripes", "horizontal stripes"}))(t)
	if len(texts) != 2 || len(texts[0].Values) != int(made.Version.GetWidth()) {
		t.Error(texts)
	}
}
