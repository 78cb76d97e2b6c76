package tipserve

import (
	"image"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Picture is something to classify, to embed, or to learn from: a picture, or
// the embedding of one. It is read when it is sent, so a million of files need
// no more memory than a few. The constructors are [FromFile], [FromBytes],
// [FromFunc], [FromImage], [FromRGB] and [FromEmbedding].
type Picture interface {
	// input is the message, of what the encoder has room for.
	input(e *encoder) (*pb.Input, error)
	// name is a default id, or empty.
	name() string
}

// FromFile is the picture in a file: JPEG, PNG, GIF, WebP, BMP, TIFF or PNM.
func FromFile(path string) Picture { return filePicture(path) }

// FromBytes is a picture's file as its bytes. They are not copied: leave them
// as they are until the result is there.
func FromBytes(encoded []byte) Picture { return bytesPicture(encoded) }

// FromFunc is a picture's file, fetched when it is to be sent. What the
// function returns as an error becomes that item's error.
func FromFunc(fetch func() ([]byte, error)) Picture { return funcPicture(fetch) }

// FromImage is a decoded picture. Transparency is dropped, not blended, as the
// server does. It is sent as pixels, or as PNG where those do not fit into a
// message. If there is a file, [FromFile] is better: decoders differ.
func FromImage(picture image.Image) Picture { return imagePicture{picture} }

// FromRGB is a picture's pixels: rows from the top, three bytes a pixel,
// width·height·3 in all. Those that do not fit into a message are sent as PNG.
func FromRGB(width, height int, data []byte) Picture { return rgbPicture{width, height, data} }

// FromEmbedding is an embedding computed elsewhere with the bundle's model, as
// many values as the bundle is wide. It need not be normalised.
func FromEmbedding(values []float32) Picture { return embeddingPicture(values) }

type filePicture string

func (p filePicture) name() string { return string(p) }

func (p filePicture) input(e *encoder) (*pb.Input, error) {
	data, err := e.read(string(p))
	if err != nil {
		return nil, err
	}
	return e.file(data)
}

type bytesPicture []byte

func (bytesPicture) name() string                          { return "" }
func (p bytesPicture) input(e *encoder) (*pb.Input, error) { return e.file(p) }

type funcPicture func() ([]byte, error)

func (funcPicture) name() string { return "" }

func (p funcPicture) input(e *encoder) (*pb.Input, error) {
	data, err := p()
	if err != nil {
		return nil, err
	}
	return e.file(data)
}

type rgbPicture struct {
	width, height int
	data          []byte
}

func (rgbPicture) name() string { return "" }

func (p rgbPicture) input(e *encoder) (*pb.Input, error) {
	if p.width < 1 || p.height < 1 {
		return nil, invalid(ReasonPictureEmpty, "the picture has no pixels: %d × %d", p.width, p.height)
	}
	// Divided, not multiplied: the product may overflow.
	if len(p.data)%3 != 0 || len(p.data)/3%p.width != 0 || len(p.data)/3/p.width != p.height {
		return nil, invalid(ReasonPictureShape, "%d bytes are not %d × %d × 3", len(p.data), p.width, p.height)
	}
	if uint64(p.width) > 1<<31 || uint64(p.height) > 1<<31 {
		return nil, invalid(ReasonPictureShape, "a picture of %d × %d cannot be sent", p.width, p.height)
	}
	return e.decoded(p)
}

type imagePicture struct{ image.Image }

func (imagePicture) name() string { return "" }

func (p imagePicture) input(e *encoder) (*pb.Input, error) {
	if p.Image == nil {
		return nil, invalid(ReasonPictureEmpty, "the picture is nil")
	}
	if p.Bounds().Empty() {
		return nil, invalid(ReasonPictureEmpty, "the picture has no pixels: %v", p.Bounds())
	}
	return e.decoded(rowsOf(p.Image))
}

type embeddingPicture []float32

func (embeddingPicture) name() string { return "" }

func (p embeddingPicture) input(*encoder) (*pb.Input, error) {
	if len(p) == 0 {
		return nil, invalid(ReasonEmbeddingEmpty, "the embedding is empty")
	}
	return &pb.Input{Content: &pb.Input_Embedding{Embedding: &pb.Embedding{Values: p}}}, nil
}
