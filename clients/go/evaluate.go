package tipserve

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Evaluated is how well versions did, side by side.
type Evaluated struct {
	// Evaluations has one entry for each of the caches asked for.
	Evaluations []*pb.Evaluation
	// Rejected are items that could not be used: those that the client could
	// not read or send, then at most 1000 of the server's.
	Rejected []Rejected
	// RejectedCount is how many items could not be used.
	RejectedCount int64
}

// Evaluate says how well versions do, side by side, on labelled pictures that
// took no part in making them. Classes are matched by name with those of the
// first. It is repeated where the source can be read again.
func (c *Client) Evaluate(ctx context.Context, source Source, caches ...string) (*Evaluated, error) {
	return c.EvaluateWith(ctx, source, EvaluateOptions{}, caches...)
}

// EvaluateOptions say what is to be found out besides.
type EvaluateOptions struct {
	// Reject says when a picture counts as of none of the classes;
	// Evaluation.unknown then has how many are accepted and how many of those
	// are right. Default: where there are pictures of none of the classes, as
	// if it were to accept 95 % of the others.
	Reject *pb.RejectOptions
}

// EvaluateWith is Evaluate with options.
func (c *Client) EvaluateWith(
	ctx context.Context, source Source, options EvaluateOptions, caches ...string,
) (*Evaluated, error) {
	if len(caches) == 0 {
		return nil, invalid("FIELD_MISSING", "Evaluate needs at least one cache")
	}
	first, err := c.GetVersion(ctx, caches[0])
	if err != nil {
		return nil, err
	}
	if source == nil {
		source = Examples()
	}
	items, err := source.load(classSpecs(first))
	if err != nil {
		return nil, err
	}
	if !first.GetMultiLabel() {
		items = ofOneClass(items)
	}
	encoder, err := c.encoder(ctx, 1)
	if err != nil {
		return nil, err
	}
	done := &Evaluated{}
	err = c.config.retry.run(ctx, func(ctx context.Context) (*upload, error) {
		stream, err := c.classify.Evaluate(ctx)
		if err != nil {
			return nil, err
		}
		var unsendable []Rejected
		response := &pb.EvaluateResponse{}
		sendItems := func(items []*pb.LabelledItem) error {
			return stream.Send(&pb.EvaluateRequest{Payload: &pb.EvaluateRequest_Items{
				Items: &pb.LabelledBatch{Items: items}}})
		}
		send := func() error {
			if err := stream.Send(&pb.EvaluateRequest{Payload: &pb.EvaluateRequest_Config{
				Config: &pb.EvaluateConfig{Caches: caches, Reject: options.Reject}}}); err != nil {
				return err
			}
			batch := group[*pb.LabelledItem]{limit: encoder.maxMessageBytes}
			for example, input := range encoded([]*labelled{items}, encoder) {
				if input.fatal {
					return errOwn{input.err}
				}
				if input.err != nil {
					unsendable = append(unsendable, Rejected{example.ID, fromCall(input.err)})
					continue
				}
				message := &pb.LabelledItem{
					Id: valid(example.ID), ClassIndex: int32(example.ClassIndex), Input: input.message,
					Unknown: example.Unknown, ClassIndices: example.indices}
				if full := batch.add(message, proto.Size(message)); full != nil {
					if err := sendItems(full); err != nil {
						return err
					}
				}
			}
			if rest := batch.take(); rest != nil {
				return sendItems(rest)
			}
			return nil
		}
		return &upload{
			again: items.repeatable, send: send, closeSend: stream.CloseSend,
			receive: func() error { return stream.RecvMsg(response) },
			done: func() {
				done = &Evaluated{
					Evaluations:   response.GetEvaluations(),
					Rejected:      unsendable,
					RejectedCount: int64(len(unsendable)) + response.GetRejectedCount(),
				}
				for _, one := range response.GetRejected() {
					done.Rejected = append(done.Rejected, rejectedFrom(one))
				}
			},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}
