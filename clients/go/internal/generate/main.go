// Command generate writes tipservepb from the repository's protos, or checks it.
//
//	go run .           # write
//	go run . --check   # exit 1 if what is committed is out of date
//
// It needs Go alone: the protos are compiled by protocompile, and go.mod pins
// protoc-gen-go and protoc-gen-go-grpc as tools.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// Where things lie, from this folder.
const (
	protoRoot   = "../../../../proto"
	ownProtos   = "tipserve/v1"
	out         = "../../tipservepb"
	importPath  = "github.com/tipserve/tipserve/clients/go/tipservepb"
	regenerates = "go -C clients/go/internal/generate run ."
)

// The plugins, by the import paths that go.mod pins.
var plugins = []string{
	"google.golang.org/protobuf/cmd/protoc-gen-go",
	"google.golang.org/grpc/cmd/protoc-gen-go-grpc",
}

func main() {
	check := flag.Bool("check", false, "change nothing, exit 1 if outdated")
	flag.Parse()
	made, err := generate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if *check {
		err = compare(made)
	} else {
		err = write(made)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// generate returns the generated files, by name.
func generate() (map[string]string, error) {
	request, err := compile()
	if err != nil {
		return nil, err
	}
	input, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	made := map[string]string{}
	for _, plugin := range plugins {
		run := exec.Command("go", "tool", plugin)
		run.Stdin = bytes.NewReader(input)
		run.Stderr = os.Stderr
		output, err := run.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", plugin, err)
		}
		var response pluginpb.CodeGeneratorResponse
		if err := proto.Unmarshal(output, &response); err != nil {
			return nil, fmt.Errorf("%s: %w", plugin, err)
		}
		if response.Error != nil {
			return nil, fmt.Errorf("%s: %s", plugin, response.GetError())
		}
		for _, file := range response.File {
			made[filepath.Base(file.GetName())] = file.GetContent()
		}
	}
	return made, nil
}

// compile reads the own protos and what they import.
func compile() (*pluginpb.CodeGeneratorRequest, error) {
	paths, err := fs.Glob(os.DirFS(protoRoot), ownProtos+"/*.proto")
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no protos under %s/%s (%v)", protoRoot, ownProtos, err)
	}
	slices.Sort(paths)
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{protoRoot}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), paths...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: paths,
		Parameter:      proto.String(parameter(paths)),
	}
	// Plugins want every file after those that it imports.
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		request.ProtoFile = append(request.ProtoFile, descriptor(file))
	}
	for _, file := range files {
		add(file)
	}
	for _, file := range request.ProtoFile {
		dropAnnotations(file)
	}
	return request, nil
}

// dropAnnotations leaves out what says how methods are called over HTTP: a gRPC client has no use
// for it, and its package would be one more that the client's users download.
func dropAnnotations(file *descriptorpb.FileDescriptorProto) {
	const annotations = "google/api/annotations.proto"
	if !slices.Contains(file.Dependency, annotations) {
		return
	}
	file.Dependency = slices.DeleteFunc(file.Dependency, func(path string) bool { return path == annotations })
	for _, service := range file.Service {
		for _, method := range service.Method {
			method.Options = nil
		}
	}
}

func descriptor(file protoreflect.FileDescriptor) *descriptorpb.FileDescriptorProto {
	if compiled, ok := file.(interface {
		FileDescriptorProto() *descriptorpb.FileDescriptorProto
	}); ok {
		return compiled.FileDescriptorProto()
	}
	return protodesc.ToFileDescriptorProto(file)
}

// parameter says which Go package the protos make: they name none themselves.
func parameter(paths []string) string {
	var words []string
	for _, path := range paths {
		words = append(words, fmt.Sprintf("M%s=%s", path, importPath))
	}
	return strings.Join(words, ",")
}

func write(made map[string]string) error {
	committed, err := read()
	if err != nil {
		return err
	}
	for name := range committed {
		if err := os.Remove(filepath.Join(out, name)); err != nil {
			return err
		}
	}
	for name, text := range made {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compare fails where what is committed differs from what would be made.
func compare(made map[string]string) error {
	committed, err := read()
	if err != nil {
		return err
	}
	both := maps.Clone(made)
	maps.Copy(both, committed)
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(both)) {
		if made[name] != committed[name] {
			wrong = append(wrong, fmt.Sprintf("clients/go/tipservepb/%s is out of date", name))
		}
	}
	if wrong == nil {
		return nil
	}
	return fmt.Errorf("%s\nrun: %s", strings.Join(wrong, "\n"), regenerates)
}

// read returns the generated files that are there; doc.go is written by hand.
func read() (map[string]string, error) {
	paths, err := filepath.Glob(filepath.Join(out, "*.pb.go"))
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		found[filepath.Base(path)] = string(text)
	}
	return found, nil
}
