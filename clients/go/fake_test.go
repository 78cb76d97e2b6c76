package tipserve_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// refusal is a rich status; a negative retry means none.
func refusal(code codes.Code, reason, message string, retry time.Duration) *status.Status {
	details := []protoadapt.MessageV1{
		protoadapt.MessageV1Of(&errdetails.ErrorInfo{
			Reason: reason, Domain: "tipserve", Metadata: map[string]string{"limit": "7"}}),
	}
	if retry >= 0 {
		details = append(details,
			protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(retry)}))
	}
	made, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return made
}

type itemStream = grpc.BidiStreamingServer[pb.ClassifyStreamRequest, pb.ClassifyStreamResponse]

// connection is one ClassifyStream that the fake serves.
type connection struct {
	itemStream
	fake   *fake
	number int
	next   uint64
	queue  []*pb.Item
}

// item receives the next item; false at the end.
func (c *connection) item() (*pb.Item, uint64, bool) {
	for len(c.queue) == 0 {
		request, err := c.Recv()
		if err != nil {
			return nil, 0, false
		}
		c.fake.mu.Lock()
		c.fake.sizes = append(c.fake.sizes, proto.Size(request))
		if request.GetConfig() != nil {
			c.fake.configs = append(c.fake.configs, request.GetConfig())
		}
		c.fake.mu.Unlock()
		c.queue = append(c.queue, request.GetItems().GetItems()...)
	}
	item := c.queue[0]
	c.queue = c.queue[1:]
	c.fake.mu.Lock()
	c.fake.received[c.number] = append(c.fake.received[c.number], item.GetId())
	c.fake.mu.Unlock()
	c.next++
	return item, c.next - 1, true
}

// answer sends an answer by which the picture can be told: its bytes are the
// class's name.
func (c *connection) answer(item *pb.Item, sequence uint64) error {
	return c.Send(&pb.ClassifyStreamResponse{Results: []*pb.ItemResult{{
		Id: item.GetId(), Sequence: sequence,
		Outcome: &pb.ItemResult_Classification{Classification: echoed(item.GetInput())},
	}}})
}

func echoed(input *pb.Input) *pb.Classification {
	return &pb.Classification{
		Version: "caches/pets/versions/1",
		Top: []*pb.ClassScore{{
			DisplayName: string(input.GetEncodedImage()), Logit: 1, Probability: 1}},
	}
}

// refuse sends an item's error.
func (c *connection) refuse(item *pb.Item, sequence uint64, why *status.Status) error {
	return c.Send(&pb.ClassifyStreamResponse{Results: []*pb.ItemResult{{
		Id: item.GetId(), Sequence: sequence, Outcome: &pb.ItemResult_Error{Error: why.Proto()},
	}}})
}

type behaviour func(*connection) error

// echo answers every item at once.
func echo(c *connection) error {
	for {
		item, sequence, more := c.item()
		if !more {
			return nil
		}
		if err := c.answer(item, sequence); err != nil {
			return err
		}
	}
}

// fake is a server that does what a test tells it to, over real connections.
// It stands in for what a real server does only rarely and on nobody's word:
// dying in mid-stream, refusing, answering twice, answering out of order.
type fake struct {
	pb.UnimplementedCacheServiceServer
	pb.UnimplementedClassifyServiceServer
	pb.UnimplementedFineTuneServiceServer

	address string
	options []grpc.ServerOption
	limits  map[string]int64
	bundle  *pb.BundleInfo // what it says it serves; nil: pictures of 32 × 32

	// What tests replace. unary is asked first, by the call's name.
	unary    map[string]func(request any) (any, error)
	streams  []behaviour // of each connection in turn; after the last: echo
	create   func(try int, stream grpc.BidiStreamingServer[pb.CreateCacheRequest, pb.CreateCacheResponse]) error
	add      func(grpc.BidiStreamingServer[pb.AddExamplesRequest, pb.AddExamplesResponse]) error
	evaluate func(try int, stream grpc.ClientStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error
	export   func(try int, stream grpc.ServerStreamingServer[pb.ExportVersionResponse]) error
	take     func(try int, stream grpc.ClientStreamingServer[pb.ImportVersionRequest, pb.Version]) error
	tune     func(*pb.FineTuneRequest, grpc.ServerStreamingServer[pb.FineTuneResponse]) error

	mu       sync.Mutex
	calls    []string
	tries    map[string]int
	headers  []metadata.MD
	configs  []*pb.ClassifyStreamConfig
	received [][]string // ids of the items of each connection
	sizes    []int
	server   *grpc.Server
	listener *cuttable
}

// start serves until the test ends.
func start(t testing.TB, f *fake) *fake {
	t.Helper()
	if f.limits == nil {
		f.limits = map[string]int64{"max_message_bytes": 64 << 10}
	}
	f.tries = map[string]int{}
	f.listen(t)
	t.Cleanup(f.stop)
	return f
}

// listen begins to serve, on the address of before if there was one.
func (f *fake) listen(t testing.TB) {
	t.Helper()
	address := f.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.address = listener.Addr().String()
	f.listener = &cuttable{Listener: listener}
	f.server = grpc.NewServer(append(f.options, grpc.UnaryInterceptor(f.intercept))...)
	pb.RegisterCacheServiceServer(f.server, f)
	pb.RegisterClassifyServiceServer(f.server, f)
	pb.RegisterFineTuneServiceServer(f.server, f)
	server, cut := f.server, f.listener
	go server.Serve(cut)
}

// stop ends serving, and every call.
func (f *fake) stop() {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	server.Stop()
}

// cut breaks every connection without a word.
func (f *fake) cut() {
	f.mu.Lock()
	listener := f.listener
	f.mu.Unlock()
	listener.cut()
}

// cuttable keeps connections, to break them.
type cuttable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *cuttable) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *cuttable) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	l.conns = nil
}

// log notes a call and returns its number among those of its name, from 0.
func (f *fake) log(ctx context.Context, name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	headers, _ := metadata.FromIncomingContext(ctx)
	f.headers = append(f.headers, headers)
	f.calls = append(f.calls, name)
	f.tries[name]++
	return f.tries[name] - 1
}

// count is how often a call was made.
func (f *fake) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries[name]
}

func (f *fake) intercept(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	name := info.FullMethod[len(info.FullMethod)-lastPart(info.FullMethod):]
	f.log(ctx, name)
	if do := f.unary[name]; do != nil {
		return do(request)
	}
	return handler(ctx, request)
}

func lastPart(method string) int {
	for i := len(method) - 1; i >= 0; i-- {
		if method[i] == '/' {
			return len(method) - 1 - i
		}
	}
	return len(method)
}

func (f *fake) GetServerInfo(context.Context, *pb.GetServerInfoRequest) (*pb.ServerInfo, error) {
	bundle := f.bundle
	if bundle == nil {
		bundle = &pb.BundleInfo{Name: "fake", Width: 4, ImageSize: 32}
	}
	return &pb.ServerInfo{Version: "0", Limits: f.limits, Bundle: bundle}, nil
}

func (f *fake) Classify(_ context.Context, request *pb.ClassifyRequest) (*pb.ClassifyResponse, error) {
	return &pb.ClassifyResponse{Classification: echoed(request.GetInput())}, nil
}

func (f *fake) GetVersion(context.Context, *pb.GetVersionRequest) (*pb.Version, error) {
	return &pb.Version{Name: "caches/pets/versions/1", Version: 1,
		Classes: []*pb.ClassInfo{{Index: 0, DisplayName: "cat"}, {Index: 1, DisplayName: "dog"}}}, nil
}

func (f *fake) DeleteCache(context.Context, *pb.DeleteCacheRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (f *fake) ClassifyStream(stream itemStream) error {
	f.log(stream.Context(), "ClassifyStream")
	f.mu.Lock()
	number := len(f.received)
	f.received = append(f.received, nil)
	do := echo
	if number < len(f.streams) {
		do = f.streams[number]
	}
	f.mu.Unlock()
	return do(&connection{itemStream: stream, fake: f, number: number})
}

func (f *fake) CreateCache(stream grpc.BidiStreamingServer[pb.CreateCacheRequest, pb.CreateCacheResponse]) error {
	return f.create(f.log(stream.Context(), "CreateCache"), stream)
}

func (f *fake) AddExamples(stream grpc.BidiStreamingServer[pb.AddExamplesRequest, pb.AddExamplesResponse]) error {
	f.log(stream.Context(), "AddExamples")
	return f.add(stream)
}

func (f *fake) Evaluate(stream grpc.ClientStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	return f.evaluate(f.log(stream.Context(), "Evaluate"), stream)
}

func (f *fake) ExportVersion(
	_ *pb.ExportVersionRequest, stream grpc.ServerStreamingServer[pb.ExportVersionResponse],
) error {
	return f.export(f.log(stream.Context(), "ExportVersion"), stream)
}

func (f *fake) ImportVersion(stream grpc.ClientStreamingServer[pb.ImportVersionRequest, pb.Version]) error {
	return f.take(f.log(stream.Context(), "ImportVersion"), stream)
}

func (f *fake) FineTune(
	request *pb.FineTuneRequest, stream grpc.ServerStreamingServer[pb.FineTuneResponse],
) error {
	f.log(stream.Context(), "FineTune")
	return f.tune(request, stream)
}
