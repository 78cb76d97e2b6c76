package tipserve

import (
	"context"
	"fmt"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// ReadOption narrows what is read.
type ReadOption func(*readConfig)

type readConfig struct {
	filter   string
	pageSize int32
	fields   *fieldmaskpb.FieldMask
}

// Filter lets through what matches (AIP-160), in lists of caches and of
// examples: `labels.team = "weaving" AND class_count > 2`.
func Filter(filter string) ReadOption { return func(c *readConfig) { c.filter = filter } }

// PageSize is how many a list fetches at once. Default: as the server likes.
func PageSize(size int32) ReadOption { return func(c *readConfig) { c.pageSize = size } }

// Fields names the top-level fields to return of each cache or version.
func Fields(names ...string) ReadOption {
	return func(c *readConfig) { c.fields = &fieldmaskpb.FieldMask{Paths: names} }
}

func narrowed(options []ReadOption) *readConfig {
	configured := &readConfig{}
	for _, option := range options {
		option(configured)
	}
	return configured
}

// ChangeOption is a condition of a change.
type ChangeOption func(*changeConfig)

type changeConfig struct{ etag string }

// IfMatch makes the change only if the cache still has this etag, and fails
// with [ErrAborted] otherwise.
func IfMatch(etag string) ChangeOption { return func(c *changeConfig) { c.etag = etag } }

func etagOf(options []ChangeOption) string {
	configured := &changeConfig{}
	for _, option := range options {
		option(configured)
	}
	return configured.etag
}

// GetCache returns one cache.
func (c *Client) GetCache(ctx context.Context, name string, options ...ReadOption) (*pb.Cache, error) {
	return read(ctx, c, c.caches.GetCache,
		&pb.GetCacheRequest{Name: name, ReadMask: narrowed(options).fields})
}

// Caches goes through all caches, ordered by id, fetched page by page.
func (c *Client) Caches(ctx context.Context, options ...ReadOption) iter.Seq2[*pb.Cache, error] {
	configured := narrowed(options)
	return pages(func(token string) ([]*pb.Cache, string, error) {
		page, err := read(ctx, c, c.caches.ListCaches, &pb.ListCachesRequest{
			PageSize: configured.pageSize, PageToken: token,
			ReadMask: configured.fields, Filter: configured.filter,
		})
		return page.GetCaches(), page.GetNextPageToken(), err
	})
}

// DeleteCache deletes a cache with all its versions and aliases. Never repeated
// by itself.
func (c *Client) DeleteCache(ctx context.Context, name string, options ...ChangeOption) error {
	_, err := change(ctx, c, c.caches.DeleteCache,
		&pb.DeleteCacheRequest{Name: name, Etag: etagOf(options)})
	return err
}

// GetVersion returns one version, by any form of its name.
func (c *Client) GetVersion(
	ctx context.Context, name string, options ...ReadOption,
) (*pb.Version, error) {
	return read(ctx, c, c.caches.GetVersion,
		&pb.GetVersionRequest{Name: name, ReadMask: narrowed(options).fields})
}

// Drift says how what a version is asked of late differs from its examples.
func (c *Client) Drift(ctx context.Context, cache string) (*pb.Drift, error) {
	return read(ctx, c, c.analysis.GetDrift, &pb.GetDriftRequest{Cache: cache})
}

// Analyze says from left-out examples how good a version is, how it would grow
// with more of them, which classes are confused, and which examples look wrong
// or double.
func (c *Client) Analyze(
	ctx context.Context, request *pb.AnalyzeVersionRequest,
) (*pb.AnalyzeVersionResponse, error) {
	return read(ctx, c, c.analysis.AnalyzeVersion, request)
}

// Versions goes through the versions of a cache, newest first.
func (c *Client) Versions(
	ctx context.Context, cache string, options ...ReadOption,
) iter.Seq2[*pb.Version, error] {
	configured := narrowed(options)
	return pages(func(token string) ([]*pb.Version, string, error) {
		page, err := read(ctx, c, c.caches.ListVersions, &pb.ListVersionsRequest{
			Parent: cache, PageSize: configured.pageSize, PageToken: token, ReadMask: configured.fields,
		})
		return page.GetVersions(), page.GetNextPageToken(), err
	})
}

// ExamplesOf goes through the examples of a version: training examples in the
// order of their keys, then validation examples.
func (c *Client) ExamplesOf(
	ctx context.Context, version string, options ...ReadOption,
) iter.Seq2[*pb.ExampleInfo, error] {
	configured := narrowed(options)
	return pages(func(token string) ([]*pb.ExampleInfo, string, error) {
		page, err := read(ctx, c, c.caches.ListExamples, &pb.ListExamplesRequest{
			Parent: version, PageSize: configured.pageSize, PageToken: token, Filter: configured.filter,
		})
		return page.GetExamples(), page.GetNextPageToken(), err
	})
}

// DeleteVersion deletes one version, named by its number. It fails with
// [ErrFailedPrecondition] where an alias points at it, or if it is the
// cache's only version. Never repeated by itself.
func (c *Client) DeleteVersion(ctx context.Context, name string, options ...ChangeOption) error {
	_, err := change(ctx, c, c.caches.DeleteVersion,
		&pb.DeleteVersionRequest{Name: name, Etag: etagOf(options)})
	return err
}

// PruneVersions deletes a cache's older versions: all but the keep newest and
// those that an alias points at. It returns the numbers of those that went,
// newest first. Never repeated by itself.
func (c *Client) PruneVersions(
	ctx context.Context, cache string, keep int32, options ...ChangeOption,
) ([]int64, error) {
	done, err := change(ctx, c, c.caches.PruneVersions,
		&pb.PruneVersionsRequest{Name: cache, Keep: keep, Etag: etagOf(options)})
	return done.GetDeletedVersions(), err
}

// PrunableVersions are the versions that [Client.PruneVersions] would delete.
func (c *Client) PrunableVersions(ctx context.Context, cache string, keep int32) ([]int64, error) {
	would, err := read(ctx, c, c.caches.PruneVersions,
		&pb.PruneVersionsRequest{Name: cache, Keep: keep, ValidateOnly: true})
	return would.GetDeletedVersions(), err
}

// SetAlias points an alias at a version; it makes the alias if it is new.
// Never repeated by itself.
func (c *Client) SetAlias(
	ctx context.Context, cache, alias string, version int64, options ...ChangeOption,
) (*pb.Cache, error) {
	return change(ctx, c, c.caches.SetAlias, &pb.SetAliasRequest{
		Cache: cache, Alias: alias, Version: version, Etag: etagOf(options)})
}

// DeleteAlias removes an alias; its version stays. Never repeated by itself.
func (c *Client) DeleteAlias(
	ctx context.Context, cache, alias string, options ...ChangeOption,
) (*pb.Cache, error) {
	return change(ctx, c, c.caches.DeleteAlias,
		&pb.DeleteAliasRequest{Cache: cache, Alias: alias, Etag: etagOf(options)})
}

// Rollback points an alias at the version before the one that it points at.
// Whoever changes the cache meanwhile makes this fail with [ErrConflict]. Never
// repeated by itself.
func (c *Client) Rollback(
	ctx context.Context, cache, alias string, options ...ChangeOption,
) (*pb.Cache, error) {
	before, err := c.GetCache(ctx, cache)
	if err != nil {
		return nil, err
	}
	now, there := before.GetAliases()[alias]
	if !there {
		return nil, &Error{Code: codes.NotFound, Reason: "ALIAS_NOT_FOUND",
			Message: fmt.Sprintf("%s has no alias %q", before.GetName(), alias)}
	}
	etag := etagOf(options)
	if etag == "" {
		etag = before.GetEtag()
	}
	for version, err := range c.Versions(ctx, cache, Fields("version")) {
		if err != nil {
			return nil, err
		}
		if version.GetVersion() < now {
			return c.SetAlias(ctx, cache, alias, version.GetVersion(), IfMatch(etag))
		}
	}
	return nil, &Error{Code: codes.FailedPrecondition, Reason: "NO_EARLIER_VERSION",
		Message: fmt.Sprintf("%s@%s points at version %d, and there is none before that",
			before.GetName(), alias, now)}
}
