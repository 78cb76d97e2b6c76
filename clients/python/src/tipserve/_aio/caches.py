"""Caches, their versions and aliases."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence

import grpc

from tipserve import _requests as requests
from tipserve._aio.making import AsyncMakingCalls
from tipserve._proto import cache_pb2
from tipserve._tasks import Stream, off_loop, uploading
from tipserve._transfer import Incoming, Target, import_requests
from tipserve._uploads import new_request_id, upload_failure
from tipserve.errors import FailedPrecondition, NotFound
from tipserve.types import Cache, ExampleInfo, Version


class AsyncCacheCalls(AsyncMakingCalls):
    """Caches, their versions and aliases."""

    async def cache(self, name: str, *, fields: Sequence[str] | None = None) -> Cache:
        """One cache. `fields` names those to return, default all."""
        request = cache_pb2.GetCacheRequest(name=name, read_mask=requests.read_mask(fields))
        return Cache._from(await self._unary(self._caches.GetCache, request))

    async def caches(
        self, *, filter: str = "", page_size: int = 0, fields: Sequence[str] | None = None
    ) -> AsyncIterator[Cache]:
        """Caches, ordered by id, fetched page by page: all, or those that a filter lets through.

        For instance `labels.team = "weaving" AND cache_id = "tex*"`; docs/api.md
        has the whole language.
        """
        request = cache_pb2.ListCachesRequest(
            filter=filter, page_size=page_size, read_mask=requests.read_mask(fields)
        )
        async for page in self._pages(self._caches.ListCaches, request):
            for one in page.caches:
                yield Cache._from(one)

    async def versions(
        self, cache: str, *, page_size: int = 0, fields: Sequence[str] | None = None
    ) -> AsyncIterator[Version]:
        """The versions of a cache, newest first, fetched page by page."""
        request = cache_pb2.ListVersionsRequest(
            parent=cache, page_size=page_size, read_mask=requests.read_mask(fields)
        )
        async for page in self._pages(self._caches.ListVersions, request):
            for one in page.versions:
                yield Version._from(one)

    async def examples(
        self, name: str, *, filter: str = "", page_size: int = 0
    ) -> AsyncIterator[ExampleInfo]:
        """A version's examples: training ones in the order of their keys, then validation ones.

        A filter is, for instance, `display_name = "cat" AND validation = false`.
        """
        request = cache_pb2.ListExamplesRequest(parent=name, filter=filter, page_size=page_size)
        async for page in self._pages(self._caches.ListExamples, request):
            for one in page.examples:
                yield ExampleInfo._from(one)

    async def delete_cache(self, name: str, *, etag: str = "") -> None:
        """Deletes a cache with all its versions and aliases. Never repeated by itself.

        With an `etag`, here and below: raises `Conflict`, and changes nothing,
        where the cache has another by now.
        """
        request = cache_pb2.DeleteCacheRequest(name=name, etag=etag)
        await self._unary(self._caches.DeleteCache, request, retry=False)

    async def delete_version(self, name: str, *, etag: str = "") -> None:
        """Deletes one version, "pets@7". Never repeated by itself.

        Raises `FailedPrecondition` where an alias points at it, or where it is
        the only one.
        """
        request = cache_pb2.DeleteVersionRequest(name=name, etag=etag)
        await self._unary(self._caches.DeleteVersion, request, retry=False)

    async def prune(
        self, cache: str, keep: int, *, dry_run: bool = False, etag: str = ""
    ) -> tuple[int, ...]:
        """Deletes all versions but the `keep` newest and those that an alias points at.

        Returns the numbers of those deleted, newest first; with `dry_run` of
        those that would be. Never repeated by itself.
        """
        request = cache_pb2.PruneVersionsRequest(
            name=cache, keep=keep, validate_only=dry_run, etag=etag
        )
        answer = await self._unary(self._caches.PruneVersions, request, retry=False)
        return tuple(answer.deleted_versions)

    async def set_alias(self, cache: str, alias: str, version: int, *, etag: str = "") -> Cache:
        """Points an alias at a version. Never repeated by itself."""
        request = cache_pb2.SetAliasRequest(cache=cache, alias=alias, version=version, etag=etag)
        return Cache._from(await self._unary(self._caches.SetAlias, request, retry=False))

    async def delete_alias(self, cache: str, alias: str, *, etag: str = "") -> Cache:
        """Removes an alias; its version stays. Never repeated by itself."""
        request = cache_pb2.DeleteAliasRequest(cache=cache, alias=alias, etag=etag)
        return Cache._from(await self._unary(self._caches.DeleteAlias, request, retry=False))

    async def rollback(self, cache: str, alias: str, *, etag: str = "") -> Cache:
        """Points an alias at the version before the one that it points at.

        Raises `NotFound` if there is no such alias, and `FailedPrecondition`
        if there is no earlier version. Raises `Conflict` if somebody else
        changes the cache meanwhile.
        """
        before = await self.cache(cache)
        now = before.aliases.get(alias)
        if now is None:
            raise NotFound(
                f"the cache {before.id} has no alias {alias!r}", reason="ALIAS_NOT_FOUND"
            )
        earlier = None
        async for version in self.versions(cache, fields=["version"]):
            if version.version < now:
                earlier = version.version
                break
        if earlier is None:
            raise FailedPrecondition(
                f"{before.id}@{alias} points at version {now}, and there is none before that",
                reason="NO_EARLIER_VERSION",
            )
        return await self.set_alias(cache, alias, earlier, etag=etag or before.etag)

    async def export(
        self,
        name: str,
        target: Target,
        *,
        overwrite: bool = False,
        timeout: float | None = None,
    ) -> Version:
        """Writes a version into one safetensors file, and returns what it wrote.

        The file has its name only once it is whole; memory does not grow with
        its size. Into a path the call is repeated as one that only reads.

        Args:
            name: Which version.
            target: A path, or an open binary file.
            overwrite: Replace the file if it is there; else FileExistsError.
            timeout: Seconds for the whole; default: no bound.
        """
        request = cache_pb2.ExportVersionRequest(name=name)
        if self._info is None:
            await self.server_info()  # which says at once if there is no server

        async def attempt(left: float | None) -> Version:
            # Files are read and written off the event loop.
            with await off_loop(Incoming, target, overwrite) as incoming:
                call = Stream(
                    lambda _: self._caches.ExportVersion(
                        request, timeout=left, metadata=self._metadata
                    )
                )
                try:
                    async for response in call:
                        await off_loop(incoming.take, response)
                except grpc.RpcError as error:
                    raise upload_failure(self._contact.failure(error)) from None
                finally:
                    call.cancel()
                return await off_loop(incoming.finish)

        repeatable = isinstance(target, str | os.PathLike)
        return await self._upload(attempt, timeout, repeatable)

    async def import_version(
        self,
        path: str | os.PathLike[str],
        cache: str,
        *,
        allow_other_bundle: bool = False,
        etag: str = "",
        timeout: float | None = None,
    ) -> Version:
        """Makes a new version of a cache of an exported file. Repeated as `create_cache` is.

        Args:
            path: The file.
            cache: The id of the cache that gets the version.
            allow_other_bundle: Take a version whose features another bundle
                made: the server keeps it, and does not serve it.
            etag: Where given: raise `Conflict` where the cache has another by
                now. "new" where it must not exist yet.
            timeout: Seconds for the whole; default: no bound.
        """
        info = self._info or await self.server_info()
        limit = requests.max_message_bytes(info)
        spec = cache_pb2.ImportSpec(
            cache_id=cache,
            allow_other_bundle=allow_other_bundle,
            etag=etag,
            request_id=new_request_id(),
        )

        async def attempt(left: float | None) -> Version:
            async with uploading(
                lambda sent: self._caches.ImportVersion.future(
                    sent, timeout=left, metadata=self._metadata
                ),
                import_requests(path, spec, limit),
                one_response=True,
            ) as call:
                return Version._from(await call.response())

        return await self._upload(attempt, timeout, repeatable=True)
