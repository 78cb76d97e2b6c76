package tipserve

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Embedded is one embedding, or why there is none.
type Embedded struct {
	// Values are as many as the bundle is wide; nil where Err is set.
	Values []float32
	// Err is an *Error, or nil.
	Err error
}

// EmbedOption changes how [Client.EmbedPictures] and [Client.EmbedTexts] embed.
type EmbedOption func(*pb.EmbedRequest)

// Raw returns the encoder's output as it is, instead of unit vectors.
func Raw() EmbedOption { return func(r *pb.EmbedRequest) { r.Raw = true } }

// TruncateTexts cuts texts that are longer than the encoder's context instead
// of refusing them.
func TruncateTexts() EmbedOption { return func(r *pb.EmbedRequest) { r.TruncateTexts = true } }

// WithBundle embeds with another bundle than the server's default, by its name or
// fingerprint.
func WithBundle(bundle string) EmbedOption {
	return func(r *pb.EmbedRequest) { r.Bundle = bundle }
}

// ExifOrientation says what is done with the orientation that cameras write
// beside the pixels. Default: it is applied, as new caches do.
func ExifOrientation(what pb.ExifOrientation) EmbedOption {
	return func(r *pb.EmbedRequest) { r.ExifOrientation = what }
}

// EmbedPictures embeds pictures, any number of them, with the bundle's image
// encoder; they are sent in requests of a bounded size. The result has one entry
// for each, in order. The error is one of a request as a whole.
func (c *Client) EmbedPictures(
	ctx context.Context, pictures []Picture, options ...EmbedOption,
) ([]Embedded, error) {
	encoder, err := c.encoder(ctx, 1)
	if err != nil {
		return nil, err
	}
	all := make([]Embedded, len(pictures))
	type one struct {
		position int
		input    *pb.Input
	}
	embed := func(some []one) error {
		request := &pb.EmbedRequest{}
		for _, one := range some {
			request.Inputs = append(request.Inputs, one.input)
		}
		response, err := c.embed(ctx, request, options)
		if err != nil {
			return err
		}
		if err := sameCount(len(some), len(response.GetInputs())); err != nil {
			return err
		}
		for i, result := range response.GetInputs() {
			all[some[i].position] = embedded(result)
		}
		return nil
	}
	batch := group[one]{limit: encoder.maxMessageBytes}
	for position, picture := range pictures {
		input, failed := encoder.encode(picture)
		if failed != nil {
			all[position].Err = failed
			continue
		}
		if full := batch.add(one{position, input}, proto.Size(input)); full != nil {
			if err := embed(full); err != nil {
				return nil, err
			}
		}
	}
	if rest := batch.take(); rest != nil {
		if err := embed(rest); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// EmbedTexts embeds texts, any number of them, with the bundle's text encoder.
// See [Client.EmbedPictures].
func (c *Client) EmbedTexts(
	ctx context.Context, texts []string, options ...EmbedOption,
) ([]Embedded, error) {
	limit, err := c.maxMessageBytes(ctx)
	if err != nil {
		return nil, err
	}
	var all []Embedded
	embed := func(some []string) error {
		response, err := c.embed(ctx, &pb.EmbedRequest{Texts: some}, options)
		if err != nil {
			return err
		}
		if err := sameCount(len(some), len(response.GetTexts())); err != nil {
			return err
		}
		for _, result := range response.GetTexts() {
			all = append(all, embedded(result))
		}
		return nil
	}
	batch := group[string]{limit: limit}
	for _, text := range texts {
		if full := batch.add(valid(text), len(text)); full != nil {
			if err := embed(full); err != nil {
				return nil, err
			}
		}
	}
	if rest := batch.take(); rest != nil {
		if err := embed(rest); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (c *Client) embed(
	ctx context.Context, request *pb.EmbedRequest, options []EmbedOption,
) (*pb.EmbedResponse, error) {
	for _, option := range options {
		option(request)
	}
	return read(ctx, c, c.classify.Embed, request)
}

func sameCount(sent, got int) error {
	if sent == got {
		return nil
	}
	return &Error{Code: codes.Unknown,
		Message: fmt.Sprintf("the server returned %d embeddings for %d inputs", got, sent)}
}

func embedded(result *pb.EmbedResult) Embedded {
	if result.GetEmbedding() != nil {
		return Embedded{Values: result.GetEmbedding().GetValues()}
	}
	return Embedded{Err: fromStatus(result.GetError())}
}
