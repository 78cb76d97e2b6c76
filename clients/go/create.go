package tipserve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Made is a new version, and what could not be used in making it.
type Made struct {
	// Version is the new version.
	Version *pb.Version
	// Rejected are the examples that could not be used: those that the client
	// could not read or send, then those that the server reported.
	Rejected []Rejected
}

// CreateOption changes how [Client.CreateCache] and [Client.AddExamples] work.
type CreateOption func(*createConfig)

type createConfig struct {
	shots      int
	hasShots   bool
	seed       uint64
	validation Source
	unknown    []Picture
	unlabelled []Picture
	progress   func(*pb.CreateProgress)
}

// Shots takes at most this many training examples of each class, chosen by the
// seed and the examples' ids: the same as `tipserve create --shots K --seed S`.
func Shots(shots int, seed uint64) CreateOption {
	return func(c *createConfig) { c.shots, c.seed, c.hasShots = shots, seed, true }
}

// Validation adds examples that choose numbers and never become keys. Their ids
// get "validation/" in front.
func Validation(source Source) CreateOption {
	return func(c *createConfig) { c.validation = source }
}

// Unknown adds pictures of none of the classes: they sharpen what is rejected
// (see [Reject]), and never become keys. Their ids get "unknown/" in front.
func Unknown(pictures ...Picture) CreateOption {
	return func(c *createConfig) { c.unknown = pictures }
}

// Unlabelled adds pictures without labels, some perhaps of other classes: AUTO
// learns from them where that helps (see Version.Head.Unlabelled). Only their
// features are kept.
func Unlabelled(pictures ...Picture) CreateOption {
	return func(c *createConfig) { c.unlabelled = pictures }
}

// OnProgress is called with every progress message, before the call returns.
func OnProgress(progress func(*pb.CreateProgress)) CreateOption {
	return func(c *createConfig) { c.progress = progress }
}

// CreateCache makes a new version of a cache, version 1 where the cache is
// new, from labelled pictures. Where spec.Classes is empty, the classes are
// those of the source. The spec is not changed. With spec.MultiLabel, examples
// carry any number of [Example.Labels].
//
// Pictures are read as they are sent; memory does not grow with their number.
// Where the source can be read again, the call is repeated if it was refused for
// now or the connection broke; its spec.RequestId, made up if it is empty,
// keeps the server from making a second version. Cancelling the context leaves
// nothing behind.
func (c *Client) CreateCache(
	ctx context.Context, spec *pb.CacheSpec, source Source, options ...CreateOption,
) (*Made, error) {
	spec = proto.CloneOf(spec)
	if spec == nil {
		spec = &pb.CacheSpec{}
	}
	if source == nil {
		source = Examples()
	}
	configured := configure(options)
	parts, err := configured.parts(source, spec.GetClasses())
	if err != nil {
		return nil, err
	}
	spec.Classes = parts[0].classes
	if !spec.GetMultiLabel() {
		for i, part := range parts {
			parts[i] = ofOneClass(part)
		}
	}
	spec.RequestId = requestID(spec.GetRequestId())
	encoder, err := c.encoder(ctx, spec.GetViews())
	if err != nil {
		return nil, err
	}
	fail := spec.GetOnRejected() == pb.CacheSpec_ON_REJECTED_FAIL
	return c.makeVersion(ctx, parts, encoder, fail, configured.progress, func(ctx context.Context) (*making, error) {
		stream, err := c.caches.CreateCache(ctx)
		if err != nil {
			return nil, err
		}
		return &making{
			sendSpec: func() error {
				return stream.Send(&pb.CreateCacheRequest{
					Payload: &pb.CreateCacheRequest_Spec{Spec: spec}})
			},
			sendExamples: func(batch *pb.ExampleBatch) error {
				return stream.Send(&pb.CreateCacheRequest{
					Payload: &pb.CreateCacheRequest_Examples{Examples: batch}})
			},
			closeSend: stream.CloseSend,
			receive:   func() (makingEvent, error) { return stream.Recv() },
		}, nil
	})
}

// AddExamples makes a new version from an existing one: examples and classes
// added (from the source, which may be nil), examples removed (as the spec
// says). What the base version holds is not encoded again.
//
// A source's classes are matched by name with the base's and spec.NewClasses.
// If that is nil, the classes that the source names and that the base does
// not have are new ones; an empty slice refuses them. Examples without an id or
// a file are called by the base's number and their position, "3+17".
//
// It is repeated under the same conditions as [Client.CreateCache].
func (c *Client) AddExamples(
	ctx context.Context, spec *pb.AddExamplesSpec, source Source, options ...CreateOption,
) (*Made, error) {
	anyNew := spec.GetNewClasses() == nil
	spec = proto.CloneOf(spec)
	if spec == nil {
		spec = &pb.AddExamplesSpec{}
	}
	if source == nil {
		source = Examples()
	}
	configured := configure(options)
	// Indices count the classes of one version, so the base is one version from
	// here on, whatever its name may come to mean.
	base, err := c.GetVersion(ctx, spec.GetBase())
	if err != nil {
		return nil, err
	}
	spec.Base = base.GetName()
	spec.RequestId = requestID(spec.GetRequestId())
	classes := classSpecs(base)
	if anyNew {
		known := newLookup(classes)
		names, err := source.names()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !known.has(name) {
				spec.NewClasses = append(spec.NewClasses, &pb.ClassSpec{DisplayName: name})
			}
		}
	}
	parts, err := configured.parts(source, append(classes, spec.GetNewClasses()...))
	if err != nil {
		return nil, err
	}
	for i, part := range parts {
		if !base.GetMultiLabel() {
			part = ofOneClass(part)
		}
		parts[i] = addedTo(base.GetVersion(), part)
	}
	encoder, err := c.encoder(ctx, base.GetViews())
	if err != nil {
		return nil, err
	}
	fail := spec.GetOnRejected() == pb.CacheSpec_ON_REJECTED_FAIL
	return c.makeVersion(ctx, parts, encoder, fail, configured.progress, func(ctx context.Context) (*making, error) {
		stream, err := c.caches.AddExamples(ctx)
		if err != nil {
			return nil, err
		}
		return &making{
			sendSpec: func() error {
				return stream.Send(&pb.AddExamplesRequest{
					Payload: &pb.AddExamplesRequest_Spec{Spec: spec}})
			},
			sendExamples: func(batch *pb.ExampleBatch) error {
				return stream.Send(&pb.AddExamplesRequest{
					Payload: &pb.AddExamplesRequest_Examples{Examples: batch}})
			},
			closeSend: stream.CloseSend,
			receive:   func() (makingEvent, error) { return stream.Recv() },
		}, nil
	})
}

func configure(options []CreateOption) *createConfig {
	configured := &createConfig{}
	for _, option := range options {
		option(configured)
	}
	return configured
}

// parts are the training and the validation examples; the first has the classes.
func (c *createConfig) parts(source Source, classes []*pb.ClassSpec) ([]*labelled, error) {
	if len(classes) == 0 {
		classes = nil
	}
	training, err := source.load(classes)
	if err != nil {
		return nil, err
	}
	if c.hasShots {
		if training, err = chooseShots(training, c.shots, c.seed); err != nil {
			return nil, err
		}
	}
	parts := []*labelled{training}
	if c.validation != nil {
		validation, err := c.validation.load(training.classes)
		if err != nil {
			return nil, fmt.Errorf("of the validation examples: %w", err)
		}
		parts = append(parts, forValidation(validation))
	}
	for _, apart := range []struct {
		pictures []Picture
		as       Example
		mark     func(*labelled) *labelled
	}{
		{c.unknown, Example{Unknown: true}, ofNoClass},
		{c.unlabelled, Example{Unlabelled: true}, withoutLabel},
	} {
		if len(apart.pictures) == 0 {
			continue
		}
		examples := make(sliceSource, 0, len(apart.pictures))
		for _, picture := range apart.pictures {
			example := apart.as
			example.Picture = picture
			examples = append(examples, example)
		}
		loaded, err := examples.load(training.classes)
		if err != nil {
			return nil, err
		}
		parts = append(parts, apart.mark(loaded))
	}
	return parts, nil
}

// classSpecs are a version's classes, for labels to be matched with.
func classSpecs(version *pb.Version) []*pb.ClassSpec {
	specs := make([]*pb.ClassSpec, 0, len(version.GetClasses()))
	for _, class := range version.GetClasses() {
		specs = append(specs, &pb.ClassSpec{DisplayName: class.GetDisplayName()})
	}
	return specs
}

// making is a stream of CreateCache or AddExamples, which say the same.
type making struct {
	sendSpec     func() error
	sendExamples func(*pb.ExampleBatch) error
	closeSend    func() error
	receive      func() (makingEvent, error)
}

type makingEvent interface {
	GetProgress() *pb.CreateProgress
	GetRejected() *pb.RejectedExample
	GetVersion() *pb.Version
}

// makeVersion makes the call that open opens.
func (c *Client) makeVersion(
	ctx context.Context, parts []*labelled, encoder *encoder, fail bool,
	progress func(*pb.CreateProgress), open func(context.Context) (*making, error),
) (*Made, error) {
	again := true
	for _, part := range parts {
		again = again && part.repeatable
	}
	var made *Made
	err := c.config.retry.run(ctx, func(ctx context.Context) (*upload, error) {
		stream, err := open(ctx)
		if err != nil {
			return nil, err
		}
		made = &Made{}
		var unsendable, reported []Rejected
		send := func() error {
			if err := stream.sendSpec(); err != nil {
				return err
			}
			batch := group[*pb.Example]{limit: encoder.maxMessageBytes}
			for example, input := range encoded(parts, encoder) {
				if input.err != nil {
					if fail || input.fatal {
						return errOwn{input.err}
					}
					unsendable = append(unsendable, Rejected{example.ID, fromCall(input.err)})
					continue
				}
				message := &pb.Example{
					ExampleId: valid(example.ID), ClassIndex: int32(example.ClassIndex),
					Input: input.message, Validation: example.Validation, Unknown: example.Unknown,
					Unlabelled:   example.Unlabelled,
					ClassIndices: example.indices,
				}
				if full := batch.add(message, proto.Size(message)); full != nil {
					if err := stream.sendExamples(&pb.ExampleBatch{Examples: full}); err != nil {
						return err
					}
				}
			}
			if rest := batch.take(); rest != nil {
				return stream.sendExamples(&pb.ExampleBatch{Examples: rest})
			}
			return nil
		}
		receive := func() error {
			for {
				event, err := stream.receive()
				switch {
				case errors.Is(err, io.EOF):
					if made.Version == nil {
						return &Error{Code: codes.Unknown, Message: "the server ended the call without a version"}
					}
					return nil
				case err != nil:
					return err
				case event.GetProgress() != nil:
					if progress != nil {
						progress(event.GetProgress())
					}
				case event.GetRejected() != nil:
					reported = append(reported, rejectedFrom(event.GetRejected()))
				case event.GetVersion() != nil:
					made.Version = event.GetVersion()
				}
			}
		}
		return &upload{
			again: again, send: send, closeSend: stream.closeSend,
			receive: receive,
			done:    func() { made.Rejected = append(unsendable, reported...) },
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

func rejectedFrom(one *pb.RejectedExample) Rejected {
	return Rejected{one.GetExampleId(), &Error{
		Code: codes.Code(one.GetCode()), Message: one.GetMessage(), Reason: one.GetReason(),
		Domain: "tipserve",
	}}
}

// sendable is an example's message, or why there is none.
type sendable struct {
	message *pb.Input
	err     error
	// fatal: the source itself failed, not one picture.
	fatal bool
}

// encoded reads examples and their pictures, one at a time.
func encoded(parts []*labelled, encoder *encoder) iter.Seq2[Example, sendable] {
	return func(yield func(Example, sendable) bool) {
		for _, part := range parts {
			for example, err := range part.examples {
				if err != nil {
					yield(example, sendable{err: err, fatal: true})
					return
				}
				made, failed := encoder.encode(example.Picture)
				one := sendable{message: made}
				if failed != nil {
					one.err = failed
				}
				if !yield(example, one) {
					return
				}
			}
		}
	}
}

// valid is a text as the wire takes it.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
