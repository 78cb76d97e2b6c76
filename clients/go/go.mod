module github.com/tipserve/tipserve/clients/go

// The oldest Go that the newest maintained gRPC of this line builds with, and
// what Debian 13 has.
go 1.24.0

require (
	go.uber.org/goleak v1.3.0
	golang.org/x/text v0.32.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20251202230838-ff82c1b0f217
	google.golang.org/grpc v1.79.3
	google.golang.org/protobuf v1.36.11
)

require (
	golang.org/x/net v0.48.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
)
