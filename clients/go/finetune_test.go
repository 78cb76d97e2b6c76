package tipserve_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

func TestFineTuning(t *testing.T) {
	run := func(state pb.FineTuneRun_State, version *pb.Version) *pb.FineTuneResponse {
		return &pb.FineTuneResponse{Event: &pb.FineTuneResponse_Run{
			Run: &pb.FineTuneRun{Name: "fineTunes/1", State: state, Version: version}}}
	}
	progress := &pb.FineTuneResponse{Event: &pb.FineTuneResponse_Progress{Progress: &pb.FineTuneProgress{Epoch: 1}}}
	f := start(t, &fake{})
	client := dial(t, f.address)

	f.tune = func(request *pb.FineTuneRequest, stream grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		stream.Send(run(pb.FineTuneRun_STATE_RUNNING, nil))
		stream.Send(progress)
		return stream.Send(run(pb.FineTuneRun_STATE_SUCCEEDED, &pb.Version{Version: int64(request.GetEpochs())}))
	}
	events := 0
	done, err := client.FineTune(within(t), &pb.FineTuneRequest{Cache: "pets", Epochs: 3},
		func(*pb.FineTuneResponse) { events++ })
	if err != nil || done.GetVersion().GetVersion() != 3 || events != 3 {
		t.Error(done, err, events)
	}

	f.tune = func(_ *pb.FineTuneRequest, stream grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		stream.Send(run(pb.FineTuneRun_STATE_RUNNING, nil))
		return refusal(codes.FailedPrecondition, "UNSUPPORTED", "nothing to train", -1).Err()
	}
	done, err = client.FineTune(within(t), &pb.FineTuneRequest{Cache: "pets"}, nil)
	if !errors.Is(err, tipserve.ErrFailedPrecondition) || done.GetName() != "fineTunes/1" {
		t.Error(done, err)
	}

	ended := make(chan struct{})
	f.tune = func(_ *pb.FineTuneRequest, stream grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		stream.Send(run(pb.FineTuneRun_STATE_RUNNING, nil))
		<-stream.Context().Done()
		close(ended)
		return nil
	}
	ctx, cancel := context.WithCancel(within(t))
	_, err = client.FineTune(ctx, &pb.FineTuneRequest{Cache: "pets"}, func(*pb.FineTuneResponse) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
	f.tune = func(*pb.FineTuneRequest, grpc.ServerStreamingServer[pb.FineTuneResponse]) error {
		return status.Error(codes.Unavailable, "down")
	}
	before := f.count("FineTune")
	if _, err := client.FineTune(within(t), &pb.FineTuneRequest{}, nil); !errors.Is(err, tipserve.ErrUnavailable) || f.count("FineTune") != before+1 {
		t.Error(err, f.count("FineTune"))
	}
}
