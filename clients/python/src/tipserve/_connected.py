"""What the blocking and the asyncio client have in common: a channel and its services."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from tipserve import _requests as requests
from tipserve._channel import Pem, Resize, connection
from tipserve._contact import Contact
from tipserve._decode import PictureLimits
from tipserve._proto import (
    analysis_pb2_grpc,
    bundle_pb2_grpc,
    cache_pb2_grpc,
    classify_pb2_grpc,
    finetune_pb2_grpc,
)
from tipserve._retry import RetryPolicy
from tipserve.errors import FailedPrecondition
from tipserve.pictures import INTERPOLATIONS, RESIZE_RULES, Encoder
from tipserve.types import ServerInfo


class Connected:
    """A channel to a server, and what is known of the server."""

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        root_certificates: Pem | None = None,
        client_certificate: tuple[Pem, Pem] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = 60.0,
        connect_timeout: float = 5.0,
        wait: float = 0.0,
        resize: Resize = "server",
    ) -> None:
        """Connects lazily: a wrong address shows at the first call.

        Args:
            target: "host:port", "https://host:port", or any name that gRPC
                resolves; a host alone means port 50051. Default:
                $TIPSERVE_SERVER, else this machine.
            token: A bearer token. Default: $TIPSERVE_TOKEN, else what is in
                the file $TIPSERVE_TOKEN_FILE.
            root_certificates: TLS with a server whose certificate one of these
                authorities issued: PEM as bytes, or a file's path. Default:
                $TIPSERVE_CA; for "https://host:port" the authorities that
                gRPC brings.
            client_certificate: Mutual TLS: this client's certificate and its
                private key, each PEM as bytes or a file's path. Default:
                $TIPSERVE_CERT and $TIPSERVE_KEY.
            credentials: Instead of both: grpc.ssl_channel_credentials(...).
            metadata: Headers to send with every call.
            retry: How calls that are safe to repeat are repeated.
            timeout: Seconds that a unary call may take, repetitions included; None
                or 0: no bound.
            connect_timeout: Seconds that connecting may take.
            wait: Seconds to wait for a server that is not there yet. Default:
                the first call says at once that there is none.
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
            connect_timeout=connect_timeout,
            wait=wait,
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
        self._bundles = bundle_pb2_grpc.BundleServiceStub(self._channel)
        self._analysis = analysis_pb2_grpc.AnalysisServiceStub(self._channel)
        self._info: ServerInfo | None = None
        self._contact = Contact(self._connection)

    def __repr__(self) -> str:
        state = ", closed" if self._contact.closed else ""
        return f"<{type(self).__name__} of {self._connection.target}{state}>"

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of a call; raises if the client is closed."""
        if self._contact.closed:
            raise FailedPrecondition("this client is closed", reason="CLIENT_CLOSED")
        return self._connection.metadata

    def _encoder_for(self, info: ServerInfo, resize: bool, color: str) -> Encoder:
        bundle = info.bundle
        # A server of before these fields means bicubic, and the shortest side.
        # Other values than these are the server's own matter.
        interpolation = bundle.interpolation or "bicubic"
        resize_rule = bundle.resize or "shortest-side"
        resizes = (
            resize
            and self._connection.resize != "server"
            and bundle.image_size > 0
            and interpolation in INTERPOLATIONS
            and resize_rule in RESIZE_RULES
        )
        return Encoder(
            max_message_bytes=requests.max_message_bytes(info),
            # The server then only crops: resizing to what it is changes nothing.
            image_size=(bundle.resize_to or bundle.image_size) if resizes else None,
            crop_size=bundle.image_size or None,
            interpolation=interpolation,
            squash=resize_rule == "squash",
            jpeg=self._connection.resize == "client-jpeg",
            color=color,
            limits=PictureLimits(
                side=info.limits.get("max_side", 0),
                pixels=info.limits.get("max_pixels", 0),
                decoder_bytes=info.limits.get("max_decoder_bytes", 0),
            ),
        )
