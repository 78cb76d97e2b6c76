// Package tipserve is a client of tipserve: a few labelled pictures become a
// classifier; a stream of pictures becomes a stream of results.
//
//	client, err := tipserve.New("127.0.0.1:50051")
//	...
//	defer client.Close()
//
//	made, err := client.CreateCache(ctx, &pb.CacheSpec{CacheId: "pets"}, tipserve.Folder("pets/train"))
//	...
//	for result, err := range client.Classify(ctx, "pets", tipserve.FolderItems("pets/new")) {
//		if err != nil {
//			return err // of the stream as a whole
//		}
//		if result.Err != nil {
//			log.Print(result.ID, result.Err) // of this item
//			continue
//		}
//		fmt.Println(result.ID, result.Best().GetDisplayName())
//	}
//
// Messages are the protocol's own, in package tipservepb, where every field is
// documented. This package does the work that every caller would have to do
// again: messages that stay under the server's limit, streams in bounded
// memory, repeating what is safe to repeat, reconnecting without losing an
// item, and errors with the server's details.
//
// Every method takes a context. Cancelling it ends the call, on the server
// too; its deadline travels with the call. An iterator that is left early
// cancels its call.
package tipserve
