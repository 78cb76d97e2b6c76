// Command classify classifies the pictures of folders and files, and prints a
// line for each: its path, the best class and that class's probability.
//
//	classify -cache pets pets/new
//	classify -cache pets -train pets/train -shots 16 pets/new
//
// With -train it first makes a new version of the cache from a folder with one
// folder a class.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

func main() {
	// Ctrl-C cancels what runs, on the server too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "classify:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("classify", flag.ContinueOnError)
	server := flags.String("server", "", "the server's `host:port`; default: $TIPSERVE_SERVER, else 127.0.0.1:50051")
	cache := flags.String("cache", "", "which cache, for instance pets, pets@7 or pets@stable")
	train := flags.String("train", "", "first make a version of the cache from this `folder`")
	shots := flags.Int("shots", 0, "with -train: at most this many examples a class; 0: all")
	ca := flags.String("ca", "", "speak TLS; PEM `file` of the server's certificate authority")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *cache == "" || flags.NArg() == 0 && *train == "" {
		return errors.New("give -cache, and folders or files to classify; see -help")
	}

	var options []tipserve.Option
	if *ca != "" {
		options = append(options, tipserve.WithCA(*ca))
	}
	// A token on the command line would be there for everyone to see.
	if token := os.Getenv("TIPSERVE_TOKEN"); token != "" {
		options = append(options, tipserve.WithToken(token))
	}
	client, err := tipserve.New(*server, options...)
	if err != nil {
		return err
	}
	defer client.Close()

	if *train != "" {
		if err := learn(ctx, client, *cache, *train, *shots); err != nil {
			return err
		}
	}
	return classify(ctx, client, *cache, flags.Args(), os.Stdout)
}

// learn makes a new version of the cache.
func learn(ctx context.Context, client *tipserve.Client, cache, folder string, shots int) error {
	options := []tipserve.CreateOption{
		tipserve.OnProgress(func(p *pb.CreateProgress) {
			fmt.Fprintf(os.Stderr, "\r%s: %d of %d examples", p.GetStage(), p.GetEncoded(), p.GetReceived())
		}),
	}
	if shots > 0 {
		options = append(options, tipserve.Shots(shots, 1))
	}
	made, err := client.CreateCache(ctx, &pb.CacheSpec{CacheId: cache}, tipserve.Folder(folder), options...)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return err
	}
	for _, rejected := range made.Rejected {
		fmt.Fprintf(os.Stderr, "left out %s: %v\n", rejected.ID, rejected.Err)
	}
	fmt.Fprintf(os.Stderr, "made %s: %d classes, %s\n",
		made.Version.GetName(), len(made.Version.GetClasses()), made.Version.GetHead().GetMethod())
	return nil
}

// classify prints a line for each picture.
func classify(ctx context.Context, client *tipserve.Client, cache string, paths []string, to io.Writer) error {
	out := bufio.NewWriter(to)
	defer out.Flush()
	failed := 0
	for result, err := range client.Classify(ctx, cache, pictures(paths), tipserve.TopK(1)) {
		if err != nil {
			return err // of the stream as a whole
		}
		if result.Err != nil {
			failed++
			fmt.Fprintf(os.Stderr, "%s: %v\n", result.ID, result.Err)
			continue
		}
		best := result.Best()
		fmt.Fprintf(out, "%s\t%s\t%.4f\n", result.ID, best.GetDisplayName(), best.GetProbability())
	}
	if failed > 0 {
		return fmt.Errorf("%d pictures could not be classified", failed)
	}
	return nil
}

// pictures are the items of files and folders.
func pictures(paths []string) iter.Seq2[tipserve.Item, error] {
	return func(yield func(tipserve.Item, error) bool) {
		for _, path := range paths {
			items := tipserve.Files(path)
			if status, err := os.Stat(path); err == nil && status.IsDir() {
				items = tipserve.FolderItems(path)
			}
			for item, err := range items {
				if !yield(item, err) {
					return
				}
			}
		}
	}
}
