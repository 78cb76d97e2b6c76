package tipserve_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// failing fails with a status the given number of times, then answers.
func failing(times int, why *status.Status, answer proto.Message) func(any) (any, error) {
	return func(any) (any, error) {
		if times--; times >= 0 {
			return nil, why.Err()
		}
		return answer, nil
	}
}

func TestErrorsCarryWhatTheServerSaid(t *testing.T) {
	rich, _ := status.New(codes.InvalidArgument, "top_k is -1, must be 0 or more").WithDetails(
		protoadapt.MessageV1Of(&errdetails.ErrorInfo{
			Reason: "FIELD_INVALID", Domain: "tipserve", Metadata: map[string]string{"value": "-1"}}),
		protoadapt.MessageV1Of(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "options.top_k", Description: "must be 0 or more"}}}),
		protoadapt.MessageV1Of(&errdetails.RequestInfo{RequestId: "r-17"}),
	)
	f := start(t, &fake{unary: map[string]func(any) (any, error){"GetVersion": failing(1, rich, nil)}})
	_, err := dial(t, f.address).GetVersion(within(t), "pets")
	var failure *tipserve.Error
	if !errors.As(err, &failure) {
		t.Fatal(err)
	}
	if failure.Code != codes.InvalidArgument || failure.Reason != "FIELD_INVALID" ||
		failure.Domain != "tipserve" || failure.Metadata["value"] != "-1" || failure.RequestID != "r-17" ||
		!slices.Equal(failure.Violations, []tipserve.FieldViolation{{"options.top_k", "must be 0 or more"}}) ||
		len(failure.Details) != 3 {
		t.Errorf("%#v", failure)
	}
	if _, ok := failure.RetryDelay(); ok {
		t.Error("a retry delay that the server did not name")
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Error("status.Code does not see the code")
	}
	if want := "InvalidArgument: top_k is -1, must be 0 or more [FIELD_INVALID] (request r-17)"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestEveryCodeHasItsError(t *testing.T) {
	kinds := map[codes.Code]error{
		codes.InvalidArgument: tipserve.ErrInvalidArgument, codes.NotFound: tipserve.ErrNotFound,
		codes.AlreadyExists: tipserve.ErrAlreadyExists, codes.FailedPrecondition: tipserve.ErrFailedPrecondition,
		codes.Aborted: tipserve.ErrAborted, codes.ResourceExhausted: tipserve.ErrExhausted,
		codes.OutOfRange: tipserve.ErrOutOfRange, codes.DeadlineExceeded: tipserve.ErrDeadlineExceeded,
		codes.Canceled: tipserve.ErrCanceled, codes.Unavailable: tipserve.ErrUnavailable,
		codes.Unauthenticated: tipserve.ErrUnauthenticated, codes.PermissionDenied: tipserve.ErrPermissionDenied,
		codes.Unimplemented: tipserve.ErrUnimplemented, codes.DataLoss: tipserve.ErrDataLoss,
		codes.Internal: tipserve.ErrInternal, codes.Unknown: tipserve.ErrUnknown,
	}
	f := start(t, &fake{unary: map[string]func(any) (any, error){}})
	client := dial(t, f.address, tipserve.WithRetry(tipserve.NoRetry))
	for code, want := range kinds {
		f.unary["GetVersion"] = failing(1, status.New(code, "no"), nil)
		_, err := client.GetVersion(within(t), "pets")
		for other, kind := range kinds {
			if errors.Is(err, kind) != (other == code) {
				t.Errorf("%v is %v: %v", err, kind, errors.Is(err, kind))
			}
		}
		if errors.Is(err, tipserve.ErrConflict) != (want == tipserve.ErrAborted) ||
			errors.Is(err, context.Canceled) != (want == tipserve.ErrCanceled) ||
			errors.Is(err, context.DeadlineExceeded) != (want == tipserve.ErrDeadlineExceeded) {
			t.Errorf("%v as a conflict or the context's end", err)
		}
	}
	f.unary["GetVersion"] = failing(1, refusal(codes.FailedPrecondition, "CONFLICT", "an alias", -1), nil)
	if _, err := client.GetVersion(within(t), "pets"); !errors.Is(err, tipserve.ErrConflict) {
		t.Error(err)
	}
}

func TestReadingIsRepeated(t *testing.T) {
	unavailable := status.New(codes.Unavailable, "down")
	full := refusal(codes.ResourceExhausted, "QUEUE_FULL", "full", time.Millisecond)
	final := refusal(codes.ResourceExhausted, "CACHE_TOO_LARGE", "too large", -1)
	tooLong := refusal(codes.ResourceExhausted, "QUEUE_FULL", "full", time.Hour)
	cases := []struct {
		why   *status.Status
		fails int
		tries int
		works bool
	}{
		{unavailable, 2, 3, true},
		{full, 4, 5, true},
		{unavailable, 100, 5, false},
		{final, 1, 1, false},
		{tooLong, 1, 1, false},
		{status.New(codes.Internal, "a defect"), 1, 1, false},
		{status.New(codes.InvalidArgument, "wrong"), 1, 1, false},
	}
	for _, c := range cases {
		f := start(t, &fake{unary: map[string]func(any) (any, error){
			"GetCache": failing(c.fails, c.why, &pb.Cache{Name: "caches/pets"})}})
		cache, err := dial(t, f.address).GetCache(within(t), "pets")
		if (err == nil) != c.works || c.works && cache.GetName() != "caches/pets" {
			t.Errorf("%v: %v", c.why, err)
		}
		if got := f.count("GetCache"); got != c.tries {
			t.Errorf("%v: %d tries, want %d", c.why, got, c.tries)
		}
	}
}

func TestADelayBeyondTheBoundIsNotWaitedFor(t *testing.T) {
	f := start(t, &fake{unary: map[string]func(any) (any, error){
		"GetCache": failing(1, refusal(codes.Unavailable, "STORE_UNAVAILABLE", "", 20*time.Millisecond), &pb.Cache{})}})
	policy := fast
	policy.MaxServerDelay = 10 * time.Millisecond
	_, err := dial(t, f.address, tipserve.WithRetry(policy)).GetCache(within(t), "pets")
	if !errors.Is(err, tipserve.ErrUnavailable) || f.count("GetCache") != 1 {
		t.Errorf("%v after %d tries", err, f.count("GetCache"))
	}
}

func TestTheServersDelayIsKept(t *testing.T) {
	var times []time.Time
	f := start(t, &fake{unary: map[string]func(any) (any, error){"GetCache": func(any) (any, error) {
		times = append(times, time.Now())
		if len(times) == 1 {
			return nil, refusal(codes.Unavailable, "STORE_UNAVAILABLE", "", 80*time.Millisecond).Err()
		}
		return &pb.Cache{}, nil
	}}})
	if _, err := dial(t, f.address).GetCache(within(t), "pets"); err != nil {
		t.Fatal(err)
	}
	// The server's own clock, and a lower bound only: nothing that load can break.
	if waited := times[1].Sub(times[0]); waited < 80*time.Millisecond {
		t.Errorf("waited %v, the server asked for 80 ms", waited)
	}
}

func TestNoRepetitionBeyondTheDeadline(t *testing.T) {
	f := start(t, &fake{unary: map[string]func(any) (any, error){
		"GetCache": failing(9, refusal(codes.Unavailable, "STORE_UNAVAILABLE", "", 30*time.Second), nil)}})
	ctx, cancel := context.WithTimeout(within(t), 10*time.Second)
	defer cancel()
	_, err := dial(t, f.address).GetCache(ctx, "pets")
	// The server's own words, at once, and not "deadline exceeded" in the end.
	if !errors.Is(err, tipserve.ErrUnavailable) || ctx.Err() != nil || f.count("GetCache") != 1 {
		t.Errorf("%v after %d tries", err, f.count("GetCache"))
	}
}

func TestChangesAreNotRepeated(t *testing.T) {
	unavailable := status.New(codes.Unavailable, "down")
	f := start(t, &fake{unary: map[string]func(any) (any, error){}})
	for _, name := range []string{"DeleteCache", "SetAlias", "DeleteAlias", "DeleteVersion", "PruneVersions"} {
		f.unary[name] = failing(9, unavailable, nil)
	}
	client, ctx := dial(t, f.address), within(t)
	calls := map[string]func() error{
		"DeleteCache":   func() error { return client.DeleteCache(ctx, "pets") },
		"DeleteVersion": func() error { return client.DeleteVersion(ctx, "pets@1") },
		"SetAlias":      func() error { _, err := client.SetAlias(ctx, "pets", "stable", 1); return err },
		"DeleteAlias":   func() error { _, err := client.DeleteAlias(ctx, "pets", "stable"); return err },
		"PruneVersions": func() error { _, err := client.PruneVersions(ctx, "pets", 1); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, tipserve.ErrUnavailable) || f.count(name) != 1 {
			t.Errorf("%s: %v after %d tries", name, err, f.count(name))
		}
	}
	// Saying what would go changes nothing.
	f.unary["PruneVersions"] = failing(1, unavailable, &pb.PruneVersionsResponse{DeletedVersions: []int64{2, 1}})
	if would, err := client.PrunableVersions(ctx, "pets", 1); err != nil || !slices.Equal(would, []int64{2, 1}) {
		t.Error(would, err)
	}
}

func TestConditionsAndChoicesAreSent(t *testing.T) {
	var got []any
	note := func(answer proto.Message) func(any) (any, error) {
		return func(request any) (any, error) {
			got = append(got, request)
			return answer, nil
		}
	}
	pets := &pb.Cache{Name: "caches/pets", Etag: "e2"}
	f := start(t, &fake{unary: map[string]func(any) (any, error){
		"SetAlias": note(pets), "DeleteAlias": note(pets),
		"PruneVersions": note(&pb.PruneVersionsResponse{DeletedVersions: []int64{3}}),
		"ListCaches":    note(&pb.ListCachesResponse{Caches: []*pb.Cache{pets}}),
		"ListVersions":  note(&pb.ListVersionsResponse{}),
		"ListExamples":  note(&pb.ListExamplesResponse{}),
		"GetCache":      note(pets),
	}})
	client, ctx := dial(t, f.address), within(t)
	must(client.SetAlias(ctx, "pets", "stable", 4, tipserve.IfMatch("e1")))(t)
	must(client.DeleteAlias(ctx, "pets", "old", tipserve.IfMatch("e1")))(t)
	must(client.PruneVersions(ctx, "pets", 2, tipserve.IfMatch("e1")))(t)
	for cache, err := range client.Caches(ctx, tipserve.Filter("class_count > 2"), tipserve.PageSize(7), tipserve.Fields("name")) {
		if err != nil || cache.GetEtag() != "e2" {
			t.Fatal(cache, err)
		}
	}
	for range client.Versions(ctx, "pets", tipserve.PageSize(3)) {
	}
	for range client.ExamplesOf(ctx, "pets@2", tipserve.Filter("validation = true")) {
	}
	must(client.GetCache(ctx, "pets", tipserve.Fields("etag")))(t)
	want := []string{
		`cache:"pets" alias:"stable" version:4 etag:"e1"`,
		`cache:"pets" alias:"old" etag:"e1"`,
		`name:"pets" keep:2 etag:"e1"`,
		`page_size:7 read_mask:{paths:"name"} filter:"class_count > 2"`,
		`parent:"pets" page_size:3`,
		`parent:"pets@2" filter:"validation = true"`,
		`name:"pets" read_mask:{paths:"etag"}`,
	}
	for i, request := range got {
		if text := compact(request); text != want[i] {
			t.Errorf("sent %s, want %s", text, want[i])
		}
	}
}

// compact is a message as text without protobuf's random spaces.
func compact(message any) string {
	text := fmt.Sprint(message)
	var made []rune
	for _, r := range text {
		if r == ' ' && len(made) > 0 && made[len(made)-1] == ' ' {
			continue
		}
		made = append(made, r)
	}
	return string(made)
}

func TestRollback(t *testing.T) {
	var request *pb.SetAliasRequest
	pets := &pb.Cache{Name: "caches/pets", Etag: "e7", Aliases: map[string]int64{"stable": 5, "first": 2}}
	f := start(t, &fake{unary: map[string]func(any) (any, error){
		"GetCache": failing(0, nil, pets),
		"ListVersions": failing(0, nil, &pb.ListVersionsResponse{
			Versions: []*pb.Version{{Version: 6}, {Version: 5}, {Version: 3}, {Version: 2}}}),
		"SetAlias": func(got any) (any, error) {
			request = got.(*pb.SetAliasRequest)
			return pets, nil
		},
	}})
	client := dial(t, f.address)
	must(client.Rollback(within(t), "pets", "stable"))(t)
	if request.GetVersion() != 3 || request.GetAlias() != "stable" || request.GetEtag() != "e7" {
		t.Error(request)
	}
	if _, err := client.Rollback(within(t), "pets", "first"); !errors.Is(err, tipserve.ErrFailedPrecondition) {
		t.Error(err)
	}
	if _, err := client.Rollback(within(t), "pets", "none"); !errors.Is(err, tipserve.ErrNotFound) {
		t.Error(err)
	}
}

func TestListsGoThroughAllPages(t *testing.T) {
	f := start(t, &fake{unary: map[string]func(any) (any, error){"ListCaches": func(request any) (any, error) {
		page := &pb.ListCachesResponse{}
		var first int
		fmt.Sscan(request.(*pb.ListCachesRequest).GetPageToken(), &first)
		for i := first; i < first+2; i++ {
			page.Caches = append(page.Caches, &pb.Cache{Name: fmt.Sprint("caches/", i)})
		}
		switch first {
		case 4:
			return nil, status.Error(codes.DataLoss, "damaged")
		default:
			page.NextPageToken = fmt.Sprint(first + 2)
		}
		return page, nil
	}}})
	client := dial(t, f.address)
	var names []string
	var failed error
	for cache, err := range client.Caches(within(t)) {
		if err != nil {
			failed = err
			continue
		}
		names = append(names, cache.GetName())
	}
	if !slices.Equal(names, []string{"caches/0", "caches/1", "caches/2", "caches/3"}) ||
		!errors.Is(failed, tipserve.ErrDataLoss) {
		t.Error(names, failed)
	}
	before := f.count("ListCaches")
	for range client.Caches(within(t)) {
		break
	}
	if f.count("ListCaches") != before+1 {
		t.Error("a list that is left fetches on")
	}
}

func TestHeadersAndTokensAreSent(t *testing.T) {
	f := start(t, &fake{})
	turn := 0
	client := dial(t, f.address, tipserve.WithHeader("X-Team", "weaving"),
		tipserve.WithTokenSource(func(context.Context) (string, error) {
			turn++
			return fmt.Sprint("secret-", turn), nil
		}))
	must(client.GetVersion(within(t), "pets"))(t)
	if _, err := collect(client.Classify(within(t), "pets", numbered(1))); err != nil {
		t.Fatal(err)
	}
	for i, headers := range f.headers {
		if got := headers.Get("authorization"); !slices.Equal(got, []string{fmt.Sprint("Bearer secret-", i+1)}) {
			t.Errorf("call %d: authorization %v", i, got)
		}
		if got := headers.Get("x-team"); !slices.Equal(got, []string{"weaving"}) {
			t.Errorf("call %d: x-team %v", i, got)
		}
	}
	if len(f.headers) < 3 {
		t.Errorf("%d calls", len(f.headers))
	}
}

func TestTheTimeoutBoundsCallsWithoutADeadline(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	f := start(t, &fake{unary: map[string]func(any) (any, error){"GetCache": func(any) (any, error) {
		<-stuck
		return &pb.Cache{}, nil
	}}})
	client := dial(t, f.address, tipserve.WithTimeout(50*time.Millisecond))
	if _, err := client.GetCache(context.Background(), "pets"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestClassifyOne(t *testing.T) {
	f := start(t, &fake{})
	client := dial(t, f.address)
	got := must(client.ClassifyOne(within(t), "pets", tipserve.FromBytes([]byte("a cat"))))(t)
	if got.GetTop()[0].GetDisplayName() != "a cat" {
		t.Error(got)
	}
	_, err := client.ClassifyOne(within(t), "pets", tipserve.FromBytes(nil))
	if !errors.Is(err, tipserve.ErrInvalidArgument) || f.count("Classify") != 1 {
		t.Error(err)
	}
}

func TestEmbeddingsComeInOrder(t *testing.T) {
	f := start(t, &fake{limits: map[string]int64{"max_message_bytes": 10_000}, unary: map[string]func(any) (any, error){
		"Embed": func(request any) (any, error) {
			response := &pb.EmbedResponse{}
			for _, input := range request.(*pb.EmbedRequest).GetInputs() {
				size := float32(len(input.GetEncodedImage()))
				response.Inputs = append(response.Inputs, &pb.EmbedResult{
					Outcome: &pb.EmbedResult_Embedding{Embedding: &pb.Embedding{Values: []float32{size}}}})
			}
			for _, text := range request.(*pb.EmbedRequest).GetTexts() {
				result := &pb.EmbedResult{Outcome: &pb.EmbedResult_Embedding{
					Embedding: &pb.Embedding{Values: []float32{float32(len(text))}}}}
				if text == "bad" {
					result.Outcome = &pb.EmbedResult_Error{
						Error: refusal(codes.InvalidArgument, "TEXT_INVALID", "bad", -1).Proto()}
				}
				response.Texts = append(response.Texts, result)
			}
			return response, nil
		}}})
	client := dial(t, f.address)
	rng := random(t)
	var pictures []tipserve.Picture
	var sizes []int
	for range 200 {
		size := rng.IntN(8000) // 0 is an empty picture, over 5904 one too large
		sizes = append(sizes, size)
		pictures = append(pictures, tipserve.FromBytes(make([]byte, size)))
	}
	for i, one := range must(client.EmbedPictures(within(t), pictures))(t) {
		fits := sizes[i] > 0 && sizes[i]+3 <= 10_000-4096
		if fits != (one.Err == nil) || fits && one.Values[0] != float32(sizes[i]) {
			t.Errorf("picture %d of %d bytes: %v", i, sizes[i], one)
		}
	}
	texts := must(client.EmbedTexts(within(t), []string{"one", "bad", "three"}))(t)
	if texts[0].Values[0] != 3 || !errors.Is(texts[1].Err, tipserve.ErrInvalidArgument) || texts[2].Values[0] != 5 {
		t.Error(texts)
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for name, option := range map[string]tipserve.Option{
		"a missing CA":          tipserve.WithCA("no/such.pem"),
		"a missing certificate": tipserve.WithClientCertificate("no/such.pem", "no/such.key"),
		"a negative timeout":    tipserve.WithTimeout(-1),
		"a shrinking delay":     tipserve.WithRetry(tipserve.RetryPolicy{}),
		"no source of tokens":   tipserve.WithTokenSource(nil),
	} {
		if _, err := tipserve.New("127.0.0.1:1", option); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := tipserve.New("http://"); err == nil {
		t.Error("an empty address is taken")
	}
}

func TestNobodyListens(t *testing.T) {
	f := start(t, &fake{})
	f.stop()
	_, err := dial(t, f.address).ServerInfo(within(t))
	if !errors.Is(err, tipserve.ErrUnavailable) {
		t.Error(err)
	}
}
