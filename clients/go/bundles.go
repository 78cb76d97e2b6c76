package tipserve

import (
	"context"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// Bundles returns the bundles that are loaded, the default one first, and those
// that could be.
func (c *Client) Bundles(ctx context.Context) ([]*pb.Bundle, error) {
	listed, err := read(ctx, c, c.bundles.ListBundles, &pb.ListBundlesRequest{})
	return listed.GetBundles(), err
}

// LoadBundle loads a bundle by the name of its folder on the server, and returns
// when it serves; one that serves already is left as it is. With makeDefault it
// serves requests that name no bundle from then on.
//
// It takes as long as the context lets it, the client's timeout aside, and the
// server goes on if it is given up.
func (c *Client) LoadBundle(
	ctx context.Context, folder string, makeDefault bool,
) (*pb.Bundle, error) {
	bundle, err := c.bundles.LoadBundle(ctx,
		&pb.LoadBundleRequest{Folder: folder, MakeDefault: makeDefault})
	if err != nil {
		return nil, fromCall(err)
	}
	c.forgetInfo()
	return bundle, nil
}

// UnloadBundle unloads a bundle by its name or fingerprint, and returns when all
// that it was given is answered. The default bundle cannot be unloaded. As for
// [Client.LoadBundle], only the context bounds it.
func (c *Client) UnloadBundle(ctx context.Context, bundle string) error {
	_, err := c.bundles.UnloadBundle(ctx, &pb.UnloadBundleRequest{Bundle: bundle})
	if err != nil {
		return fromCall(err)
	}
	c.forgetInfo()
	return nil
}

// forgetInfo has the server's information asked for again: it names bundles.
func (c *Client) forgetInfo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info = nil
}
