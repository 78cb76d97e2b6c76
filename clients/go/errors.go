package tipserve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// What can go wrong, for errors.Is. An *Error matches the one for its code;
// one whose code is DEADLINE_EXCEEDED or CANCELLED also matches
// context.DeadlineExceeded or context.Canceled.
var (
	// ErrInvalidArgument: the request is wrong, whatever the server's state.
	ErrInvalidArgument error = kind(codes.InvalidArgument)
	// ErrNotFound: what was named is not there.
	ErrNotFound error = kind(codes.NotFound)
	// ErrAlreadyExists: what was to be made is there already.
	ErrAlreadyExists error = kind(codes.AlreadyExists)
	// ErrFailedPrecondition: not possible in the state that things are in.
	ErrFailedPrecondition error = kind(codes.FailedPrecondition)
	// ErrAborted: somebody else changed the same thing first (an etag is old).
	ErrAborted error = kind(codes.Aborted)
	// ErrConflict: ErrAborted, or the reason CONFLICT: look, and decide again.
	ErrConflict = errors.New("tipserve: conflict")
	// ErrExhausted: a limit or a queue is full; see [Error.RetryDelay].
	ErrExhausted error = kind(codes.ResourceExhausted)
	// ErrOutOfRange: over a bound, for instance of a message's size.
	ErrOutOfRange error = kind(codes.OutOfRange)
	// ErrDeadlineExceeded: it took longer than was allowed.
	ErrDeadlineExceeded error = kind(codes.DeadlineExceeded)
	// ErrCanceled: the call was cancelled.
	ErrCanceled error = kind(codes.Canceled)
	// ErrUnavailable: the server cannot be reached, or is going away.
	ErrUnavailable error = kind(codes.Unavailable)
	// ErrUnauthenticated: a token is missing or unknown.
	ErrUnauthenticated error = kind(codes.Unauthenticated)
	// ErrPermissionDenied: the token does not allow this.
	ErrPermissionDenied error = kind(codes.PermissionDenied)
	// ErrUnimplemented: the server does not know this call; it may be older
	// than the client.
	ErrUnimplemented error = kind(codes.Unimplemented)
	// ErrDataLoss: stored data is damaged.
	ErrDataLoss error = kind(codes.DataLoss)
	// ErrInternal: the server made a mistake.
	ErrInternal error = kind(codes.Internal)
	// ErrUnknown: an error without a code of its own.
	ErrUnknown error = kind(codes.Unknown)
)

// kind is the target of errors.Is for a code.
type kind codes.Code

func (k kind) Error() string { return "tipserve: " + codes.Code(k).String() }

// Reasons that the client itself gives; docs/api.md lists the server's.
const (
	// ReasonPictureTooLarge: the picture does not fit into one message.
	ReasonPictureTooLarge = "PICTURE_TOO_LARGE"
	// ReasonPictureEmpty: the picture has no bytes or no pixels.
	ReasonPictureEmpty = "PICTURE_EMPTY"
	// ReasonPictureShape: pixels do not fit width and height.
	ReasonPictureShape = "PICTURE_SHAPE"
	// ReasonEmbeddingEmpty: the embedding has no values.
	ReasonEmbeddingEmpty = "EMBEDDING_EMPTY"
	// ReasonFileUnreadable: a picture's file cannot be read.
	ReasonFileUnreadable = "FILE_UNREADABLE"
	// ReasonFolderUnreadable: a folder cannot be read.
	ReasonFolderUnreadable = "FOLDER_UNREADABLE"
	// ReasonFolderWithoutClasses: a folder has no folders, one a class, in it.
	ReasonFolderWithoutClasses = "FOLDER_WITHOUT_CLASSES"
	// ReasonItemUnusable: an item cannot be sent for another cause.
	ReasonItemUnusable = "ITEM_UNUSABLE"
	// ReasonTimeLimitExceeded: an item's time limit passed without an answer.
	ReasonTimeLimitExceeded = "TIME_LIMIT_EXCEEDED"
	// ReasonClassUnknown: an example names a class that is not one of the cache's.
	ReasonClassUnknown = "CLASS_UNKNOWN"
	// ReasonClassName: a class's name holds a control character.
	ReasonClassName = "CLASS_NAME"
	// ReasonFolderOfSplits: a folder holds the parts of a data set (train, val,
	// test), not classes.
	ReasonFolderOfSplits = "FOLDER_OF_SPLITS"
	// ReasonServerUnreachable: no server answers at the address.
	ReasonServerUnreachable = "SERVER_UNREACHABLE"
	// ReasonClientClosed: the client was closed.
	ReasonClientClosed = "CLIENT_CLOSED"
	// ReasonTimeout: the client's own timeout passed without an answer.
	ReasonTimeout = "TIMEOUT"
	// ReasonTruncated: a transfer ended early, or carried other bytes than announced.
	ReasonTruncated = "TRUNCATED"
)

// Error is a call, or one item of a call, that failed, with everything that
// the server said. Every error of this package that is not the caller's own is
// one, to be had with errors.As.
type Error struct {
	// Code is the canonical code.
	Code codes.Code
	// Message is the reason, for people.
	Message string
	// Reason is the reason, for programs: "PICTURE_UNDECODABLE" (google.rpc.ErrorInfo).
	Reason string
	// Domain is who gave the reason; empty if the client itself did.
	Domain string
	// Metadata is what the reason is about: names, limits, values.
	Metadata map[string]string
	// Violations are the fields that were not accepted (google.rpc.BadRequest).
	Violations []FieldViolation
	// RequestID is the server's id of the request, for its logs.
	RequestID string
	// Details are all detail messages of known types.
	Details []proto.Message

	retryDelay    time.Duration
	hasRetryDelay bool
	cause         error
}

// FieldViolation is a field of the request that the server does not accept.
type FieldViolation struct {
	// Field is the path to it: "spec.cache_id".
	Field string
	// Description is what is wrong with it.
	Description string
}

// RetryDelay is the time after which to try again (google.rpc.RetryInfo);
// false if the server named none.
func (e *Error) RetryDelay() (time.Duration, bool) { return e.retryDelay, e.hasRetryDelay }

// Error says code, message, reason and fields.
func (e *Error) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", e.Code, e.Message)
	if e.Reason != "" {
		fmt.Fprintf(&text, " [%s]", e.Reason)
	}
	for _, violation := range e.Violations {
		// A message that is the violation itself need not be said twice.
		if !strings.Contains(e.Message, violation.Description) {
			fmt.Fprintf(&text, "; %s: %s", violation.Field, violation.Description)
		}
	}
	if e.RequestID != "" {
		fmt.Fprintf(&text, " (request %s)", e.RequestID)
	}
	return text.String()
}

// Is makes errors.Is(err, ErrNotFound) and the like work.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrConflict:
		return e.Code == codes.Aborted || e.Reason == "CONFLICT"
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	case context.Canceled:
		return e.Code == codes.Canceled
	}
	k, ok := target.(kind)
	return ok && codes.Code(k) == e.Code
}

// Unwrap returns what caused an error of the client's own, for instance an
// *fs.PathError.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus makes status.FromError and status.Code work.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// fromStatus unpacks a google.rpc.Status.
func fromStatus(s *rpcstatus.Status) *Error {
	made := &Error{Code: codes.Code(s.GetCode()), Message: s.GetMessage()}
	if made.Code == codes.OK {
		// A failure that says it is none.
		made.Code = codes.Unknown
	}
	for _, packed := range s.GetDetails() {
		detail, err := packed.UnmarshalNew()
		if err != nil {
			continue // of an unknown type, or damaged: the code is what counts
		}
		made.Details = append(made.Details, detail)
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			made.Reason = detail.GetReason()
			made.Domain = detail.GetDomain()
			made.Metadata = maps.Clone(detail.GetMetadata())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				made.Violations = append(made.Violations,
					FieldViolation{violation.GetField(), violation.GetDescription()})
			}
		case *errdetails.RetryInfo:
			made.retryDelay = max(detail.GetRetryDelay().AsDuration(), 0)
			made.hasRetryDelay = detail.GetRetryDelay() != nil
		case *errdetails.RequestInfo:
			made.RequestID = detail.GetRequestId()
		}
	}
	return made
}

// fromCall is the *Error for what a gRPC call returned.
func fromCall(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = status.FromContextError(err).Err()
	}
	made := fromStatus(status.Convert(err).Proto())
	// The details that this client has no type for are still in there.
	made.cause = err
	return made
}

// invalid is an error of the client's own.
func invalid(reason, format string, args ...any) *Error {
	made := &Error{Code: codes.InvalidArgument, Reason: reason}
	wrapped := fmt.Errorf(format, args...)
	made.Message, made.cause = wrapped.Error(), errors.Unwrap(wrapped)
	return made
}

// with adds metadata.
func (e *Error) with(keysAndValues ...string) *Error {
	e.Metadata = map[string]string{}
	for pair := range slices.Chunk(keysAndValues, 2) {
		e.Metadata[pair[0]] = pair[1]
	}
	return e
}
