package tipserve_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// exporter sends a header and content in pieces, then fails or not.
func exporter(announced int64, pieces [][]byte, end error) func(grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
	return func(stream grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
		stream.Send(&pb.ExportVersionResponse{Payload: &pb.ExportVersionResponse_Header{
			Header: &pb.ExportHeader{Version: &pb.Version{Version: 3}, SizeBytes: announced}}})
		for _, piece := range pieces {
			stream.Send(&pb.ExportVersionResponse{Payload: &pb.ExportVersionResponse_Chunk{Chunk: piece}})
		}
		return end
	}
}

type fullDisk struct{}

var errFull = errors.New("disk full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestExport(t *testing.T) {
	down := status.Error(codes.Unavailable, "down")
	whole := exporter(6, [][]byte{[]byte("abc"), []byte("def")}, nil)
	f := start(t, &fake{})
	client := dial(t, f.address)
	export := func(w io.Writer, tries ...func(grpc.ServerStreamingServer[pb.ExportVersionResponse]) error) (int, error) {
		before := f.count("ExportVersion")
		f.export = func(try int, stream grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
			return tries[try-before](stream)
		}
		version, err := client.ExportVersion(within(t), "pets", w)
		if err == nil && version.GetVersion() != 3 {
			t.Error(version)
		}
		return f.count("ExportVersion") - before, err
	}
	var file bytes.Buffer
	if tries, err := export(&file, exporter(6, nil, down), whole); err != nil || tries != 2 || file.String() != "abcdef" {
		t.Error("broken before the first byte:", tries, err, file.String())
	}
	file.Reset()
	if tries, err := export(&file, exporter(6, [][]byte{[]byte("abc")}, down), whole); !errors.Is(err, tipserve.ErrUnavailable) || tries != 1 {
		t.Error("broken half-way:", tries, err)
	}
	if _, err := export(io.Discard, exporter(7, [][]byte{[]byte("abc")}, nil)); !errors.Is(err, tipserve.ErrDataLoss) {
		t.Error("ended early:", err)
	}
	if _, err := export(fullDisk{}, whole); err != errFull {
		t.Error("the writer's own error:", err)
	}
}

func TestExportIntoAFile(t *testing.T) {
	down := status.Error(codes.Unavailable, "down")
	f := start(t, &fake{export: func(try int, stream grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
		if try == 0 {
			return exporter(6, [][]byte{[]byte("abc")}, down)(stream)
		}
		return exporter(6, [][]byte{[]byte("abc"), []byte("def")}, nil)(stream)
	}})
	client, folder := dial(t, f.address), t.TempDir()
	path := filepath.Join(folder, "pets.safetensors")
	// Half a file is thrown away, and fetched again.
	must(client.ExportVersionFile(within(t), "pets", path))(t)
	if content, err := os.ReadFile(path); err != nil || string(content) != "abcdef" || f.count("ExportVersion") != 2 {
		t.Error(string(content), err, f.count("ExportVersion"))
	}
	if _, err := client.ExportVersionFile(within(t), "pets", path); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	f.export = func(int, grpc.ServerStreamingServer[pb.ExportVersionResponse]) error {
		return refusal(codes.NotFound, "NOT_FOUND", "no such version", -1).Err()
	}
	if _, err := client.ExportVersionFile(within(t), "pets", path+"2"); !errors.Is(err, tipserve.ErrNotFound) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(folder); len(left) != 1 {
		t.Error("left over:", left)
	}
}

func TestImport(t *testing.T) {
	content := make([]byte, 1_500_000)
	for i := range content {
		content[i] = byte(random(t).Uint32())
		if i > 1000 {
			break
		}
	}
	var spec *pb.ImportSpec
	var got bytes.Buffer
	whole := func(stream grpc.ClientStreamingServer[pb.ImportVersionRequest, pb.Version]) error {
		got.Reset()
		for {
			request, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if request.GetSpec() != nil {
				spec = request.GetSpec()
			}
			got.Write(request.GetChunk())
		}
	}
	f := start(t, &fake{take: func(try int, stream grpc.ClientStreamingServer[pb.ImportVersionRequest, pb.Version]) error {
		if try == 0 {
			stream.Recv()
			return status.Error(codes.Unavailable, "down")
		}
		if err := whole(stream); err != nil {
			return err
		}
		return stream.SendAndClose(&pb.Version{Version: 9})
	}})
	client := dial(t, f.address)
	// From the middle of what can be sought, and from there again.
	file := bytes.NewReader(append([]byte("before"), content...))
	file.Seek(6, io.SeekStart)
	version := must(client.ImportVersion(within(t), &pb.ImportSpec{CacheId: "pets", Etag: "new"}, file))(t)
	if version.GetVersion() != 9 || spec.GetSizeBytes() != int64(len(content)) || spec.GetEtag() != "new" ||
		!bytes.Equal(got.Bytes(), content) || f.count("ImportVersion") != 2 {
		t.Error(version, spec, got.Len(), f.count("ImportVersion"))
	}
	// What cannot be sought needs a size, and must have it.
	pipe := io.MultiReader(strings.NewReader("abc"))
	if _, err := client.ImportVersion(within(t), &pb.ImportSpec{CacheId: "pets"}, pipe); !errors.Is(err, tipserve.ErrInvalidArgument) {
		t.Error(err)
	}
	if _, err := client.ImportVersion(within(t), &pb.ImportSpec{CacheId: "pets", SizeBytes: 4}, pipe); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}
