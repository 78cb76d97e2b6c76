package tipserve

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"io/fs"
	"os"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Picture is something to classify, to embed, or to learn from: a picture, or
// the embedding of one. It is read when it is sent, so a million of files need
// no more memory than a few. The constructors are [FromFile], [FromBytes],
// [FromFunc], [FromImage], [FromRGB] and [FromEmbedding].
type Picture interface {
	// input is the message, at most limit bytes.
	input(limit int) (*pb.Input, error)
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
// message. Where there is a file, [FromFile] is better: decoders differ.
func FromImage(picture image.Image) Picture { return imagePicture{picture} }

// FromRGB is a picture's pixels: rows from the top, three bytes a pixel,
// width·height·3 in all.
func FromRGB(width, height int, data []byte) Picture { return rgbPicture{width, height, data} }

// FromEmbedding is an embedding computed elsewhere with the bundle's model, as
// many values as the bundle is wide. It need not be normalised.
func FromEmbedding(values []float32) Picture { return embeddingPicture(values) }

// encode makes the message of a picture, or says why there is none.
func encode(picture Picture, maxMessageBytes int) (*pb.Input, *Error) {
	if picture == nil {
		return nil, invalid(ReasonItemUnusable, "this item has no picture")
	}
	limit := max(maxMessageBytes-envelopeBytes, 0)
	made, err := picture.input(limit)
	if err != nil {
		var own *Error
		if errors.As(err, &own) {
			return nil, own
		}
		return nil, invalid(ReasonItemUnusable, "this item cannot be sent: %w", err)
	}
	if size := proto.Size(made); size > limit {
		return nil, tooLarge(int64(contentSize(made)), limit)
	}
	return made, nil
}

func contentSize(in *pb.Input) int {
	return len(in.GetEncodedImage()) + len(in.GetRawRgb().GetData()) +
		4*len(in.GetEmbedding().GetValues())
}

func tooLarge(size int64, limit int) *Error {
	return invalid(ReasonPictureTooLarge,
		"the picture takes %d bytes, over the limit of %d bytes that the server's largest message leaves",
		size, limit,
	).with("what", "message bytes", "value", strconv.FormatInt(size, 10), "limit", strconv.Itoa(limit))
}

func encodedImage(data []byte) (*pb.Input, error) {
	if len(data) == 0 {
		return nil, invalid(ReasonPictureEmpty, "the picture is empty (0 bytes)")
	}
	return &pb.Input{Content: &pb.Input_EncodedImage{EncodedImage: data}}, nil
}

type filePicture string

func (p filePicture) name() string { return string(p) }

func (p filePicture) input(limit int) (*pb.Input, error) {
	data, err := readFile(string(p), limit)
	if err != nil {
		return nil, err
	}
	return encodedImage(data)
}

// readFile reads a file; of one that is over the limit no more than that.
func readFile(path string, limit int) ([]byte, error) {
	unreadable := func(err error) error {
		return invalid(ReasonFileUnreadable, "cannot read the picture: %w", err).with("path", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, unreadable(err)
	}
	defer file.Close()
	status, err := file.Stat()
	if err != nil {
		return nil, unreadable(err)
	}
	if status.Mode().IsRegular() && status.Size() > int64(limit) {
		return nil, tooLarge(status.Size(), limit)
	}
	if status.IsDir() {
		return nil, unreadable(&fs.PathError{Op: "read", Path: path, Err: errors.New("is a directory")})
	}
	data, err := io.ReadAll(io.LimitReader(file, int64(limit)+1))
	if err != nil {
		return nil, unreadable(err)
	}
	return data, nil
}

type bytesPicture []byte

func (bytesPicture) name() string                         { return "" }
func (p bytesPicture) input(limit int) (*pb.Input, error) { return encodedImage(p) }

type funcPicture func() ([]byte, error)

func (funcPicture) name() string { return "" }

func (p funcPicture) input(limit int) (*pb.Input, error) {
	data, err := p()
	if err != nil {
		return nil, err
	}
	return encodedImage(data)
}

type rgbPicture struct {
	width, height int
	data          []byte
}

func (rgbPicture) name() string { return "" }

func (p rgbPicture) input(limit int) (*pb.Input, error) {
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
	return &pb.Input{Content: &pb.Input_RawRgb{RawRgb: &pb.RawRgb{
		Width: uint32(p.width), Height: uint32(p.height), Data: p.data}}}, nil
}

type imagePicture struct{ image.Image }

func (imagePicture) name() string { return "" }

func (p imagePicture) input(limit int) (*pb.Input, error) {
	if p.Image == nil {
		return nil, invalid(ReasonPictureEmpty, "the picture is nil")
	}
	bounds := p.Bounds()
	if bounds.Empty() {
		return nil, invalid(ReasonPictureEmpty, "the picture has no pixels: %v", bounds)
	}
	// The raw form has some 20 bytes of its own: widths and lengths.
	if pixels := int64(bounds.Dx()) * int64(bounds.Dy()); pixels*3+64 <= int64(limit) {
		return rgbPicture{bounds.Dx(), bounds.Dy(), rgb(p.Image)}.input(limit)
	}
	opaque := image.NewNRGBA(image.Rect(0, 0, bounds.Dx(), bounds.Dy()))
	data := rgb(p.Image)
	for i := range len(data) / 3 {
		copy(opaque.Pix[4*i:], data[3*i:3*i+3])
		opaque.Pix[4*i+3] = 255
	}
	var file bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&file, opaque); err != nil {
		return nil, fmt.Errorf("as PNG: %w", err)
	}
	return encodedImage(file.Bytes())
}

// rgb is a picture's pixels, its transparency dropped.
func rgb(picture image.Image) []byte {
	bounds := picture.Bounds()
	data := make([]byte, 0, bounds.Dx()*bounds.Dy()*3)
	switch picture := picture.(type) {
	case *image.NRGBA:
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			row := picture.Pix[picture.PixOffset(bounds.Min.X, y):]
			for x := range bounds.Dx() {
				data = append(data, row[4*x], row[4*x+1], row[4*x+2])
			}
		}
	case *image.YCbCr, *image.Gray, *image.CMYK:
		// Never transparent, so that draw's fast paths do no harm.
		opaque := image.NewRGBA(bounds)
		draw.Draw(opaque, bounds, picture, bounds.Min, draw.Src)
		for i := 0; i < len(opaque.Pix); i += 4 {
			data = append(data, opaque.Pix[i], opaque.Pix[i+1], opaque.Pix[i+2])
		}
	default:
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			for x := bounds.Min.X; x < bounds.Max.X; x++ {
				c := color.NRGBAModel.Convert(picture.At(x, y)).(color.NRGBA)
				data = append(data, c.R, c.G, c.B)
			}
		}
	}
	return data
}

type embeddingPicture []float32

func (embeddingPicture) name() string { return "" }

func (p embeddingPicture) input(limit int) (*pb.Input, error) {
	if len(p) == 0 {
		return nil, invalid(ReasonEmbeddingEmpty, "the embedding is empty")
	}
	return &pb.Input{Content: &pb.Input_Embedding{Embedding: &pb.Embedding{Values: p}}}, nil
}
