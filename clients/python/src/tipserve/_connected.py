"""What the blocking and the asyncio client have in common: a channel and its services."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from tipserve import _requests as requests
from tipserve._channel import Pem, connection
from tipserve._decode import PictureLimits
from tipserve._proto import cache_pb2_grpc, classify_pb2_grpc, finetune_pb2_grpc
from tipserve._retry import RetryPolicy
from tipserve.pictures import INTERPOLATIONS, Encoder
from tipserve.types import ServerInfo


class Connected:
    """A channel to a server, and what is known of the server."""

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

    def _encoder_for(self, info: ServerInfo, resize: bool) -> Encoder:
        bundle = info.bundle
        # A server of before this field means bicubic. Another kernel than these
        # is a newer server's own matter.
        interpolation = bundle.interpolation or "bicubic"
        resizes = (
            resize
            and self._connection.resize != "server"
            and bundle.image_size > 0
            and interpolation in INTERPOLATIONS
        )
        return Encoder(
            max_message_bytes=requests.max_message_bytes(info),
            # The server then only crops: resizing to what it is changes nothing.
            image_size=(bundle.resize_to or bundle.image_size) if resizes else None,
            crop_size=bundle.image_size or None,
            interpolation=interpolation,
            jpeg=self._connection.resize == "client-jpeg",
            limits=PictureLimits(
                side=info.limits.get("max_side", 0), pixels=info.limits.get("max_pixels", 0)
            ),
        )
