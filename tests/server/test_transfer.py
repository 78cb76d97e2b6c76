"""ExportVersion and ImportVersion: one file between servers, and for Python."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import threading

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH, eventually
from wire import Problem, cache

METHODS = ["ZERO_SHOT", "TIP_ADAPTER", "GDA", "PROKER", "CLASS_MEAN", "TIP_ADAPTER_F", "AUTO"]


def refused(call) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Problem.of_call(caught.value)


def make(server, name, clusters, method="TIP_ADAPTER", count=30):
    points, labels = clusters.draw(labels=np.arange(count) % 5)
    tuned = method == "TIP_ADAPTER_F"
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes("abcde", clusters.weights),
        method=cache.METHOD_TIP_ADAPTER if tuned else getattr(cache, f"METHOD_{method}"),
        description="the first",
        labels={"team": "mill"},
        created_by="Ada",
    )
    examples = wire.examples_of(points, labels, prefix="é")
    held, held_labels = clusters.draw(labels=np.arange(10) % 5)
    examples += wire.examples_of(held, held_labels, validation=True, prefix="v")
    version = server.api.create(spec, examples).version
    if tuned:
        request = wire.finetune.FineTuneRequest(cache=name, epochs=2)
        version = list(server.api.tuning.FineTune(request))[-1].run.version
    return version


def remade(data: bytes, edit) -> bytes:
    """An export whose header and tensors were edited, sealed again as a careful forger would."""
    size = struct.unpack("<Q", data[:8])[0]
    header, tensors = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    metadata = header.pop("__metadata__")
    manifest = json.loads(metadata["tipserve.manifest"])
    manifest.pop("checksum")
    edit(manifest, header, tensors)
    text = json.dumps(manifest, indent=2)[:-2]
    digest = hashlib.sha256(text.encode()).hexdigest()
    metadata["tipserve.manifest"] = f'{text},\n  "checksum": "{digest}"\n}}\n'
    hasher = hashlib.sha256()
    for name in sorted(header, key=str.encode):
        one = header[name]
        shape = ",".join(map(str, one["shape"]))
        hasher.update(f"{name}\n{one['dtype']}\n{shape}\n".encode())
        hasher.update(tensors[slice(*one["data_offsets"])])
    metadata["tipserve.tensors_sha256"] = hasher.hexdigest()
    text = json.dumps({"__metadata__": metadata} | header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(tensors)


@pytest.mark.parametrize("method", METHODS)
def test_a_version_moves_to_another_server(
    serve, features, features_bundle, clusters, name, method
):
    made = make(features, name, clusters, method)
    header, data = features.api.export(f"{name}@latest")
    assert header.version == made and header.size_bytes == len(data)
    other = serve(features_bundle)
    imported = other.api.import_("caches/elsewhere", data)
    assert imported.name == "caches/elsewhere/versions/1"
    for field in ("description", "labels", "classes", "head", "key_count", "created_by",
                  "bundle_fingerprint", "fine_tune", "views"):  # fmt: skip
        assert getattr(imported, field) == getattr(made, field), field
    assert not imported.HasField("source") and not imported.parent
    assert features.api.examples(made.name) == other.api.examples("elsewhere")
    queries = [wire.embedding(q) for q in clusters.draw(20)[0]]
    np.testing.assert_allclose(
        other.api.logits("elsewhere", queries),
        features.api.logits(made.name, queries),
        rtol=1e-6,
        atol=1e-5,
    )
    # Again, as the next version; in pieces of any size; and from there on.
    assert other.api.import_("elsewhere", data, chunk=777).version == 2
    assert other.api.export("elsewhere@2")[0].version.version == 2
    assert other.api.add(cache.AddExamplesSpec(base="elsewhere@2")).version.version == 3


def test_python_opens_the_file(features, clusters, name, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load

    made = make(features, name, clusters)
    _, data = features.api.export(name)
    tensors = load(data)
    shapes = {key: (str(t.dtype), t.shape) for key, t in tensors.items()}
    for key, expected in {
        "keys": ("float32", (30, WIDTH)),
        "labels": ("int64", (30,)),
        "text": ("float32", (5, WIDTH)),
        "validation.features": ("float32", (10, WIDTH)),
        "validation.labels": ("int64", (10,)),
        "head.linear": ("float32", (5, WIDTH)),
        "head.weight": ("float32", (5,)),
        "example_ids.offsets": ("int64", (31,)),
        "validation.ids.offsets": ("int64", (11,)),
    }.items():
        assert shapes[key] == expected, key
    at, text = tensors["example_ids.offsets"], tensors["example_ids.bytes"].tobytes()
    assert [text[a:b].decode() for a, b in itertools.pairwise(at)] == [f"é{i}" for i in range(30)]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with safe_open(path, "np") as file:
        manifest = json.loads(file.metadata()["tipserve.manifest"])
    assert manifest["created_by"] == "Ada" and manifest["key_count"] == made.key_count
    assert manifest["source"] == {
        "received": 40,
        "rejected": 0,
        "inherited": 0,
        "removed": 0,
        "without_end_mark": 0,
    }
    # What the tests forge below is itself taken where nothing is wrong with it.
    features.api.import_(f"{name}-again", remade(data, lambda *_: None))


def test_damaged_and_cut_files_leave_nothing(serve, features_bundle, clusters, chance):
    server = serve(features_bundle)
    make(server, "x", clusters)
    _, data = server.api.export("x")
    for _ in range(40):
        at = int(chance.integers(len(data)))
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(chance.integers(8))
        for bad in (bytes(flipped), data[: max(at, 1)]):
            problem = refused(lambda b=bad: server.api.import_("bad", b))
            assert problem.code == grpc.StatusCode.INVALID_ARGUMENT, (at, problem)
            assert problem.reason == "CACHE_INVALID", (at, problem)
    for foreign in (b"\0" * 100, b"PK\3\4" * 50, json.dumps({"a": 1}).encode()):
        assert refused(lambda f=foreign: server.api.import_("bad", f)).reason == "CACHE_INVALID"
    from safetensors.numpy import save

    plain = save({"keys": np.ones((3, WIDTH), np.float32)})
    problem = refused(lambda: server.api.import_("bad", plain))
    assert problem.reason == "CACHE_INVALID" and "not an export" in problem.message
    assert server.api.ids() == ["caches/x"]
    assert not (server.store / "caches/bad").exists()


def edits():
    """What a file may say that is whole and still makes no sense."""

    def put(name, dtype, values):
        def edit(_, header, tensors):
            start, end = header[name]["data_offsets"]
            raw = np.asarray(values, dtype).tobytes()
            tensors[start : start + len(raw)] = raw
            assert start + len(raw) <= end

        return edit

    def say(path, value):
        def edit(manifest, *_):
            *way, last = path.split(".")
            for step in way:
                manifest = manifest[int(step) if step.isdigit() else step]
            manifest[last] = value

        return edit

    def drop(name):
        return lambda _, header, __: header.pop(name)

    def shape(name, value):
        def edit(_, header, __):
            header[name]["shape"] = value

        return edit

    return {
        "a key that is not finite": put("keys", np.float32, [np.nan]),
        "a key that is no unit vector": put("keys", np.float32, [7.0]),
        "a label over the classes": put("labels", np.int64, [5]),
        "a label under 0": put("labels", np.int64, [-1]),
        "labels that do not fit the counts": put("labels", np.int64, [1]),
        "a validation label over the classes": put("validation.labels", np.int64, [5]),
        "text that is not finite": put("text", np.float32, [np.inf]),
        "a head that is not finite": put("head.linear", np.float32, [np.nan]),
        "a weight that is not finite": put("head.weight", np.float32, [np.nan]),
        "ids out of order": put("example_ids.offsets", np.int64, [0, 9, 3]),
        "more keys than there are": say("key_count", 31),
        "another width": say("width", WIDTH // 2),
        "a class more": lambda m, *_: m["classes"].append(m["classes"][0]),
        "no class": say("classes", []),
        "views that are not there": say("views", 3),
        "a beta under 0": say("head.beta", -1.0),
        "a temperature of 0": say("head.temperature", 0.0),
        "another method": say("head.method", "proker"),
        "no such method": say("head.method", "best"),
        "keys of another shape": shape("keys", [15, WIDTH * 2]),
        "text of another shape": shape("text", [5 * WIDTH]),
        "a long description": say("description", "x" * 5000),
    }


EDITS = edits()


@pytest.fixture(scope="module")
def exported(features_bundle, tmp_path_factory):
    from conftest import Clusters, Server

    server = Server(features_bundle, tmp_path_factory.mktemp("exported") / "store")
    make(server, "x", Clusters(np.random.default_rng(1), 5))
    yield server, server.api.export("x")[1]
    server.close()


@pytest.mark.parametrize("what", EDITS)
def test_a_file_that_makes_no_sense_is_refused(exported, what):
    server, data = exported
    bad = remade(data, EDITS[what])
    problem = refused(lambda: server.api.import_("bad", bad))
    assert problem.code == grpc.StatusCode.INVALID_ARGUMENT, problem
    assert problem.reason in ("CACHE_INVALID", "LIMIT_EXCEEDED"), problem
    assert server.api.ids() == ["caches/x"]
    assert not (server.store / "caches/bad").exists()


def test_a_newer_format_says_so(exported):
    server, data = exported
    newer = remade(data, lambda manifest, *_: manifest.update(format=99))
    assert refused(lambda: server.api.import_("bad", newer)).reason == "NEWER_FORMAT"


def test_another_bundles_version_is_kept_only_where_asked(serve, exported, tiny_bundle):
    _, data = exported
    other = serve(tiny_bundle)
    problem = refused(lambda: other.api.import_("kept", data))
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_BUNDLE",
    )
    assert other.api.ids() == []
    assert other.api.import_("kept", data, allow_other_bundle=True).version == 1
    assert other.api.export("kept")[0].version.key_count == 30
    assert len(other.api.examples("kept")) == 40
    query = wire.embedding(np.ones(48))
    assert refused(lambda: other.api.one("kept", query)).reason == "WRONG_BUNDLE"


def test_size_and_limits(serve, features_bundle, exported):
    _, data = exported
    server = serve(features_bundle, "--max-import-bytes", str(len(data)))
    api = server.api
    info = api.classifying.GetServerInfo(wire.classify.GetServerInfoRequest())
    assert info.limits["max_import_bytes"] == len(data)
    problem = refused(lambda: api.import_("x", data + b" "))
    assert problem.reason == "LIMIT_EXCEEDED" and problem.fields == ["spec.size_bytes"]
    assert problem.metadata == {
        "limit": "max_import_bytes",
        "maximum": str(len(data)),
        "value": str(len(data) + 1),
    }
    for size in (0, -1, len(data) - 1):
        problem = refused(lambda s=size: api.import_("x", data, size_bytes=s))
        assert problem.reason == "FIELD_INVALID" and problem.fields == ["spec.size_bytes"]
    problem = refused(lambda: api.import_("x", data[:-1], size_bytes=len(data)))
    assert problem.fields == ["spec.size_bytes"] and str(len(data) - 1) in problem.message
    spec = cache.ImportVersionRequest(spec=cache.ImportSpec(cache_id="x", size_bytes=len(data)))
    chunk = cache.ImportVersionRequest(chunk=data)
    for requests, reason in (
        ([chunk], "MESSAGE_ORDER"),
        ([spec, spec], "MESSAGE_ORDER"),
        ([], "FIELD_MISSING"),
    ):
        problem = refused(lambda r=requests: api.caches.ImportVersion(iter(r)))
        assert problem.reason == reason
    for bad in ("", "..", "UP", "a/b"):
        assert refused(lambda b=bad: api.import_(b, data)).reason == "NAME_INVALID"
    assert api.ids() == []
    assert api.import_("x", data).version == 1
    small = serve(features_bundle, "--max-examples", "39", "--max-classes", "4")
    problem = refused(lambda: small.api.import_("x", data))
    assert problem.metadata["limit"] == "max_classes"


def test_a_client_that_goes_away_leaves_nothing(serve, features_bundle, exported):
    _, data = exported
    server = serve(features_bundle)
    stop, sent = threading.Event(), threading.Event()

    def requests():
        size = len(data)
        yield cache.ImportVersionRequest(spec=cache.ImportSpec(cache_id="x", size_bytes=size))
        yield cache.ImportVersionRequest(chunk=data[: size // 2])
        sent.set()
        stop.wait(60)

    call = server.api.caches.ImportVersion.future(requests())
    assert sent.wait(60)
    # One that is cancelled before the server has begun it is not counted.
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 1)
    call.cancel()
    stop.set()
    # A stream that was cancelled may look like one that ended too early.
    codes = ("CANCELLED", "INVALID_ARGUMENT")
    counts = [f'tipserve_requests_total{{method="ImportVersion",code="{c}"}}' for c in codes]
    eventually(lambda: sum(server.metrics().get(count, 0) for count in counts) == 1)
    assert server.api.ids() == [] and not (server.store / "caches/x").exists()
    # And an export that nobody reads to its end.
    server.api.import_("x", data)
    call = server.api.caches.ExportVersion(cache.ExportVersionRequest(name="x"))
    next(call)
    call.cancel()
    header, again = server.api.export("x")
    assert header.size_bytes == len(again)
    count = 'tipserve_requests_total{method="ExportVersion",code="OK"}'
    eventually(lambda: server.metrics().get(count, 0) >= 1)


def test_a_large_version_goes_through(features, clusters, name):
    points, labels = clusters.draw(labels=np.arange(20_000) % 5)
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("abcde"), method=cache.METHOD_CLASS_MEAN
    )
    features.api.create(spec, wire.examples_of(points, labels), batch=1000)
    header, data = features.api.export(name)
    assert len(data) == header.size_bytes > 5 << 20
    assert features.api.import_(f"{name}-b", data, chunk=1 << 20).key_count == 20_000
    listed = features.api.examples(f"{name}-b", page_size=7000)
    assert [e.example_id for e in listed] == [str(i) for i in range(20_000)]
