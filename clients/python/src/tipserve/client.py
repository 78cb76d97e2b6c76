"""The client for ordinary, blocking programs. `tipserve.aio` has the asyncio one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from tipserve import _requests as requests
from tipserve._channel import connection
from tipserve._finetune import FineTune
from tipserve._ledger import Ledger
from tipserve._proto import (
    cache_pb2,
    cache_pb2_grpc,
    classify_pb2,
    classify_pb2_grpc,
    finetune_pb2,
    finetune_pb2_grpc,
)
from tipserve._requests import Grid, Item
from tipserve._retry import RetryPolicy, is_transient
from tipserve._stream import ClassifyStream
from tipserve._upload import Broken, Uploading
from tipserve.errors import TipserveError, from_rpc_error
from tipserve.labelled import (
    ClassSpec,
    Source,
    choose_shots,
    default_id,
    load,
    load_validation,
)
from tipserve.pictures import Encoder, Picture
from tipserve.types import (
    Cache,
    CreateProgress,
    Embeddings,
    Evaluation,
    FineTuneRun,
    Method,
    Rejected,
    Result,
    ServerInfo,
    Version,
)

T = TypeVar("T")


class Client:
    """A connection to a tipserve server. Threads may share one.

    Every method raises `TipserveError`, of the subclass that fits the code,
    when the server refuses. A cache is named "pets", "pets@7", "pets@stable"
    or by its resource name.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = 60.0,
        resize: str = "server",
    ) -> None:
        """Connects lazily: a wrong address shows at the first call.

        Args:
            target: "host:port", or any name that gRPC resolves.
            token: A bearer token.
            credentials: For TLS: grpc.ssl_channel_credentials(...). Default: none.
            metadata: Headers to send with every call.
            retry: How calls that are safe to repeat are repeated.
            timeout: Seconds that a unary call may take, repetitions included.
            resize: "client" resizes and crops pictures here, with Pillow, to
                the pixels that the server would make of them, and sends
                those: less to send and to decode where pictures are large.
        """
        self._connection = connection(
            target,
            token=token,
            credentials=credentials,
            metadata=metadata,
            retry=retry,
            timeout=timeout,
            resize=resize,
        )
        self._channel = (
            grpc.insecure_channel(self._connection.target, self._connection.options)
            if self._connection.credentials is None
            else grpc.secure_channel(
                self._connection.target, self._connection.credentials, self._connection.options
            )
        )
        self._caches = cache_pb2_grpc.CacheServiceStub(self._channel)
        self._classify = classify_pb2_grpc.ClassifyServiceStub(self._channel)
        self._tune = finetune_pb2_grpc.FineTuneServiceStub(self._channel)
        self._info: ServerInfo | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls that run are cancelled."""
        self._channel.close()

    # The server.

    def server_info(self) -> ServerInfo:
        """Version, bundle, device and limits of the server."""
        self._info = ServerInfo._from(
            self._unary(self._classify.GetServerInfo, classify_pb2.GetServerInfoRequest())
        )
        return self._info

    def _encoder(self, *, resize: bool = True) -> Encoder:
        info = self._info or self.server_info()
        resizes = resize and self._connection.resize == "client" and info.bundle.image_size > 0
        return Encoder(
            max_message_bytes=requests.max_message_bytes(info),
            # The server then only crops: resizing to what it is changes nothing.
            image_size=(info.bundle.resize_to or info.bundle.image_size) if resizes else None,
        )

    # Caches.

    def create_cache(
        self,
        id: str,
        source: Source,
        *,
        classes: Sequence[str | ClassSpec] | None = None,
        shots: int | None = None,
        seed: int = 1,
        validation: Source | None = None,
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
            on_progress: Called with every progress message.
            timeout: Seconds for the whole; default: no bound.
        """
        labelled = load(source, classes)
        if shots is not None:
            labelled = choose_shots(labelled, shots, seed)
        parts = [labelled]
        if validation is not None:
            parts.append(load_validation(validation, labelled.classes))
        spec = requests.cache_spec(
            id,
            labelled,
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
        )
        # Augmented views are cut out of the whole picture.
        encoder = self._encoder(resize=views <= 1)
        repeatable = all(part.repeatable for part in parts)

        def attempt(left: float | None) -> Version:
            messages = requests.ExampleMessages(parts, encoder, on_rejected == "fail")
            upload = Uploading(messages.for_create(spec))
            rejected: list[Rejected] = []
            version: cache_pb2.Version | None = None
            call = self._caches.CreateCache(
                upload, timeout=left, metadata=self._connection.metadata
            )
            upload.started(call)
            try:
                for response in call:
                    event = response.WhichOneof("event")
                    if event == "progress" and on_progress is not None:
                        on_progress(CreateProgress._from(response.progress))
                    elif event == "rejected":
                        rejected.append(Rejected._from(response.rejected))
                    elif event == "version":
                        version = response.version
            except grpc.RpcError as error:
                raise upload.failure(error) from None
            finally:
                call.cancel()
            if version is None:
                raise TipserveError("the server ended the call without a version")
            return Version._from(version, [*messages.rejected, *rejected])

        return self._upload(attempt, timeout, repeatable, only_before_end=True)

    def _upload(
        self,
        attempt: Callable[[float | None], T],
        timeout: float | None,
        repeatable: bool,
        *,
        only_before_end: bool,
    ) -> T:
        """Runs a call that streams examples up, again where that is safe."""
        expires = None if timeout is None else time.monotonic() + timeout
        failures = 0
        while True:
            left = None if expires is None else expires - time.monotonic()
            try:
                return attempt(left)
            except Broken as broken:
                failures += 1
                delay = self._connection.retry.delay(failures, broken.error)
                safe = broken.nothing_made or not only_before_end
                if not (repeatable and safe and delay is not None) or (
                    expires is not None and time.monotonic() + delay >= expires
                ):
                    raise broken.error from None
            time.sleep(delay)

    def cache(self, name: str, *, fields: Sequence[str] | None = None) -> Cache:
        """One cache. `fields` names those to return, default all."""
        request = cache_pb2.GetCacheRequest(name=name, read_mask=requests.read_mask(fields))
        return Cache._from(self._unary(self._caches.GetCache, request))

    def caches(self, *, page_size: int = 0, fields: Sequence[str] | None = None) -> Iterator[Cache]:
        """All caches, ordered by id, fetched page by page."""
        request = cache_pb2.ListCachesRequest(
            page_size=page_size, read_mask=requests.read_mask(fields)
        )
        for page in self._pages(self._caches.ListCaches, request):
            yield from map(Cache._from, page.caches)

    def version(self, name: str, *, fields: Sequence[str] | None = None) -> Version:
        """One version, by any form of its name."""
        request = cache_pb2.GetVersionRequest(name=name, read_mask=requests.read_mask(fields))
        return Version._from(self._unary(self._caches.GetVersion, request))

    def versions(
        self, cache: str, *, page_size: int = 0, fields: Sequence[str] | None = None
    ) -> Iterator[Version]:
        """The versions of a cache, newest first, fetched page by page."""
        request = cache_pb2.ListVersionsRequest(
            parent=cache, page_size=page_size, read_mask=requests.read_mask(fields)
        )
        for page in self._pages(self._caches.ListVersions, request):
            yield from map(Version._from, page.versions)

    def delete_cache(self, name: str) -> None:
        """Deletes a cache with all its versions and aliases. Never repeated by itself."""
        self._unary(self._caches.DeleteCache, cache_pb2.DeleteCacheRequest(name=name), retry=False)

    def set_alias(self, cache: str, alias: str, version: int) -> Cache:
        """Points an alias at a version. Never repeated by itself."""
        request = cache_pb2.SetAliasRequest(cache=cache, alias=alias, version=version)
        return Cache._from(self._unary(self._caches.SetAlias, request, retry=False))

    def delete_alias(self, cache: str, alias: str) -> Cache:
        """Removes an alias; its version stays. Never repeated by itself."""
        request = cache_pb2.DeleteAliasRequest(cache=cache, alias=alias)
        return Cache._from(self._unary(self._caches.DeleteAlias, request, retry=False))

    # Classification.

    def classify(
        self,
        cache: str,
        items: Iterable[Picture | Item] | str,
        *,
        top_k: int = 5,
        logits: bool = False,
        probabilities: bool = False,
        neighbours: int = 0,
        embedding: bool = False,
        timings: bool = False,
        ordered: bool = True,
        priority: str = "interactive",
        time_limit: float | None = None,
        window: int = 512,
        window_bytes: int = 64 * 1024 * 1024,
        resend: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[Result]:
        """Classifies a stream of pictures; yields a result for every item.

        An item that fails is a result with `error`; only a failure of the
        whole stream raises. Exceptions of `items` are raised after the results
        of the items before. Closing the generator cancels the stream. Broken
        connections are opened again, and unanswered items sent again.

        `items` is read in a thread of its own, at most `window` items ahead
        of the results taken, so it may be as long as it likes.

        Args:
            cache: Which classifier.
            items: Pictures, or `Item`s that bring an id or a time limit, or a
                folder, whose pictures are taken in order.
            top_k: How many of the best classes.
            logits: Return all logits.
            probabilities: Return all probabilities.
            neighbours: How many of the nearest cached examples to return.
            embedding: Return the embedding.
            timings: Return how long each stage took.
            ordered: Results come in the order of the items; else as they are ready.
            priority: "interactive", or "bulk" for work that nobody waits for.
            time_limit: Seconds for which an item's answer is of use.
            window: How many items may be read and not yet handed out.
            window_bytes: How many bytes of unanswered pictures are held at most.
            resend: How often an item that is refused for now (a full queue) is
                sent again. Default: as often as the client's retry policy says.
            timeout: Seconds for the whole; default: no bound.
        """
        if window < 1 or window_bytes < 1:
            raise ValueError("window and window_bytes must be at least 1")
        source = requests.items_of(items)
        policy = self._connection.retry
        item_policy = policy if resend is None else requests.with_attempts(policy, resend)
        config = classify_pb2.ClassifyStreamConfig(
            cache=cache,
            options=requests.classify_options(
                top_k=top_k,
                logits=logits,
                probabilities=probabilities,
                neighbours=neighbours,
                embedding=embedding,
                timings=timings,
            ),
            # The order is put right here, across connections and resends; the
            # server need hold nothing back.
            ordered=False,
            priority=requests.priority(priority),
        )

        def results() -> Iterator[Result]:
            encoder = self._encoder()
            stream = ClassifyStream(
                lambda stream_requests, left: self._classify.ClassifyStream(
                    stream_requests, timeout=left, metadata=self._connection.metadata
                ),
                config,
                source,
                encoder.encode,
                Ledger(
                    ordered=ordered,
                    window=window,
                    window_bytes=window_bytes,
                    max_batch_bytes=requests.batch_bytes(encoder.max_message_bytes),
                    max_batch_items=requests.BATCH_ITEMS,
                    item_policy=item_policy,
                ),
                policy,
                time_limit=time_limit,
                timeout=timeout,
            )
            yield from stream.results()

        return results()

    def classify_one(
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
        priority: str = "interactive",
        timeout: float | None = None,
    ) -> Result:
        """Classifies one picture; raises where `classify` would give an `error`."""
        request = classify_pb2.ClassifyRequest(
            cache=cache,
            input=self._encoder().encode(picture),
            options=requests.classify_options(
                top_k=top_k,
                logits=logits,
                probabilities=probabilities,
                neighbours=neighbours,
                embedding=embedding,
                timings=timings,
            ),
            priority=requests.priority(priority),
        )
        response = self._unary(self._classify.Classify, request, timeout=timeout)
        return Result._from(default_id(picture, 0), 0, response.classification)

    def embed(
        self,
        pictures: Sequence[Picture] = (),
        texts: Sequence[str] = (),
        *,
        truncate: bool = False,
        raw: bool = False,
        strict: bool = True,
    ) -> Embeddings:
        """Embeds pictures and texts with the bundle's encoders.

        Args:
            pictures: Any number; they are sent in requests of a bounded size.
            texts: Any number.
            truncate: Cut texts that are too long instead of refusing them.
            raw: The encoder's output as it is, instead of unit vectors.
            strict: Raise for the first that fails; else its row is NaN and its
                error in `picture_errors` or `text_errors`.
        """
        plan = requests.embed_plan(pictures, texts, self._encoder(), truncate=truncate, raw=raw)
        for call in plan.calls():
            plan.take(call, self._unary(self._classify.Embed, call.request))
        info = self._info
        return plan.outcome(strict=strict, width=info.bundle.width if info else 0)

    def evaluate(
        self,
        cache: str | Sequence[str],
        source: Source,
        *,
        timeout: float | None = None,
    ) -> Evaluation | list[Evaluation]:
        """How well a version, or several side by side, do on labelled pictures.

        A folder's classes are matched with the version's by name.

        Returns:
            One `Evaluation`; for a list of caches a list.
        """
        names = [cache] if isinstance(cache, str) else list(cache)
        if not names:
            raise ValueError("evaluate needs at least one cache")
        labelled = load(source, requests.class_specs(self.version(names[0])))
        encoder = self._encoder()

        def attempt(left: float | None) -> list[Evaluation]:
            messages = requests.ExampleMessages([labelled], encoder, fail=False)
            upload = Uploading(messages.for_evaluate(names))
            call = self._classify.Evaluate.future(
                upload, timeout=left, metadata=self._connection.metadata
            )
            upload.started(call)
            try:
                response = call.result()
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                raise upload.failure(error) from None
            finally:
                call.cancel()
            return Evaluation._all_from(response, messages.rejected)

        done = self._upload(attempt, timeout, labelled.repeatable, only_before_end=False)
        return done[0] if isinstance(cache, str) else done

    # Fine-tuning.

    def finetune(
        self,
        cache: str,
        *,
        epochs: int = 0,
        learning_rate: float | None = None,
        batch_size: int = 0,
        schedule: str | None = None,
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
        timeout: float | None = None,
    ) -> FineTune:
        """Trains a version's keys (Tip-Adapter-F) into a new version.

        Returns a handle at once: go through it for progress, ask it for
        `result()`, or `cancel()` it. What is 0 or None is as in the authors'
        recipe. Never repeated by itself.
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
        )
        return FineTune(
            self._tune.FineTune(request, timeout=timeout, metadata=self._connection.metadata),
            self,
        )

    def fine_tunes(self, cache: str = "", *, page_size: int = 0) -> Iterator[FineTuneRun]:
        """Runs, newest first, of one cache or of all."""
        request = finetune_pb2.ListFineTunesRequest(cache=cache, page_size=page_size)
        for page in self._pages(self._tune.ListFineTunes, request):
            yield from map(FineTuneRun._from, page.fine_tunes)

    def fine_tune(self, name: str) -> FineTuneRun:
        """One run, by "fineTunes/{id}"."""
        request = finetune_pb2.GetFineTuneRequest(name=name)
        return FineTuneRun._from(self._unary(self._tune.GetFineTune, request))

    def cancel_fine_tune(self, name: str) -> FineTuneRun:
        """Cancels a run; one that has ended is left as it is."""
        request = finetune_pb2.CancelFineTuneRequest(name=name)
        return FineTuneRun._from(self._unary(self._tune.CancelFineTune, request))

    # Calls.

    def _unary(
        self, method: Any, request: Any, *, retry: bool = True, timeout: float | None = None
    ) -> Any:
        """A unary call, repeated where that is safe and the time suffices."""
        timeout = self._connection.timeout if timeout is None else timeout
        expires = None if timeout is None else time.monotonic() + timeout
        failures = 0
        while True:
            left = None if expires is None else max(expires - time.monotonic(), 0.001)
            try:
                return method(request, timeout=left, metadata=self._connection.metadata)
            except grpc.RpcError as raised:
                error = from_rpc_error(raised)
            failures += 1
            delay = self._connection.retry.delay(failures, error)
            if not (retry and is_transient(error)) or delay is None:
                raise error
            if expires is not None and time.monotonic() + delay >= expires:
                raise error
            time.sleep(delay)

    def _pages(self, method: Any, request: Any) -> Iterator[Any]:
        while True:
            page = self._unary(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
