// Package tipservepb holds the messages and services of tipserve.v1, generated
// from proto/tipserve/v1 of the repository by internal/generate.
package tipservepb
