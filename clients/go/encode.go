package tipserve

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"io"
	"io/fs"
	"os"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// encoder makes messages of pictures, none of them over the server's limit.
type encoder struct {
	// maxMessageBytes is the largest message that the server takes.
	maxMessageBytes int
	// resizeTo is what pictures are made into here; nil: the server does that.
	resizeTo *square
	// jpeg sends what was resized as JPEG instead of raw pixels.
	jpeg   bool
	limits pictureLimits
}

// newEncoder makes one by what the server states. Without an image encoder
// there is nothing to resize for.
func newEncoder(info *pb.ServerInfo, resize Resizing) *encoder {
	made := &encoder{
		maxMessageBytes: maxMessageBytes(info),
		jpeg:            resize == ResizeOnClientJPEG,
		limits:          limitsOf(info),
	}
	bundle := info.GetBundle()
	crop := int(bundle.GetImageSize())
	// Another kernel or rule than these is the server's own matter.
	by, known := kernels[bundle.GetInterpolation()]
	squash, ruled := resizeRules[bundle.GetResize()]
	if resize != ResizeOnServer && crop > 0 && known && ruled {
		// A server from before resize_to states only the crop.
		side := max(int(bundle.GetResizeTo()), crop)
		made.resizeTo = &square{side: side, crop: crop, by: by, squash: squash}
	}
	return made
}

// maxInputBytes is the largest single input.
func (e *encoder) maxInputBytes() int { return max(e.maxMessageBytes-envelopeBytes, 0) }

// encode makes the message of a picture, or says why there is none.
func (e *encoder) encode(picture Picture) (*pb.Input, *Error) {
	if picture == nil {
		return nil, invalid(ReasonItemUnusable, "this item has no picture")
	}
	made, err := picture.input(e)
	if err != nil {
		var own *Error
		if errors.As(err, &own) {
			return nil, own
		}
		return nil, invalid(ReasonItemUnusable, "this item cannot be sent: %w", err)
	}
	if proto.Size(made) > e.maxInputBytes() {
		return nil, e.tooLarge(int64(contentSize(made)))
	}
	return made, nil
}

func contentSize(in *pb.Input) int {
	return len(in.GetEncodedImage()) + len(in.GetRawRgb().GetData()) +
		4*len(in.GetEmbedding().GetValues())
}

func (e *encoder) tooLarge(size int64) *Error {
	limit := e.maxInputBytes()
	hint := ""
	if e.resizeTo == nil {
		hint = "; make it smaller, or let the client do it: WithResize(ResizeOnClient)"
	}
	return invalid(ReasonPictureTooLarge,
		"the picture takes %d bytes, over the limit of %d bytes that the server's largest message leaves%s",
		size, limit, hint,
	).with("what", "message bytes", "value", strconv.FormatInt(size, 10), "limit", strconv.Itoa(limit))
}

// read reads a file; of one that is over the limit no more than that, unless
// it will be resized.
func (e *encoder) read(path string) ([]byte, error) {
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
	limit := int64(e.maxInputBytes())
	if size := status.Size(); status.Mode().IsRegular() && size > limit {
		if e.resizeTo == nil || size > e.limits.fileBytes() || formatOf(head(file)) == nil {
			return nil, e.tooLarge(size)
		}
		limit = size
	}
	if status.IsDir() {
		return nil, unreadable(&fs.PathError{Op: "read", Path: path, Err: errors.New("is a directory")})
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, unreadable(err)
	}
	return data, nil
}

// head is a file's first bytes, as many as tell a format.
func head(file io.ReaderAt) []byte {
	first := make([]byte, 16)
	n, _ := file.ReadAt(first, 0) // reading the whole says what is wrong
	return first[:n]
}

// file is the message for a picture's file. What cannot be decoded here is sent
// as it is: the server decides about it, so that errors do not depend on who
// resizes. So is what fits into a message only as the file.
func (e *encoder) file(data []byte) (*pb.Input, error) {
	if e.resizeTo != nil {
		if picture := decode(data, e.limits); picture != nil {
			made, err := e.resized(picture)
			if err != nil || proto.Size(made) <= e.maxInputBytes() {
				return made, err
			}
		}
	}
	return encodedImage(data)
}

func encodedImage(data []byte) (*pb.Input, error) {
	if len(data) == 0 {
		return nil, invalid(ReasonPictureEmpty, "the picture is empty (0 bytes)")
	}
	return &pb.Input{Content: &pb.Input_EncodedImage{EncodedImage: data}}, nil
}

// decoded is the message for a picture that has no file.
func (e *encoder) decoded(picture scanlines) (*pb.Input, error) {
	if e.resizeTo != nil {
		return e.resized(picture)
	}
	return e.pixels(picture)
}

func (e *encoder) resized(picture scanlines) (*pb.Input, error) {
	made := rgbPicture{e.resizeTo.side, e.resizeTo.side, e.resizeTo.of(picture)}
	if !e.jpeg {
		return e.pixels(made)
	}
	file, err := fullColourJPEG(made.width, made.height, made.data, jpegQuality)
	if err != nil {
		return nil, err
	}
	return encodedImage(file)
}

// pixels is the message for raw pixels, as PNG if they are over the limit.
func (e *encoder) pixels(picture scanlines) (*pb.Input, error) {
	width, height := picture.size()
	raw, given := picture.(rgbPicture)
	// The raw form has some 20 bytes of its own: widths and lengths.
	fits := int64(width)*int64(height)*3+64 <= int64(e.maxInputBytes())
	if !given {
		raw = rgbPicture{width, height, rgb(picture)}
	}
	if fits {
		return &pb.Input{Content: &pb.Input_RawRgb{RawRgb: &pb.RawRgb{
			Width: uint32(width), Height: uint32(height), Data: raw.data}}}, nil
	}
	var file bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&file, opaque(width, height, raw.data)); err != nil {
		return nil, fmt.Errorf("as PNG: %w", err)
	}
	return encodedImage(file.Bytes())
}
