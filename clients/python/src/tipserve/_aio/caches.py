"""Caches, their versions and aliases."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from tipserve import _requests as requests
from tipserve._aio.calls import AsyncCalls
from tipserve._making import Making, add_spec, added_parts, cache_parts, cache_spec
from tipserve._proto import cache_pb2
from tipserve._requests import Grid
from tipserve._tasks import AnySource, Stream, collected, off_loop, uploading
from tipserve._transfer import Incoming, Target, import_requests
from tipserve._uploads import upload_failure
from tipserve.errors import FailedPrecondition, NotFound, from_rpc_error
from tipserve.labelled import ClassSpec
from tipserve.types import Cache, CreateProgress, ExampleInfo, Method, Version


class AsyncCacheCalls(AsyncCalls):
    """Caches, their versions and aliases."""

    async def create_cache(
        self,
        id: str,
        source: AnySource,
        *,
        classes: Sequence[str | ClassSpec] | None = None,
        shots: int | None = None,
        seed: int = 1,
        validation: AnySource | None = None,
        templates: Sequence[str] | None = None,
        views: int = 0,
        method: Method | str = Method.AUTO,
        alpha: float | None = None,
        beta: float | None = None,
        lambda_: float | None = None,
        on_rejected: str = "skip",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        class_balance: str | None = None,
        grid: Grid | None = None,
        key_dtype: str | None = None,
        without_text: bool = False,
        truncate_prompts: bool = False,
        allow_empty_classes: bool = False,
        created_by: str = "",
        etag: str = "",
        on_progress: Callable[[CreateProgress], None] | None = None,
        timeout: float | None = None,
    ) -> Version:
        """Makes a new version of a cache from labelled pictures.

        Pictures are read as they are sent; memory does not grow with their
        number. The call is repeated only where it cannot have succeeded: the
        connection broke before the last example was sent, and `source` can be
        read again.

        Args:
            id: 1 to 63 of a-z, 0-9, '-', '_' and '.'.
            source: A folder with one folder a class, an .npz file, or `Example`s.
            classes: The classes, in the order of their indices. Default: the
                folders, or the classes that occur in `source`, sorted by name.
            shots: At most so many examples a class, chosen by `seed`. Default: all.
            seed: Of the choice of shots and of the server's augmentation.
            validation: Examples that choose numbers and never become keys.
            templates: "a photo of a {}."; default: the bundle's own.
            views: Augmented views of each picture; 0 and 1: the centre crop alone.
            method: How to make the head.
            alpha: Weight of the cache; chosen where None.
            beta: Sharpness; chosen where None.
            lambda_: ProKeR's regularisation; chosen where None.
            on_rejected: "skip" reports an example that cannot be used in
                `Version.rejected`; "fail" raises.
            description: Free text.
            labels: Free labels.
            class_balance: "sum" (default) or "mean" over a class's shots.
            grid: Which α and β to search.
            key_dtype: "f32" (default), "bf16" or "f16".
            without_text: Ignore text; the cache alone decides.
            truncate_prompts: Cut prompts that are too long instead of refusing them.
            allow_empty_classes: Keep classes without a usable example, decided by
                their text alone; else such a class is an error.
            created_by: Who makes it; kept with the version.
            etag: Where given: raise `Conflict` where the cache has another by
                now. "new" where it must not exist yet.
            on_progress: Called with every progress message.
            timeout: Seconds for the whole; default: no bound.
        """
        parts = await off_loop(
            cache_parts,
            await collected(source),
            classes,
            shots=shots,
            seed=seed,
            validation=await collected(validation),
        )
        spec = cache_spec(
            id,
            parts[0],
            templates=templates,
            method=method,
            alpha=alpha,
            beta=beta,
            lambda_=lambda_,
            views=views,
            seed=seed,
            on_rejected=on_rejected,
            description=description,
            labels=labels,
            class_balance=class_balance,
            grid=grid,
            key_dtype=key_dtype,
            without_text=without_text,
            truncate_prompts=truncate_prompts,
            allow_empty_classes=allow_empty_classes,
            created_by=created_by,
            etag=etag,
        )
        # Augmented views are cut out of the whole picture.
        encoder = await self._encoder(resize=views <= 1)
        return await self._make(
            self._caches.CreateCache,
            lambda: Making(spec, parts, encoder, on_rejected == "fail", on_progress),
            timeout,
        )

    async def add_examples(
        self,
        base: str,
        source: AnySource | None = None,
        *,
        new_classes: Sequence[str | ClassSpec] | None = None,
        remove: Iterable[str] = (),
        id_prefix: str | None = None,
        shots: int | None = None,
        seed: int = 1,
        validation: AnySource | None = None,
        templates: Sequence[str] | None = None,
        method: Method | str | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        lambda_: float | None = None,
        on_rejected: str = "skip",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        grid: Grid | None = None,
        truncate_prompts: bool = False,
        allow_empty_classes: bool = False,
        created_by: str = "",
        etag: str = "",
        on_progress: Callable[[CreateProgress], None] | None = None,
        timeout: float | None = None,
    ) -> Version:
        """Makes a new version from an existing one: examples added and removed, classes added.

        What the base holds is not encoded again, so its pictures are not
        needed. Repeated as `create_cache` is.

        Args:
            base: The version to start from. It stays as it is.
            source: Examples to add, as for `create_cache`. Those of a class that
                the base has go to it; indices count the base's classes, then the
                new ones.
            new_classes: Classes to add. Default: those that occur in `source` and
                that the base does not have, sorted by name; `()` refuses them.
            remove: Ids of examples to leave out.
            id_prefix: What the new examples' ids begin with. Default: nothing;
                for the rows of NAME.npz "NAME/". Examples that have no id are
                called by the base's number and their position, "3+17".
            shots: At most so many examples a class, chosen by `seed`. Default: all.
            seed: Of the choice of shots and of the server's augmentation.
            validation: Examples that choose numbers and never become keys.
            templates: For the prompts of new classes; default: the bundle's own.
            method: How to make the head. Default: as the base.
            alpha: Weight of the cache; chosen anew where None.
            beta: Sharpness; chosen anew where None.
            lambda_: ProKeR's regularisation; chosen anew where None.
            on_rejected: "skip" reports an example that cannot be used in
                `Version.rejected`; "fail" raises.
            description: Free text. Default: the base's.
            labels: Free labels. Default: the base's.
            grid: Which α and β to search.
            truncate_prompts: Cut prompts that are too long instead of refusing them.
            allow_empty_classes: Keep classes that are left without an example.
            created_by: Who makes it; kept with the version.
            etag: Where given: raise `Conflict` where the cache has another by now.
            on_progress: Called with every progress message.
            timeout: Seconds for the whole; default: no bound.
        """
        version = await self.version(base)
        parts, added = await off_loop(
            added_parts,
            version,
            await collected(source),
            new_classes,
            id_prefix=id_prefix,
            shots=shots,
            seed=seed,
            validation=await collected(validation),
        )
        spec = add_spec(
            version,
            added,
            remove=remove,
            templates=templates,
            method=method,
            alpha=alpha,
            beta=beta,
            lambda_=lambda_,
            seed=seed,
            on_rejected=on_rejected,
            description=description,
            labels=labels,
            grid=grid,
            truncate_prompts=truncate_prompts,
            allow_empty_classes=allow_empty_classes,
            created_by=created_by,
            etag=etag,
        )
        encoder = await self._encoder(resize=version.views <= 1)
        return await self._make(
            self._caches.AddExamples,
            lambda: Making(spec, parts, encoder, on_rejected == "fail", on_progress),
            timeout,
        )

    async def _make(
        self, method: Any, start: Callable[[], Making], timeout: float | None
    ) -> Version:
        async def attempt(left: float | None) -> Version:
            making = start()
            async with uploading(
                lambda sent: method(sent, timeout=left, metadata=self._connection.metadata),
                making.requests(),
            ) as call:
                async for response in call:
                    making.take(response)
            return making.made()

        repeatable = all(part.repeatable for part in start().parts)
        return await self._upload(attempt, timeout, repeatable, only_before_end=True)

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

    async def version(self, name: str, *, fields: Sequence[str] | None = None) -> Version:
        """One version, by any form of its name."""
        request = cache_pb2.GetVersionRequest(name=name, read_mask=requests.read_mask(fields))
        return Version._from(await self._unary(self._caches.GetVersion, request))

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

        Raises `NotFound` where there is no such alias, and `FailedPrecondition`
        where there is no earlier version. Whoever changes the cache meanwhile
        makes this raise `Conflict`.
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
            overwrite: Replace the file where it is there; else FileExistsError.
            timeout: Seconds for the whole; default: no bound.
        """
        request = cache_pb2.ExportVersionRequest(name=name)

        async def attempt(left: float | None) -> Version:
            # Files are read and written off the event loop.
            with await off_loop(Incoming, target, overwrite) as incoming:
                call = Stream(
                    lambda _: self._caches.ExportVersion(
                        request, timeout=left, metadata=self._connection.metadata
                    )
                )
                try:
                    async for response in call:
                        await off_loop(incoming.take, response)
                except grpc.RpcError as error:
                    raise upload_failure(from_rpc_error(error), sent_all=False) from None
                finally:
                    call.cancel()
                return await off_loop(incoming.finish)

        repeatable = isinstance(target, str | os.PathLike)
        return await self._upload(attempt, timeout, repeatable, only_before_end=False)

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
            cache_id=cache, allow_other_bundle=allow_other_bundle, etag=etag
        )

        async def attempt(left: float | None) -> Version:
            async with uploading(
                lambda sent: self._caches.ImportVersion.future(
                    sent, timeout=left, metadata=self._connection.metadata
                ),
                import_requests(path, spec, limit),
                one_response=True,
            ) as call:
                return Version._from(await call.response())

        return await self._upload(attempt, timeout, repeatable=True, only_before_end=True)
