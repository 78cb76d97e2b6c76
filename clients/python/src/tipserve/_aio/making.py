"""Versions made of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tipserve._aio.calls import AsyncCalls
from tipserve._arrays import Color
from tipserve._making import Making, add_spec, added_parts, cache_parts, cache_spec
from tipserve._progress import reporter
from tipserve._proto import cache_pb2
from tipserve._requests import Grid, read_mask
from tipserve._sources import items_of
from tipserve._tasks import AnyItems, AnySource, collected, off_loop, uploading
from tipserve.labelled import ClassSpec
from tipserve.types import (
    ClassBalance,
    CreateProgress,
    ExifOrientation,
    KeyDtype,
    Method,
    MethodName,
    OnRejected,
    Version,
)


class AsyncMakingCalls(AsyncCalls):
    """`create_cache` and `add_examples`."""

    async def create_cache(
        self,
        id: str,
        source: AnySource,
        *,
        classes: Sequence[str | ClassSpec] | None = None,
        shots: int | None = None,
        seed: int = 1,
        validation: AnySource | None = None,
        unknown: AnyItems | None = None,
        unlabelled: AnyItems | None = None,
        templates: Sequence[str] | None = None,
        views: int = 0,
        exif_orientation: ExifOrientation = "apply",
        method: Method | MethodName = Method.AUTO,
        alpha: float | None = None,
        beta: float | None = None,
        lambda_: float | None = None,
        on_rejected: OnRejected = "skip",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        class_balance: ClassBalance | None = None,
        grid: Grid | None = None,
        key_dtype: KeyDtype | None = None,
        without_text: bool = False,
        multi_label: bool = False,
        truncate_prompts: bool = False,
        allow_empty_classes: bool = False,
        created_by: str = "",
        etag: str = "",
        bundle: str = "",
        color: Color = "rgb",
        on_progress: Callable[[CreateProgress], None] | bool | None = None,
        timeout: float | None = None,
    ) -> Version:
        """Makes a new version of a cache from labelled pictures.

        Pictures are read as they are sent; memory does not grow with their
        number. If the connection breaks, the call is repeated, as long as
        `source` can be read again; it carries a request id, so that no second
        version is made.

        Args:
            id: 1 to 63 of a-z, 0-9, '-', '_' and '.'.
            source: A folder with one folder a class (or its address, or a pattern
                of files); an .npz, .csv, .tsv, .jsonl, .parquet or COCO .json
                file; a data frame; a data set of `datasets` or torchvision;
                {"cat": pictures, ...}; (picture, label) pairs; or `Example`s.
                Arrays are RGB.
            classes: The classes, in the order of their indices. Default: those
                of `source`, or the names that occur in it, sorted.
            shots: At most this many examples a class, chosen by `seed`. Default: all.
            seed: Of the choice of shots and of the server's augmentation.
            validation: Examples that choose numbers and never become keys.
            unknown: Pictures of none of the classes, as for `classify`: they sharpen
                what is rejected (`classify(reject=...)`), and never become keys.
            unlabelled: Pictures without labels, as for `classify`, some perhaps of
                other classes: AUTO learns from them where that helps
                (`Version.head.unlabelled`). Only their features are kept.
            templates: "a photo of a {}."; default: the bundle's own.
            views: Augmented views of each picture; 0 and 1: the centre crop alone.
            exif_orientation: "apply" turns pictures upright, as viewers show them;
                "ignore" leaves pixels as they are stored, as CLIP's papers do. The
                version keeps to it for whatever it classifies.
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
            multi_label: Examples carry any number of classes, as (picture, [labels])
                pairs; answers then have independent probabilities and `labels`.
                Examples alone decide: no text, no method but AUTO.
            truncate_prompts: Cut prompts that are too long instead of refusing them.
            allow_empty_classes: Keep classes without a usable example, decided by
                their text alone; else such a class is an error.
            created_by: Who makes it; kept with the version.
            etag: Where given: raise `Conflict` where the cache has another by
                now. "new" where it must not exist yet.
            bundle: Name or fingerprint of the bundle that encodes it; default: the
                server's. Versions made from this one keep it.
            color: The order of the channels of arrays; "bgr" is OpenCV's.
            on_progress: Called with every progress message; True draws a bar, with
                tqdm if that is installed.
            timeout: Seconds for the whole; default: no bound.
        """
        parts = await off_loop(
            cache_parts,
            await collected(source),
            classes,
            shots=shots,
            seed=seed,
            validation=await collected(validation),
            unknown=None if unknown is None else items_of(await collected(unknown)),
            unlabelled=None if unlabelled is None else items_of(await collected(unlabelled)),
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
            exif_orientation=exif_orientation,
            seed=seed,
            on_rejected=on_rejected,
            description=description,
            labels=labels,
            class_balance=class_balance,
            grid=grid,
            key_dtype=key_dtype,
            without_text=without_text,
            multi_label=multi_label,
            truncate_prompts=truncate_prompts,
            allow_empty_classes=allow_empty_classes,
            created_by=created_by,
            etag=etag,
            bundle=bundle,
        )
        # Augmented views are cut out of the whole picture.
        encoder = await self._encoder(color, resize=views <= 1)
        return await self._make(
            self._caches.CreateCache,
            lambda: Making(spec, parts, encoder, on_rejected == "fail", reporter(on_progress)),
            timeout,
        )

    async def add_examples(
        self,
        base: str,
        source: AnySource | None = None,
        *,
        new_classes: Sequence[str | ClassSpec] | None = None,
        remove: Iterable[str] = (),
        drop_unlabelled: bool = False,
        relabel: Mapping[str, str | int] | None = None,
        id_prefix: str | None = None,
        shots: int | None = None,
        seed: int = 1,
        validation: AnySource | None = None,
        unknown: AnyItems | None = None,
        unlabelled: AnyItems | None = None,
        templates: Sequence[str] | None = None,
        method: Method | MethodName | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        lambda_: float | None = None,
        on_rejected: OnRejected = "skip",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        grid: Grid | None = None,
        truncate_prompts: bool = False,
        allow_empty_classes: bool = False,
        created_by: str = "",
        etag: str = "",
        color: Color = "rgb",
        on_progress: Callable[[CreateProgress], None] | bool | None = None,
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
            drop_unlabelled: Leave out the base's pictures without labels.
            relabel: Other classes for examples of the base, by their ids: names, or
                indices. Their features and pictures stay.
            id_prefix: What the new examples' ids begin with. Default: nothing;
                for the rows of NAME.npz "NAME/". Examples that have no id are
                called by the base's number and their position, "3+17".
            shots: At most this many examples a class, chosen by `seed`. Default: all.
            seed: Of the choice of shots and of the server's augmentation.
            validation: Examples that choose numbers and never become keys.
            unknown: Pictures of none of the classes, as for `classify`: they sharpen
                what is rejected (`classify(reject=...)`), and never become keys.
            unlabelled: Pictures without labels, as for `classify`, some perhaps of
                other classes: AUTO learns from them where that helps
                (`Version.head.unlabelled`). Only their features are kept.
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
            color: The order of the channels of arrays; "bgr" is OpenCV's.
            on_progress: Called with every progress message; True draws a bar, with
                tqdm if that is installed.
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
            unknown=None if unknown is None else items_of(await collected(unknown)),
            unlabelled=None if unlabelled is None else items_of(await collected(unlabelled)),
        )
        spec = add_spec(
            version,
            added,
            remove=remove,
            drop_unlabelled=drop_unlabelled,
            relabel=relabel or {},
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
        encoder = await self._encoder(color, resize=version.views <= 1)
        return await self._make(
            self._caches.AddExamples,
            lambda: Making(spec, parts, encoder, on_rejected == "fail", reporter(on_progress)),
            timeout,
        )

    async def _make(
        self, method: Any, start: Callable[[], Making], timeout: float | None
    ) -> Version:
        async def attempt(left: float | None) -> Version:
            making = start()
            async with uploading(
                lambda sent: method(sent, timeout=left, metadata=self._metadata),
                making.requests(),
            ) as call:
                async for response in call:
                    making.take(response)
            return making.made()

        repeatable = all(part.repeatable for part in start().parts)
        return await self._upload(attempt, timeout, repeatable)

    async def version(self, name: str, *, fields: Sequence[str] | None = None) -> Version:
        """One version, by any form of its name."""
        request = cache_pb2.GetVersionRequest(name=name, read_mask=read_mask(fields))
        return Version._from(await self._unary(self._caches.GetVersion, request))
