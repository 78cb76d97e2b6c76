"""The connection of a blocking client, and how its calls are made and repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import grpc

from tipserve import _requests as requests
from tipserve._channel import Pem, connection
from tipserve._proto import (
    cache_pb2_grpc,
    classify_pb2,
    classify_pb2_grpc,
    finetune_pb2_grpc,
)
from tipserve._retry import RetryPolicy, is_transient
from tipserve._upload import Broken
from tipserve.errors import from_rpc_error
from tipserve.pictures import Encoder
from tipserve.types import ServerInfo

T = TypeVar("T")
Self = TypeVar("Self", bound="Calls")


class Calls:
    """What all of a client's methods stand on."""

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        root_certificates: Pem | None = None,
        client_certificate: tuple[Pem, Pem] | None = None,
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
            root_certificates: TLS with a server whose certificate one of these
                authorities issued: PEM as bytes, or a file's path. Default for
                "https://host:port": the authorities that gRPC brings.
            client_certificate: Mutual TLS: this client's certificate and its
                private key, each PEM as bytes or a file's path.
            credentials: Instead of both: grpc.ssl_channel_credentials(...).
            metadata: Headers to send with every call.
            retry: How calls that are safe to repeat are repeated.
            timeout: Seconds that a unary call may take, repetitions included.
            resize: "client" resizes and crops pictures here, with Pillow, to
                the pixels that the server would make of them, and sends
                those: less to send and to decode where pictures are large.
                "client-jpeg" sends them as JPEG of quality 95: a fifth of the
                bytes or less, and not quite the same pixels.
        """
        self._connection = connection(
            target,
            token=token,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
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

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls that run are cancelled."""
        self._channel.close()

    def server_info(self) -> ServerInfo:
        """Version, bundle, device and limits of the server."""
        self._info = ServerInfo._from(
            self._unary(self._classify.GetServerInfo, classify_pb2.GetServerInfoRequest())
        )
        return self._info

    def _encoder(self, *, resize: bool = True) -> Encoder:
        info = self._info or self.server_info()
        resizes = resize and self._connection.resize != "server" and info.bundle.image_size > 0
        return Encoder(
            max_message_bytes=requests.max_message_bytes(info),
            # The server then only crops: resizing to what it is changes nothing.
            image_size=(info.bundle.resize_to or info.bundle.image_size) if resizes else None,
            crop_size=info.bundle.image_size or None,
            jpeg=self._connection.resize == "client-jpeg",
        )

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
