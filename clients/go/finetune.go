package tipserve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc/codes"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// FineTune trains a version's keys (Tip-Adapter-F) into a new version, and
// waits for it. What is zero in the request is as in the authors' recipe.
//
// watch, where not nil, is called with every message: with Run first (its name
// and state, and at every change of state), with Progress in between.
//
// Cancelling the context cancels the run, unless it is detached: then the run
// goes on, and [Client.GetFineTune] tells how it fares. Never repeated by
// itself. A run that failed or was cancelled is an error; run is what the
// server last said of it, nil where it said nothing.
func (c *Client) FineTune(
	ctx context.Context, request *pb.FineTuneRequest, watch func(*pb.FineTuneResponse),
) (run *pb.FineTuneRun, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.tune.FineTune(ctx, request)
	if err != nil {
		return nil, fromCall(err)
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return run, fromCall(err)
		}
		if event.GetRun() != nil {
			run = event.GetRun()
		}
		if watch != nil {
			watch(event)
		}
	}
	switch {
	case run == nil:
		return nil, &Error{Code: codes.Unknown, Message: "the server ended the call without a run"}
	case run.GetState() == pb.FineTuneRun_STATE_SUCCEEDED && run.GetVersion() != nil:
		return run, nil
	case run.GetError() != nil:
		return run, fromStatus(run.GetError())
	case run.GetState() == pb.FineTuneRun_STATE_CANCELLED:
		return run, &Error{Code: codes.Canceled, Message: run.GetName() + " was cancelled"}
	}
	return run, &Error{Code: codes.Unknown, Message: fmt.Sprintf(
		"%s ended as %s, without a version", run.GetName(), run.GetState())}
}

// FineTunes goes through runs, newest first: those of one cache, or of all
// where cache is empty.
func (c *Client) FineTunes(
	ctx context.Context, cache string, options ...ReadOption,
) iter.Seq2[*pb.FineTuneRun, error] {
	configured := narrowed(options)
	return pages(func(token string) ([]*pb.FineTuneRun, string, error) {
		page, err := read(ctx, c, c.tune.ListFineTunes, &pb.ListFineTunesRequest{
			Cache: cache, PageSize: configured.pageSize, PageToken: token})
		return page.GetFineTunes(), page.GetNextPageToken(), err
	})
}

// GetFineTune returns one run, by "fineTunes/{id}".
func (c *Client) GetFineTune(ctx context.Context, name string) (*pb.FineTuneRun, error) {
	return read(ctx, c, c.tune.GetFineTune, &pb.GetFineTuneRequest{Name: name})
}

// CancelFineTune cancels a run; one that has ended is left as it is, so the
// call is repeated where it fails for now.
func (c *Client) CancelFineTune(ctx context.Context, name string) (*pb.FineTuneRun, error) {
	return read(ctx, c, c.tune.CancelFineTune, &pb.CancelFineTuneRequest{Name: name})
}
