"""A thin layer over the generated stubs: what a client written from the protos alone would do."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
import numpy as np
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tipserve._proto import analysis_pb2 as analysis
from tipserve._proto import analysis_pb2_grpc as analysis_grpc
from tipserve._proto import bundle_pb2 as bundle
from tipserve._proto import bundle_pb2_grpc as bundle_grpc
from tipserve._proto import cache_pb2 as cache
from tipserve._proto import cache_pb2_grpc as cache_grpc
from tipserve._proto import classify_pb2 as classify
from tipserve._proto import classify_pb2_grpc as classify_grpc
from tipserve._proto import finetune_pb2 as finetune
from tipserve._proto import finetune_pb2_grpc as finetune_grpc
from tipserve._proto import input_pb2 as inputs

__all__ = ["Api", "Problem", "analysis", "bundle", "cache", "classify", "finetune", "inputs"]

LIMIT = 120

METHODS = {
    method.name
    for module in (analysis, bundle, cache, classify, finetune)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
} | {
    # What is offered of the Open Inference Protocol; the rest of it is "other".
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "other",
}
"""What the metrics' label `method` says."""
LARGE = 256 << 20


@dataclass
class Problem:
    """A google.rpc.Status taken apart."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict = field(default_factory=dict)
    fields: list = field(default_factory=list)
    retry: float | None = None

    @classmethod
    def of_status(cls, status) -> Problem:
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        problem = cls(code, status.message)
        info = error_details_pb2.ErrorInfo()
        request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        for detail in status.details:
            if detail.Unpack(info):
                assert info.domain == "tipserve"
                problem.reason, problem.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(request):
                problem.fields = [violation.field for violation in request.field_violations]
            elif detail.Unpack(retry):
                problem.retry = retry.retry_delay.ToTimedelta().total_seconds()
        return problem

    @classmethod
    def of_call(cls, error) -> Problem:
        status = rpc_status.from_call(error)
        if status is None:
            return cls(error.code(), error.details())
        return cls.of_status(status)


@dataclass
class Created:
    """What CreateCache answered."""

    version: cache.Version
    progress: list
    rejected: dict
    kinds: list


class Api:
    """The services at an address."""

    def __init__(self, address: str) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        if address.startswith("unix:"):
            # gRPC makes a host's name of the path, which HTTP/2 does not allow.
            options.append(("grpc.default_authority", "localhost"))
        self.address = address
        self.channel = grpc.insecure_channel(address, options)
        self.caches = cache_grpc.CacheServiceStub(self.channel)
        self.classifying = classify_grpc.ClassifyServiceStub(self.channel)
        self.tuning = finetune_grpc.FineTuneServiceStub(self.channel)
        self.analysing = analysis_grpc.AnalysisServiceStub(self.channel)
        self.bundles = bundle_grpc.BundleServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def create(self, spec, examples=(), *, batch=64, timeout=LIMIT) -> Created:
        """Makes a version; raises grpc.RpcError."""
        call = self.caches.CreateCache(requests_of(spec, examples, batch), timeout=timeout)
        return self._created(call)

    def add(self, spec, examples=(), *, batch=64, timeout=LIMIT) -> Created:
        """Makes a version from another; raises grpc.RpcError."""
        requests = requests_of(spec, examples, batch, cache.AddExamplesRequest)
        return self._created(self.caches.AddExamples(requests, timeout=timeout))

    def _created(self, call) -> Created:
        created = Created(cache.Version(), [], {}, [])
        for response in call:
            kind = response.WhichOneof("event")
            created.kinds.append(kind)
            if kind == "progress":
                created.progress.append(response.progress)
            elif kind == "rejected":
                created.rejected[response.rejected.example_id] = response.rejected
            else:
                created.version.CopyFrom(response.version)
        return created

    def stream(self, reference, items, *, batch=16, ordered=False, timeout=LIMIT, **options):
        """ClassifyStream's results, as they come."""
        config = classify.ClassifyStreamConfig(
            cache=reference, ordered=ordered, options=classify.ClassifyOptions(**options)
        )

        def requests():
            yield classify.ClassifyStreamRequest(config=config)
            for part in batched(items, batch):
                yield classify.ClassifyStreamRequest(items=classify.ItemBatch(items=part))

        for response in self.classifying.ClassifyStream(requests(), timeout=timeout):
            yield from response.results

    def logits(self, reference, contents) -> np.ndarray:
        """Every input's logits, [B,N] in float64."""
        items = [item(str(i), content) for i, content in enumerate(contents)]
        rows = []
        for result in self.stream(reference, items, ordered=True, logits=True):
            assert result.WhichOneof("outcome") == "classification", result
            rows.append(result.classification.logits)
        assert len(rows) == len(items)
        return np.array(rows, np.float64)

    def one(self, reference, content, timeout=LIMIT, **options):
        """Classify, unary."""
        request = classify.ClassifyRequest(
            cache=reference, input=content, options=classify.ClassifyOptions(**options)
        )
        return self.classifying.Classify(request, timeout=timeout).classification

    def examples(self, parent, **options) -> list:
        """Every example of a version, over as many pages as it takes."""
        request, found = cache.ListExamplesRequest(parent=parent, **options), []
        while True:
            page = self.caches.ListExamples(request, timeout=LIMIT)
            found.extend(page.examples)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def export(self, name) -> tuple[cache.ExportHeader, bytes]:
        """ExportVersion: its header and the file."""
        first, *parts = self.caches.ExportVersion(
            cache.ExportVersionRequest(name=name), timeout=LIMIT
        )
        assert first.WhichOneof("payload") == "header"
        assert all(0 < len(part.chunk) <= 1 << 20 for part in parts)
        return first.header, b"".join(part.chunk for part in parts)

    def import_(self, cache_id, data: bytes, *, chunk=100_000, **options) -> cache.Version:
        """ImportVersion of a file."""

        def requests():
            fields = {"cache_id": cache_id, "size_bytes": len(data)} | options
            yield cache.ImportVersionRequest(spec=cache.ImportSpec(**fields))
            for at in range(0, len(data), chunk):
                yield cache.ImportVersionRequest(chunk=data[at : at + chunk])

        return self.caches.ImportVersion(requests(), timeout=LIMIT)

    def ids(self) -> list[str]:
        """The names of all caches."""
        page = self.caches.ListCaches(cache.ListCachesRequest(page_size=1000), timeout=LIMIT)
        return [one.name for one in page.caches]


def requests_of(spec, examples, batch=64, kind=cache.CreateCacheRequest):
    """CreateCache's or AddExamples' requests."""
    yield kind(spec=spec)
    for part in batched(examples, batch):
        yield kind(examples=cache.ExampleBatch(examples=part))


def batched(things, size):
    """Lists of at most `size`."""
    part = []
    for thing in things:
        part.append(thing)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def embedding(values) -> inputs.Input:
    """An embedding as an input."""
    return inputs.Input(embedding=inputs.Embedding(values=np.asarray(values, np.float32)))


def encoded(data: bytes) -> inputs.Input:
    """A picture file as an input."""
    return inputs.Input(encoded_image=data)


def item(name, content, limit: float | None = None) -> classify.Item:
    """One item of ClassifyStream."""
    one = classify.Item(id=name, input=content)
    if limit is not None:
        one.time_limit.CopyFrom(
            duration_pb2.Duration(seconds=int(limit), nanos=round(limit % 1 * 1e9))
        )
    return one


def classes(names, weights=None) -> list:
    """Classes, with text weights where given."""
    made = [cache.ClassSpec(display_name=name) for name in names]
    if weights is not None:
        for one, row in zip(made, weights, strict=True):
            one.text_weight.values.extend(np.asarray(row, np.float32).tolist())
    return made


def example(label, content, name="", *, validation=False) -> cache.Example:
    """One labelled example."""
    return cache.Example(
        example_id=name, class_index=int(label), input=content, validation=validation
    )


def examples_of(points, labels, *, validation=False, prefix="") -> list:
    """Embeddings with their classes, with ids "prefix0", "prefix1" and so on."""
    return [
        example(label, embedding(point), f"{prefix}{i}", validation=validation)
        for i, (point, label) in enumerate(zip(points, labels, strict=True))
    ]
