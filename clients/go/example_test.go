package tipserve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

func Example() {
	ctx := context.Background()
	client, err := tipserve.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	made, err := client.CreateCache(ctx, &pb.CacheSpec{CacheId: "pets"},
		tipserve.Folder("pets/train"), tipserve.Shots(16, 1))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(made.Version.GetName(), len(made.Rejected), "rejected")

	for result, err := range client.Classify(ctx, "pets", tipserve.FolderItems("pets/new")) {
		if err != nil {
			log.Fatal(err) // of the stream as a whole
		}
		if result.Err != nil {
			log.Print(result.ID, ": ", result.Err) // of this picture
			continue
		}
		fmt.Println(result.ID, result.Best().GetDisplayName(), result.Best().GetProbability())
	}
}

func ExampleNew_mutualTLS() {
	client, err := tipserve.New("tipserve.example:443",
		tipserve.WithCA("ca.pem"),
		tipserve.WithClientCertificate("client.pem", "client.key"),
		tipserve.WithToken("..."),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleWithResize() {
	// The server gets squares of pixels, and has nothing to decode.
	client, err := tipserve.New("127.0.0.1:50051", tipserve.WithResize(tipserve.ResizeOnClient))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleClient_ClassifyChan() {
	client, err := tipserve.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	frames := make(chan tipserve.Item)
	go func() {
		defer close(frames)
		for _, file := range []string{"1.jpg", "2.jpg"} {
			frames <- tipserve.Item{Picture: tipserve.FromFile(file), TimeLimit: time.Second}
		}
	}()
	for result, err := range client.ClassifyChan(context.Background(), "pets@stable", frames, tipserve.Unordered()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(result.ID, result.Best().GetDisplayName(), result.Err)
	}
}

func ExampleError() {
	client, err := tipserve.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	_, err = client.ClassifyOne(context.Background(), "pets", tipserve.FromFile("cat.jpg"))
	var failure *tipserve.Error
	switch {
	case errors.Is(err, tipserve.ErrNotFound):
		fmt.Println("no such cache")
	case errors.Is(err, tipserve.ErrExhausted) && errors.As(err, &failure):
		delay, _ := failure.RetryDelay()
		fmt.Println("busy; again after", delay)
	case errors.As(err, &failure):
		fmt.Println(failure.Code, failure.Reason, failure.Metadata, failure.Violations)
	}
}

func ExampleClient_FineTune() {
	client, err := tipserve.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	run, err := client.FineTune(context.Background(),
		&pb.FineTuneRequest{Cache: "pets", Epochs: 20, MoveAlias: "stable", OnlyIfImproved: true},
		func(event *pb.FineTuneResponse) {
			if p := event.GetProgress(); p != nil {
				fmt.Printf("epoch %d of %d, loss %.4f\n", p.GetEpoch(), p.GetEpochs(), p.GetLoss())
			}
		})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(run.GetVersion().GetName(), run.GetAliasMoved())
}

func ExampleIfMatch() {
	ctx := context.Background()
	client, err := tipserve.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	cache, err := client.GetCache(ctx, "pets")
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.SetAlias(ctx, "pets", "stable", cache.GetLatest().GetVersion(), tipserve.IfMatch(cache.GetEtag()))
	if errors.Is(err, tipserve.ErrConflict) {
		fmt.Println("somebody came first")
	}
}

func ExampleClient_ExportVersion() {
	ctx := context.Background()
	client, err := tipserve.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var file bytes.Buffer // or an *os.File
	if _, err := client.ExportVersion(ctx, "pets@stable", &file); err != nil {
		log.Fatal(err)
	}
	version, err := client.ImportVersion(ctx, &pb.ImportSpec{CacheId: "pets-copy"}, bytes.NewReader(file.Bytes()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(version.GetName())
}
