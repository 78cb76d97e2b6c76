package tipserve_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// fakeBundles serves "a" and loads "b".
type fakeBundles struct {
	pb.UnimplementedBundleServiceServer
	loaded bool
}

func (f *fakeBundles) ListBundles(
	context.Context, *pb.ListBundlesRequest,
) (*pb.ListBundlesResponse, error) {
	state := pb.Bundle_STATE_AVAILABLE
	if f.loaded {
		state = pb.Bundle_STATE_READY
	}
	return &pb.ListBundlesResponse{Bundles: []*pb.Bundle{
		{Folder: "a", State: pb.Bundle_STATE_READY, IsDefault: true},
		{Folder: "b", State: state},
	}}, nil
}

func (f *fakeBundles) LoadBundle(
	_ context.Context, request *pb.LoadBundleRequest,
) (*pb.Bundle, error) {
	if request.GetFolder() != "b" {
		return nil, refusal(codes.NotFound, "BUNDLE_NOT_FOUND", "no such folder", -1).Err()
	}
	f.loaded = true
	return &pb.Bundle{Folder: "b", State: pb.Bundle_STATE_READY,
		IsDefault: request.GetMakeDefault()}, nil
}

func (f *fakeBundles) UnloadBundle(
	_ context.Context, request *pb.UnloadBundleRequest,
) (*pb.UnloadBundleResponse, error) {
	if request.GetBundle() == "a" {
		return nil, refusal(codes.FailedPrecondition, "BUNDLE_BUSY", "the default", -1).Err()
	}
	f.loaded = false
	return &pb.UnloadBundleResponse{}, nil
}

func TestBundlesAreListedLoadedAndUnloaded(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterBundleServiceServer(server, &fakeBundles{})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	client := dial(t, listener.Addr().String())

	if _, err := client.LoadBundle(within(t), "../c", false); !errors.Is(err, tipserve.ErrNotFound) {
		t.Error(err)
	}
	loaded, err := client.LoadBundle(within(t), "b", true)
	if err != nil || !loaded.GetIsDefault() {
		t.Error(loaded, err)
	}
	listed, err := client.Bundles(within(t))
	if err != nil || len(listed) != 2 || listed[1].GetState() != pb.Bundle_STATE_READY {
		t.Error(listed, err)
	}
	if err := client.UnloadBundle(within(t), "a"); !errors.Is(err, tipserve.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := client.UnloadBundle(within(t), "b"); err != nil {
		t.Error(err)
	}
	listed, err = client.Bundles(within(t))
	if err != nil || listed[1].GetState() != pb.Bundle_STATE_AVAILABLE {
		t.Error(listed, err)
	}
}
