package tipserve_test

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

func TestEvaluateIsRepeatedAndCounts(t *testing.T) {
	items := 0
	var reject *pb.RejectOptions
	f := start(t, &fake{evaluate: func(try int, stream grpc.ClientStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
		items = 0
		for {
			request, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			items += len(request.GetItems().GetItems())
			if config := request.GetConfig(); config != nil {
				reject = config.GetReject()
			}
		}
		if try == 0 {
			return status.Error(codes.Unavailable, "down")
		}
		return stream.SendAndClose(&pb.EvaluateResponse{
			Evaluations:   []*pb.Evaluation{{Version: "caches/pets/versions/1", Top1: 0.5}},
			Rejected:      []*pb.RejectedExample{{ExampleId: "7", Code: 3, Reason: "PICTURE_UNDECODABLE"}},
			RejectedCount: 1})
	}})
	client := dial(t, f.address)
	done := must(client.Evaluate(within(t), tipserve.Examples(
		tipserve.Example{Class: "cat", Picture: tipserve.FromBytes([]byte("x"))},
		tipserve.Example{Class: "cat", Picture: tipserve.FromBytes(nil)},
		tipserve.Example{Class: "dog", Picture: tipserve.FromBytes([]byte("y"))}), "pets"))(t)
	if items != 2 || done.Evaluations[0].GetTop1() != 0.5 || done.RejectedCount != 2 ||
		done.Rejected[0].ID != "1" || done.Rejected[1].Err.Reason != "PICTURE_UNDECODABLE" {
		t.Error(items, done)
	}
	if f.count("Evaluate") != 2 || reject != nil {
		t.Error("not repeated", reject)
	}
	_ = must(client.EvaluateWith(within(t), tipserve.Examples(), tipserve.EvaluateOptions{
		Reject: &pb.RejectOptions{Accept: proto.Float64(0.8)}}, "pets"))(t)
	if reject.GetAccept() != 0.8 {
		t.Error(reject)
	}
	if _, err := client.Evaluate(within(t), nil); !errors.Is(err, tipserve.ErrInvalidArgument) {
		t.Error(err)
	}
}
