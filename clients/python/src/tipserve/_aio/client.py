"""Classification, evaluation and fine-tuning."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import overload

from tipserve import _requests as requests
from tipserve._aio.bundles import AsyncBundleCalls
from tipserve._aio.fine_tune import AsyncFineTune
from tipserve._arrays import Color
from tipserve._classify import classify_plan
from tipserve._proto import classify_pb2, finetune_pb2
from tipserve._requests import Grid, Priority
from tipserve._retry import allowed_seconds
from tipserve._sources import items_of
from tipserve._tasks import (
    AnyItems,
    AnySource,
    ClassifyStream,
    Stream,
    collected,
    off_loop,
    uploading,
)
from tipserve.labelled import default_id, load
from tipserve.pictures import Picture
from tipserve.types import (
    Embeddings,
    Evaluation,
    ExifOrientation,
    FineTuneRecipe,
    FineTuneRun,
    Result,
    Schedule,
)


class AsyncClient(AsyncBundleCalls):
    """A connection to a tipserve server, for one event loop. Tasks may share one.

    Every method raises `TipserveError`, of the subclass that fits the code,
    when the server refuses. A cache is named "pets", "pets@7", "pets@stable"
    or by its resource name.
    """

    # Classification.

    def classify(
        self,
        cache: str,
        items: AnyItems,
        *,
        top_k: int = 5,
        logits: bool = False,
        probabilities: bool = False,
        neighbours: int = 0,
        embedding: bool = False,
        timings: bool = False,
        reject: float | bool = False,
        reject_below: float | None = None,
        precision: float | None = None,
        coverage: float | None = None,
        ordered: bool = True,
        priority: Priority = "interactive",
        color: Color = "rgb",
        time_limit: float | None = None,
        window: int = 512,
        window_bytes: int = 64 * 1024 * 1024,
        resend: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Classifies a stream of pictures; yields a result for every item.

        An item that fails is a result with `error`; only a failure of the
        whole stream raises. Exceptions of `items` are raised after the results
        of the items before. Closing the generator cancels the stream. Broken
        connections are opened again, and unanswered items sent again.

        `items` is read on the event loop, at most `window` items ahead of the
        results taken, so it may be as long as it likes.

        Args:
            cache: Which classifier.
            items: Pictures, or `Item`s that bring an id or a time limit: any
                iterable, a folder, a pattern ("pets/*.jpg"), an address
                ("s3://bucket/pets"), a data frame or a data set. A picture is a
                path, an address, bytes, an open file, a Pillow picture, an array
                or a tensor in RGB, or an embedding.
            top_k: How many of the best classes.
            logits: Return all logits.
            probabilities: Return all probabilities.
            neighbours: How many of the nearest cached examples to return.
            embedding: Return the embedding.
            timings: Return how long each stage took.
            reject: Say of each item whether it is of any class that the version
                knows (`accepted`); the share of pictures of known classes that
                are to be accepted, True for 0.95.
            reject_below: Say the same by a threshold of your own: an item is accepted
                from this `score` on.
            precision: Accept an answer (`accepted`) from the threshold of its class on
                at which answers are right with this precision; of a version with
                `multi_label`, return the labels at these thresholds.
            coverage: Return the smallest set of classes that holds the item's
                with this probability (`prediction_set`).
            ordered: Results come in the order of the items; else as they are ready.
            priority: "interactive", or "bulk" for work that nobody waits for.
            color: The order of the channels of arrays; "bgr" is OpenCV's.
            time_limit: Seconds for which an item's answer is of use.
            window: How many items may be read and not yet handed out.
            window_bytes: How many bytes of unanswered pictures are held at most.
            resend: How often an item that is refused for now (a full queue) is
                sent again. Default: as often as the client's retry policy says.
            timeout: Seconds for the whole; default: no bound.
        """
        requests.check_time_limit(time_limit)
        plan = classify_plan(
            cache,
            items,
            requests.classify_options(
                top_k=top_k,
                logits=logits,
                probabilities=probabilities,
                neighbours=neighbours,
                embedding=embedding,
                timings=timings,
                reject=reject,
                reject_below=reject_below,
                precision=precision,
                coverage=coverage,
            ),
            self._connection.retry,
            ordered=ordered,
            priority=priority,
            window=window,
            window_bytes=window_bytes,
            resend=resend,
        )

        async def results() -> AsyncGenerator[Result, None]:
            encoder = await self._encoder(color)
            stream = ClassifyStream(
                lambda messages, left: self._classify.ClassifyStream(
                    messages, timeout=left, metadata=self._metadata
                ),
                plan.config,
                plan.source,
                encoder.encode,
                plan.ledger(encoder),
                self._connection.retry,
                time_limit=time_limit,
                timeout=timeout,
            )
            async with contextlib.aclosing(stream.results()) as answers:
                async for result in answers:
                    yield result

        return results()

    async def classify_one(
        self,
        cache: str,
        picture: Picture,
        *,
        top_k: int = 5,
        logits: bool = False,
        probabilities: bool = False,
        neighbours: int = 0,
        embedding: bool = False,
        timings: bool = False,
        reject: float | bool = False,
        reject_below: float | None = None,
        precision: float | None = None,
        coverage: float | None = None,
        priority: Priority = "interactive",
        color: Color = "rgb",
        timeout: float | None = None,
    ) -> Result:
        """Classifies one picture; raises where `classify` would give an `error`."""
        request = classify_pb2.ClassifyRequest(
            cache=cache,
            input=await off_loop((await self._encoder(color)).encode, picture),
            options=requests.classify_options(
                top_k=top_k,
                logits=logits,
                probabilities=probabilities,
                neighbours=neighbours,
                embedding=embedding,
                timings=timings,
                reject=reject,
                reject_below=reject_below,
                precision=precision,
                coverage=coverage,
            ),
            priority=requests.priority(priority),
        )
        response = await self._unary(self._classify.Classify, request, timeout=timeout)
        return Result._from(default_id(picture, 0), 0, response.classification)

    async def embed(
        self,
        pictures: Sequence[Picture] = (),
        texts: Sequence[str] = (),
        *,
        truncate: bool = False,
        raw: bool = False,
        exif_orientation: ExifOrientation = "apply",
        bundle: str = "",
        strict: bool = True,
        color: Color = "rgb",
    ) -> Embeddings:
        """Embeds pictures and texts with a bundle's encoders.

        Args:
            pictures: Any number; they are sent in requests of a bounded size.
            texts: Any number.
            truncate: Cut texts that are too long instead of refusing them.
            raw: The encoder's output as it is, instead of unit vectors.
            exif_orientation: "apply" turns pictures upright, as new caches do;
                "ignore" leaves pixels as they are stored.
            bundle: Name or fingerprint of the bundle; default: the server's.
            strict: Raise for the first that fails; else its row is NaN and its
                error in `picture_errors` or `text_errors`.
            color: The order of the channels of arrays; "bgr" is OpenCV's.
        """
        plan = requests.embed_plan(
            pictures,
            texts,
            await self._encoder(color),
            truncate=truncate,
            raw=raw,
            exif_orientation=exif_orientation,
            bundle=bundle,
        )
        calls = plan.calls()
        # Files are read off the event loop.
        while (call := await off_loop(next, calls, None)) is not None:
            plan.take(call, await self._unary(self._classify.Embed, call.request))
        info = self._info
        return plan.outcome(strict=strict, width=info.bundle_of(bundle).width if info else 0)

    @overload
    async def evaluate(
        self,
        cache: str,
        source: AnySource,
        *,
        unknown: AnyItems | None = None,
        reject: float | bool = False,
        reject_below: float | None = None,
        precision: float | None = None,
        color: Color = "rgb",
        timeout: float | None = None,
    ) -> Evaluation: ...

    @overload
    async def evaluate(
        self,
        cache: list[str] | tuple[str, ...],
        source: AnySource,
        *,
        unknown: AnyItems | None = None,
        reject: float | bool = False,
        reject_below: float | None = None,
        precision: float | None = None,
        color: Color = "rgb",
        timeout: float | None = None,
    ) -> list[Evaluation]: ...

    async def evaluate(
        self,
        cache: str | Sequence[str],
        source: AnySource,
        *,
        unknown: AnyItems | None = None,
        reject: float | bool = False,
        reject_below: float | None = None,
        precision: float | None = None,
        color: Color = "rgb",
        timeout: float | None = None,
    ) -> Evaluation | list[Evaluation]:
        """How well a version, or several side by side, do on labelled pictures.

        Args:
            cache: Which version; a list of them, to compare.
            source: As for `create_cache`; classes are matched with the version's
                by name.
            unknown: Pictures of classes that the versions do not know, as for
                `classify`: how well they are told from the others.
            reject: The share of known pictures to accept, as for `classify`:
                `Evaluation.unknown` says how much of what is accepted is right.
                True: 0.95.
            reject_below: Alternatively a threshold of your own.
            precision: Alternatively the precision that answers must have.
            color: The order of the channels of arrays; "bgr" is OpenCV's.
            timeout: Seconds for the whole; default: no bound.

        Returns:
            One `Evaluation`; for a list of caches a list.
        """
        rejecting = requests.reject_options(reject, reject_below, precision)
        names = [cache] if isinstance(cache, str) else list(cache)
        if not names:
            raise ValueError("evaluate needs at least one cache")
        version = await self.version(names[0])
        labelled = await off_loop(load, await collected(source), requests.class_specs(version))
        encoder = await self._encoder(color)
        others = None if unknown is None else items_of(await collected(unknown))
        repeatable = labelled.repeatable and (others is None or iter(others) is not others)

        async def attempt(left: float | None) -> list[Evaluation]:
            messages = requests.ExampleMessages([labelled], encoder, fail=False)
            async with uploading(
                lambda sent: self._classify.Evaluate.future(
                    sent, timeout=left, metadata=self._metadata
                ),
                messages.for_evaluate(names, others, rejecting),
                one_response=True,
            ) as call:
                response = await call.response()
            return Evaluation._all_from(response, messages.rejected)

        done = await self._upload(attempt, timeout, repeatable)
        return done[0] if isinstance(cache, str) else done

    # Fine-tuning.

    def finetune(
        self,
        cache: str,
        *,
        epochs: int = 0,
        learning_rate: float | None = None,
        batch_size: int = 0,
        schedule: Schedule | None = None,
        weight_decay: float | None = None,
        seed: int | None = None,
        patience: int = 0,
        move_alias: str = "",
        only_if_improved: bool = False,
        detached: bool = False,
        alpha: float | None = None,
        beta: float | None = None,
        grid: Grid | None = None,
        description: str = "",
        recipe: FineTuneRecipe | None = None,
        timeout: float | None = None,
    ) -> AsyncFineTune:
        """Fine-tunes a version into a new one, if that is better.

        Returns a handle at once: go through it for progress, ask it for
        `result()`, or `cancel()` it. Without a recipe, and without any of its
        numbers, a residual is trained on the version's own head, and kept only
        where it does better on examples that it has not seen: else the run is
        `unchanged`, and its version is the one it started from. With numbers, or
        the recipe "tip_adapter_f", the keys are trained; what is 0 or None is
        then as in the authors' recipe. Never repeated by itself.
        """
        request = requests.fine_tune_request(
            cache,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            schedule=schedule,
            weight_decay=weight_decay,
            seed=seed,
            patience=patience,
            move_alias=move_alias,
            only_if_improved=only_if_improved,
            detached=detached,
            alpha=alpha,
            beta=beta,
            grid=grid,
            description=description,
            recipe=recipe,
        )
        limit = allowed_seconds(timeout)
        return AsyncFineTune(
            Stream(lambda _: self._tune.FineTune(request, timeout=limit, metadata=self._metadata)),
            self.cancel_fine_tune,
            self._contact.failure,
        )

    async def fine_tunes(
        self, cache: str = "", *, page_size: int = 0
    ) -> AsyncIterator[FineTuneRun]:
        """Runs, newest first, of one cache or of all."""
        request = finetune_pb2.ListFineTunesRequest(cache=cache, page_size=page_size)
        async for page in self._pages(self._tune.ListFineTunes, request):
            for one in page.fine_tunes:
                yield FineTuneRun._from(one)

    async def fine_tune(self, name: str) -> FineTuneRun:
        """One run, by "fineTunes/{id}"."""
        request = finetune_pb2.GetFineTuneRequest(name=name)
        return FineTuneRun._from(await self._unary(self._tune.GetFineTune, request))

    async def cancel_fine_tune(self, name: str) -> FineTuneRun:
        """Cancels a run; one that has ended is left as it is."""
        request = finetune_pb2.CancelFineTuneRequest(name=name)
        return FineTuneRun._from(await self._unary(self._tune.CancelFineTune, request))
