"""A server in this process that does what a test tells it to, over real gRPC.

It stands in for what a real server does only rarely and on nobody's word: dying
in mid-stream, refusing, answering twice, answering out of order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tipserve._proto import (
    analysis_pb2,
    analysis_pb2_grpc,
    cache_pb2,
    cache_pb2_grpc,
    classify_pb2,
    classify_pb2_grpc,
    finetune_pb2,
    finetune_pb2_grpc,
)

IMAGE_SIZE = 32


def status(
    code: int, message: str, *, reason: str = "", retry: float | None = None, **metadata: str
) -> status_pb2.Status:
    """A google.rpc.Status with an ErrorInfo and a RetryInfo."""
    made = status_pb2.Status(code=code, message=message)
    details: list[Any] = []
    if reason:
        details.append(
            error_details_pb2.ErrorInfo(reason=reason, domain="tipserve", metadata=metadata)
        )
    if retry is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = Packed()
        packed.Pack(detail)
        made.details.append(packed)
    return made


def abort(context: grpc.ServicerContext, made: status_pb2.Status) -> None:
    """Ends the call with a rich status."""
    context.abort_with_status(rpc_status.to_status(made))


def answer(item: classify_pb2.Item, sequence: int) -> classify_pb2.ItemResult:
    """An answer by which the picture can be told: its bytes are the class's name."""
    text = item.input.encoded_image.decode("utf-8", "replace")
    return classify_pb2.ItemResult(
        id=item.id,
        sequence=sequence,
        classification=classify_pb2.Classification(
            version="caches/pets/versions/1",
            top=[classify_pb2.ClassScore(index=0, display_name=text, logit=1, probability=1)],
        ),
    )


def refusal(item: classify_pb2.Item, sequence: int, why: status_pb2.Status) -> Any:
    """An item's error."""
    return classify_pb2.ItemResult(id=item.id, sequence=sequence, error=why)


def numbered(requests: Iterator[Any]) -> Iterator[tuple[int, classify_pb2.Item]]:
    """The items of a stream with their sequence numbers; takes the configuration first."""
    sequence = 0
    for request in requests:
        for item in request.items.items:
            yield sequence, item
            sequence += 1


Behaviour = Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]]


def echo(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    """Answers every item at once."""
    for sequence, item in numbered(requests):
        yield classify_pb2.ClassifyStreamResponse(results=[answer(item, sequence)])


class FakeServer(
    analysis_pb2_grpc.AnalysisServiceServicer,
    cache_pb2_grpc.CacheServiceServicer,
    classify_pb2_grpc.ClassifyServiceServicer,
    finetune_pb2_grpc.FineTuneServiceServicer,
):
    """What each call does is an attribute that tests replace."""

    def __init__(self) -> None:
        self.limits = {"max_message_bytes": 64 * 1024}
        self.streams: list[Behaviour] = []
        """What each connection of ClassifyStream does, in turn; after the last: echo."""
        self.configs: list[classify_pb2.ClassifyStreamConfig] = []
        self.received: list[list[str]] = []
        """Ids of the items of each connection."""
        self.message_sizes: list[int] = []
        self.stream_ended = threading.Event()
        """Set when a stream's context is done, in whatever way."""
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, str]] = []
        self.unary: dict[str, Callable[[Any, grpc.ServicerContext], Any]] = {}
        self.creates: list[Callable[[list[Any], grpc.ServicerContext], Iterator[Any]]] = []
        self.create: Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]] | None = None
        self.add: Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]] | None = None
        self.export: Callable[[Any, grpc.ServicerContext], Iterator[Any]] | None = None
        self.imported: Callable[[Iterator[Any], grpc.ServicerContext], Any] | None = None
        self.fine_tune: Callable[[Any, grpc.ServicerContext], Iterator[Any]] | None = None
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self.address = ""

    def start(self) -> FakeServer:
        """Listens on a free port."""
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)]
        )
        for add in (
            analysis_pb2_grpc.add_AnalysisServiceServicer_to_server,
            cache_pb2_grpc.add_CacheServiceServicer_to_server,
            classify_pb2_grpc.add_ClassifyServiceServicer_to_server,
            finetune_pb2_grpc.add_FineTuneServiceServicer_to_server,
        ):
            add(self, self._server)
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        assert port
        self.address = f"127.0.0.1:{port}"
        self._server.start()
        return self

    def stop(self) -> None:
        """Drops all connections."""
        if self._server is not None:
            self._server.stop(grace=None).wait(10)

    # ClassifyService

    def ClassifyStream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with self._lock:
            number = len(self.received)
            self.received.append([])
            self.metadata.append({k: v for k, v in context.invocation_metadata()})
        behaviour = self.streams[number] if number < len(self.streams) else echo
        context.add_callback(self.stream_ended.set)

        def logged() -> Iterator[Any]:
            for request in requests:
                if request.WhichOneof("payload") == "config":
                    self.configs.append(request.config)
                self.message_sizes.append(request.ByteSize())
                self.received[number].extend(item.id for item in request.items.items)
                yield request

        yield from behaviour(logged(), context)

    def _call(self, name: str, request: Any, context: grpc.ServicerContext, default: Any) -> Any:
        self.calls.append((name, request))
        self.metadata.append({k: v for k, v in context.invocation_metadata()})
        do = self.unary.get(name)
        return do(request, context) if do is not None else default

    def GetServerInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        bundle = classify_pb2.BundleInfo(name="fake", width=4, image_size=IMAGE_SIZE)
        info = classify_pb2.ServerInfo(version="0", bundle=bundle, limits=self.limits)
        return self._call("GetServerInfo", request, context, info)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        made = answer(classify_pb2.Item(input=request.input), 0).classification
        return self._call(
            "Classify", request, context, classify_pb2.ClassifyResponse(classification=made)
        )

    def Embed(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("Embed", request, context, classify_pb2.EmbedResponse())

    def Evaluate(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return self._call("Evaluate", list(requests), context, classify_pb2.EvaluateResponse())

    # AnalysisService

    def GetDrift(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("GetDrift", request, context, analysis_pb2.Drift())

    # CacheService

    def CreateCache(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        assert self.create is not None
        self.calls.append(("CreateCache", None))
        yield from self.create(requests, context)

    def ListCaches(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("ListCaches", request, context, cache_pb2.ListCachesResponse())

    def GetCache(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("GetCache", request, context, cache_pb2.Cache(name="caches/pets"))

    def GetVersion(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("GetVersion", request, context, cache_pb2.Version(version=1))

    def SetAlias(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("SetAlias", request, context, cache_pb2.Cache(name="caches/pets"))

    def DeleteAlias(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("DeleteAlias", request, context, cache_pb2.Cache(name="caches/pets"))

    def DeleteCache(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("DeleteCache", request, context, Empty())

    def DeleteVersion(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("DeleteVersion", request, context, Empty())

    def PruneVersions(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("PruneVersions", request, context, cache_pb2.PruneVersionsResponse())

    def ListVersions(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("ListVersions", request, context, cache_pb2.ListVersionsResponse())

    def ListExamples(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._call("ListExamples", request, context, cache_pb2.ListExamplesResponse())

    def AddExamples(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        assert self.add is not None
        self.calls.append(("AddExamples", None))
        yield from self.add(requests, context)

    def ExportVersion(self, request: Any, context: grpc.ServicerContext) -> Any:
        assert self.export is not None
        self.calls.append(("ExportVersion", request))
        yield from self.export(request, context)

    def ImportVersion(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        assert self.imported is not None
        self.calls.append(("ImportVersion", None))
        return self.imported(requests, context)

    # FineTuneService

    def FineTune(self, request: Any, context: grpc.ServicerContext) -> Any:
        assert self.fine_tune is not None
        yield from self.fine_tune(request, context)

    def CancelFineTune(self, request: Any, context: grpc.ServicerContext) -> Any:
        run = finetune_pb2.FineTuneRun(
            name=request.name, state=finetune_pb2.FineTuneRun.STATE_CANCELLED
        )
        return self._call("CancelFineTune", request, context, run)


def pictures(count):
    """Distinct bytes that the fake server takes for pictures."""
    return [f"picture {i}".encode() for i in range(count)]


def class_names(results):
    """The best class of each result."""
    return [result.best.display_name for result in results]


def response(*results):
    """A message of ClassifyStream's answers."""
    return classify_pb2.ClassifyStreamResponse(results=results)
