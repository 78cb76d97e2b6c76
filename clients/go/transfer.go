package tipserve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// chunkBytes is how much of a file one message of an import carries.
const chunkBytes = 512 << 10

// ExportVersion writes a version to w as one safetensors file that carries its
// manifest, and returns what it is. It is repeated only until the first byte
// is written. Where it fails after that, what was written is not the whole: a
// file that was begun is to be thrown away.
func (c *Client) ExportVersion(ctx context.Context, name string, w io.Writer) (*pb.Version, error) {
	var header *pb.ExportHeader
	var written int64
	var own error
	failed := c.config.retry.repeated(ctx, func() *Error {
		err := c.export(ctx, name, func(h *pb.ExportHeader) { header = h }, func(chunk []byte) error {
			n, err := w.Write(chunk)
			written += int64(n)
			if err != nil {
				own = err
			}
			return err
		})
		if err == nil || own != nil {
			return nil
		}
		if written > 0 {
			// Not to be repeated; the caller gets it as it is.
			own = fromCall(err)
			return nil
		}
		return fromCall(err)
	})
	switch {
	case own != nil:
		return nil, own
	case failed != nil:
		return nil, failed
	case header == nil || written != header.GetSizeBytes():
		return nil, &Error{Code: codes.DataLoss, Reason: ReasonTruncated, Message: fmt.Sprintf(
			"the export of %s has %d bytes, announced were %d", name, written, header.GetSizeBytes())}
	}
	return header.GetVersion(), nil
}

// ExportVersionFile writes a version into a file that must not be there yet.
// The file has its name only once it is whole and on the disk, so the call is
// repeated as one that only reads.
func (c *Client) ExportVersionFile(ctx context.Context, name, path string) (*pb.Version, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, &fs.PathError{Op: "export", Path: path, Err: fs.ErrExist}
	}
	var version *pb.Version
	var own error
	failed := c.config.retry.repeated(ctx, func() *Error {
		err := wholeFile(path, func(part io.Writer) (err error) {
			version, err = c.ExportVersion(ctx, name, part)
			return err
		})
		var failure *Error
		if err != nil && !errors.As(err, &failure) {
			own = err
		}
		return failure
	})
	switch {
	case own != nil:
		return nil, own
	case failed != nil:
		return nil, failed
	}
	return version, nil
}

// wholeFile makes a file under another name, and gives it its own when it is
// whole; it fails if that is taken by then.
func wholeFile(path string, write func(io.Writer) error) error {
	part, err := os.OpenFile(filepath.Join(filepath.Dir(path), ".tipserve-export-"+rand.Text()),
		os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	defer part.Close()
	if err := write(part); err != nil {
		return err
	}
	if err := part.Sync(); err != nil {
		return err
	}
	if err := part.Close(); err != nil {
		return err
	}
	return os.Link(part.Name(), path)
}

// export makes the call once.
func (c *Client) export(
	ctx context.Context, name string, begin func(*pb.ExportHeader), write func([]byte) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.caches.ExportVersion(ctx, &pb.ExportVersionRequest{Name: name})
	if err != nil {
		return err
	}
	for {
		piece, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case piece.GetHeader() != nil:
			begin(piece.GetHeader())
		default:
			if err := write(piece.GetChunk()); err != nil {
				return err
			}
		}
	}
}

// ImportVersion makes a new version of a cache, version 1 where the cache is
// new, of an exported file. spec.SizeBytes may be left out where r can be
// sought (an *os.File, a *bytes.Reader): then it is what r still holds. The
// spec is not changed.
//
// It is repeated if r can be sought; spec.RequestId, made up if it is empty,
// keeps the server from making a second version.
func (c *Client) ImportVersion(
	ctx context.Context, spec *pb.ImportSpec, r io.Reader,
) (*pb.Version, error) {
	spec = proto.CloneOf(spec)
	if spec == nil {
		spec = &pb.ImportSpec{}
	}
	spec.RequestId = requestID(spec.GetRequestId())
	limit, err := c.maxMessageBytes(ctx)
	if err != nil {
		return nil, err
	}
	seeker, _ := r.(io.Seeker)
	var start int64
	if seeker != nil {
		if start, err = seeker.Seek(0, io.SeekCurrent); err != nil {
			seeker = nil // a pipe, for instance
		}
	}
	if spec.GetSizeBytes() == 0 {
		if seeker == nil {
			return nil, invalid("FIELD_MISSING", "the size of the file is needed, as it cannot be sought")
		}
		end, err := seeker.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, err
		}
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return nil, err
		}
		spec.SizeBytes = end - start
	}
	chunk := max(min(chunkBytes, limit-envelopeBytes), 1)
	moved := false
	var version *pb.Version
	err = c.config.retry.run(ctx, func(ctx context.Context) (*upload, error) {
		if moved {
			if _, err := seeker.Seek(start, io.SeekStart); err != nil {
				return nil, errOwn{err}
			}
		}
		stream, err := c.caches.ImportVersion(ctx)
		if err != nil {
			return nil, err
		}
		moved = true
		send := func() error {
			if err := stream.Send(&pb.ImportVersionRequest{
				Payload: &pb.ImportVersionRequest_Spec{Spec: spec}}); err != nil {
				return err
			}
			for left := spec.GetSizeBytes(); left > 0; {
				// gRPC may keep a message after Send, so each has its own bytes.
				piece := make([]byte, min(int64(chunk), left))
				if _, err := io.ReadFull(r, piece); err != nil {
					return errOwn{fmt.Errorf("tipserve: reading the file to import: %w", err)}
				}
				left -= int64(len(piece))
				if err := stream.Send(&pb.ImportVersionRequest{
					Payload: &pb.ImportVersionRequest_Chunk{Chunk: piece}}); err != nil {
					return err
				}
			}
			return nil
		}
		receive := func() (err error) {
			version = &pb.Version{}
			return stream.RecvMsg(version)
		}
		return &upload{
			again: seeker != nil,
			send:  send, closeSend: stream.CloseSend, receive: receive,
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return version, nil
}
