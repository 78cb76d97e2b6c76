package tipserve

import (
	"context"
	"iter"

	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Suggested is which of many unlabelled pictures to label first.
type Suggested struct {
	// Response is the suggestions, best first, and what they were chosen by.
	Response *pb.SuggestExamplesResponse
	// Rejected are pictures that could not be used: those that the client could
	// not read or send, then the server's.
	Rejected []Rejected
}

// Suggest says which of many unlabelled pictures to label first: those that
// config.Cache would learn most from, or, without a cache, those that stand for
// most of the others. Near-duplicates count once. What is zero in the config is
// for the server to choose. Items are gone through once, so the call is not
// repeated; an error that they yield ends it. Their time limits do not count.
func (c *Client) Suggest(
	ctx context.Context, config *pb.SuggestExamplesConfig, items iter.Seq2[Item, error],
) (*Suggested, error) {
	encoder, err := c.encoder(ctx, 1)
	if err != nil {
		return nil, err
	}
	done := &Suggested{}
	err = c.config.retry.run(ctx, func(ctx context.Context) (*upload, error) {
		stream, err := c.analysis.SuggestExamples(ctx)
		if err != nil {
			return nil, err
		}
		var unsendable []Rejected
		response := &pb.SuggestExamplesResponse{}
		sendItems := func(items []*pb.UnlabelledItem) error {
			return stream.Send(&pb.SuggestExamplesRequest{Payload: &pb.SuggestExamplesRequest_Items{
				Items: &pb.UnlabelledBatch{Items: items}}})
		}
		send := func() error {
			if err := stream.Send(&pb.SuggestExamplesRequest{Payload: &pb.SuggestExamplesRequest_Config{
				Config: config}}); err != nil {
				return err
			}
			batch := group[*pb.UnlabelledItem]{limit: encoder.maxMessageBytes}
			position := 0
			for item, err := range items {
				if err != nil {
					return errOwn{err}
				}
				id := item.ID
				if id == "" {
					id = defaultID(item.Picture, position)
				}
				position++
				input, failed := encoder.encode(item.Picture)
				if failed != nil {
					unsendable = append(unsendable, Rejected{id, failed})
					continue
				}
				message := &pb.UnlabelledItem{Id: valid(id), Input: input}
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
			send: send, closeSend: stream.CloseSend,
			receive: func() error { return stream.RecvMsg(response) },
			done: func() {
				done = &Suggested{Response: response, Rejected: unsendable}
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
