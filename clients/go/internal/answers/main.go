// Command answers prints what a server answers for every file under a folder,
// a JSON document a line, and what a version made of a folder holds: tests
// compare it with what the command line and the Python client get.
//
//	answers -server HOST:PORT -cache c [-resize] FOLDER
//	answers -server HOST:PORT -cache new -create FOLDER
//	answers -server HOST:PORT -cache new -create -list FILE
//	answers -server HOST:PORT -cache c -evaluate [-list] FOLDER|FILE
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// answer is one file's: the reason why there is none, or the embedding.
type answer struct {
	ID        string    `json:"id"`
	Reason    string    `json:"reason,omitempty"`
	Embedding []float32 `json:"embedding,omitempty"`
	Notes     []string  `json:"notes,omitempty"`
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "answers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	server := flag.String("server", "", "the server's `host:port`")
	cache := flag.String("cache", "", "the cache to ask, or to make")
	resize := flag.Bool("resize", false, "resize here")
	create := flag.Bool("create", false, "make the cache of the folder, and print what was rejected")
	evaluate := flag.Bool("evaluate", false, "say how well the cache does")
	list := flag.Bool("list", false, "the examples are in a file that lists them")
	flag.Parse()
	options := []tipserve.Option{}
	if *resize {
		options = append(options, tipserve.WithResize(tipserve.ResizeOnClient))
	}
	client, err := tipserve.New(*server, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	lines := json.NewEncoder(os.Stdout)
	source := tipserve.Folder(flag.Arg(0))
	if *list {
		source = tipserve.ListFile(flag.Arg(0))
	}
	if *evaluate {
		done, err := client.Evaluate(ctx, source, *cache)
		if err != nil {
			return err
		}
		one := done.Evaluations[0]
		return lines.Encode(map[string]any{"top1": one.GetTop1(), "count": one.GetCount(),
			"classes": len(one.GetClasses()), "confusion": len(one.GetConfusion())})
	}
	if *create {
		spec := &pb.CacheSpec{CacheId: *cache, Method: pb.Method_METHOD_CLASS_MEAN, AllowEmptyClasses: true}
		made, err := client.CreateCache(ctx, spec, source)
		if err != nil {
			return err
		}
		for _, one := range made.Rejected {
			if err := lines.Encode(answer{ID: one.ID, Reason: reason(one.Err)}); err != nil {
				return err
			}
		}
		return nil
	}
	items := tipserve.FolderItems(flag.Arg(0))
	for result, err := range client.Classify(ctx, *cache, items, tipserve.Embedding()) {
		if err != nil {
			return err
		}
		line := answer{ID: result.ID, Reason: reason(result.Err)}
		line.Embedding = result.Classification.GetEmbedding().GetValues()
		for _, note := range result.Classification.GetNotes() {
			line.Notes = append(line.Notes, note.String())
		}
		if err := lines.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// reason is an error's, or its text.
func reason(err error) string {
	var own *tipserve.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &own):
		return own.Reason
	}
	return err.Error()
}
