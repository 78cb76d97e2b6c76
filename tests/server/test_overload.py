"""Overload and faults: refusals with a reason, backpressure by flow control, a broken device,
pictures sent again. Encoders of a few lines make a server slow, or break it, on purpose."""

from __future__ import annotations

import hashlib
import threading

import e2e_formula as formula
import grpc
import numpy as np
import pytest
import torch
import wire
from conftest import eventually
from pictures import photo, png
from PIL import Image
from test_hostile_messages import peak, reset_peak
from wire import Problem, cache, classify


class Mean(torch.nn.Module):
    """The mean colour in 4 by 4 fields, 48 wide; slow on request, and broken by pure white."""

    def __init__(self, work: int) -> None:
        super().__init__()
        self.work = work
        self.register_buffer("mixing", torch.eye(192))

    def forward(self, x):
        if bool((x > 0.999).all(3).all(2).all(1).any()):
            raise RuntimeError("CUDA error: device-side assert triggered")
        busy = self.mixing
        for _ in range(self.work * x.shape[0]):
            busy = busy @ self.mixing
        means = torch.nn.functional.adaptive_avg_pool2d(x.float(), (4, 4)).flatten(1)
        return means + 0.1 + 0 * busy.sum()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Bundles with an image encoder alone, by how much a picture costs."""

    def make(work: int):
        folder = tmp_path_factory.mktemp(f"mean-{work}")
        torch.jit.script(Mean(work).eval()).save(folder / "image.pt")
        digest = hashlib.sha256((folder / "image.pt").read_bytes()).hexdigest()
        (folder / "bundle.toml").write_text(
            f'format = 1\nname = "mean"\nwidth = 48\nlogit_scale = 100.0\n'
            f'templates = ["a {{}}."]\n'
            f'[image]\nfile = "image.pt"\nsize = 32\nmean = [0.0, 0.0, 0.0]\n'
            f'std = [1.0, 1.0, 1.0]\nresize = "shortest-side"\nresize_to = 32\n'
            f'interpolation = "bicubic"\n[files]\n"image.pt" = "{digest}"\n'
        )
        return folder

    return make


def two_classes(server, chance, name):
    """A cache of two pictures."""
    examples = [wire.example(k, wire.encoded(png(photo(chance, k)))) for k in (0, 1)]
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes("ab"),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1.0,
        beta=3.0,
    )
    server.api.create(spec, examples)


CACHE = "tipserve_embedding_cache_"


def grown(server, before):
    after = server.metrics()
    return lambda name: after[name] - before[name]


def test_pictures_sent_again_are_encoded_once_if_asked_for(serve, tiny_bundle, chance):
    bound = 1 << 20
    flags = ("--dtype", "float32", "--embedding-cache-bytes")
    on = serve(tiny_bundle, *flags, str(bound))
    off = serve(tiny_bundle, *flags[:2])
    state = chance.bit_generator.state
    for server in (on, off):
        chance.bit_generator.state = state
        two_classes(server, chance, "c")
    files = [png(photo(chance, k)) for k in range(7)]
    items = [wire.item(str(i), wire.encoded(files[i % 7])) for i in range(70)]

    def answers(server):
        results = list(server.api.stream("c", items, ordered=True, logits=True, embedding=True))
        assert [r.id for r in results] == [str(i) for i in range(70)]
        return [r.classification for r in results]

    expected = answers(off)
    assert all(off.metrics()[CACHE + name] == 0 for name in ("hits_total", "misses_total"))
    assert off.metrics()[CACHE + "entries"] == 0
    for passed in range(2):
        before = on.metrics()
        got = answers(on)
        counted = grown(on, before)
        hits, coalesced = counted(CACHE + "hits_total"), counted(CACHE + "coalesced_total")
        assert hits + coalesced + counted(CACHE + "misses_total") == 70
        encoded = 0 if passed else 7
        assert counted(CACHE + "misses_total") == encoded
        assert counted("tipserve_batch_size_pictures_sum") == encoded
        assert counted("tipserve_decode_seconds_count") == encoded
        # Batches of another shape may differ in the last bits: not equal, but the same direction.
        for one, other in zip(got, expected, strict=True):
            a, b = (formula.unit(np.array([r.embedding.values], float))[0] for r in (one, other))
            assert a @ b > 1 - 1e-6
            np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=2e-3)
    metrics = on.metrics()
    assert metrics[CACHE + "entries"] == 9  # with the two examples
    assert 9 * 48 * 4 < metrics[CACHE + "bytes"] <= bound


def test_a_broken_device_makes_the_server_unready_and_says_so(serve, bundle, chance):
    server = serve(bundle(0), "--dtype", "float32")
    two_classes(server, chance, "c")
    good = wire.encoded(png(photo(chance)))
    assert server.api.one("c", good).top
    assert server.http("/readyz") == (200, "ready\n")
    white = wire.encoded(png(Image.new("RGB", (50, 50), "white")))
    for content in (white, good):
        with pytest.raises(grpc.RpcError) as caught:
            server.api.one("c", content)
        problem = Problem.of_call(caught.value)
        assert (problem.code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "DEVICE_BROKEN")
        assert problem.retry > 0
    assert server.http("/readyz") == (503, "the device is broken\n")
    assert server.http("/healthz")[0] == 200
    health = server.api.channel.unary_unary("/grpc.health.v1.Health/Check")
    eventually(lambda: health(b"", timeout=60) == b"\x08\x02")
    assert "the device is broken" in server.log.read_text()


def test_overload_refuses_an_item_that_would_miss_its_deadline(serve, bundle, chance):
    server = serve(bundle(40), "--dtype", "float32", "--max-batch", "4")
    two_classes(server, chance, "c")
    before = server.metrics()
    picture = wire.encoded(png(photo(chance)))
    # The first 120 take a while; the others would have to be answered before them.
    items = [wire.item(str(i), picture, None if i < 120 else 0.002) for i in range(180)]
    results = {int(r.id): r for r in server.api.stream("c", items)}
    assert sorted(results) == list(range(180))
    assert all(results[i].WhichOneof("outcome") == "classification" for i in range(120))
    refused = 0
    for i in range(120, 180):
        problem = Problem.of_status(results[i].error)
        if problem.reason == "DEADLINE_UNREACHABLE":
            assert problem.code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert problem.retry > 0
            refused += 1
        else:
            assert problem.code == grpc.StatusCode.DEADLINE_EXCEEDED
    counted = grown(server, before)
    assert refused >= 40
    assert counted('tipserve_refused_items_total{reason="deadline"}') == refused
    # None of them was encoded, nor decoded.
    assert counted("tipserve_batch_size_pictures_sum") == 120
    assert counted("tipserve_decode_seconds_count") == 120


def test_overload_refuses_unary_calls_and_names_the_bound(serve, bundle, chance):
    flags = ("--dtype", "float32", "--queue-items", "4", "--workers", "1")
    server = serve(bundle(400), *flags)
    two_classes(server, chance, "c")
    picture = wire.encoded(png(photo(chance)))
    stub = server.api.classifying.Classify
    calls = [
        stub.future(classify.ClassifyRequest(cache="c", input=picture), timeout=wire.LIMIT)
        for _ in range(24)
    ]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, server.metrics()["tipserve_in_flight_items"])
    assert most <= 4
    full = [Problem.of_call(call.exception()) for call in calls if call.exception()]
    assert 0 < len(full) < 24
    for problem in full:
        assert (problem.code, problem.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "QUEUE_FULL",
        )
        assert problem.metadata == {"limit": "queue_items", "value": "4"}
        assert problem.retry > 0
    refused = server.metrics()['tipserve_refused_items_total{reason="queue_items"}']
    assert refused == len(full)


@pytest.mark.parametrize(
    ("flags", "most"),
    [(("--stream-window", "8"), 8), (("--queue-bytes", str(8 << 20)), 8)],
)
def test_backpressure_slows_a_stream_that_sends_faster_than_it_is_served(
    serve, bundle, chance, flags, most
):
    """By flow control: the client's sends wait; the server holds no more than its bound."""
    server = serve(bundle(10), "--dtype", "float32", "--workers", "1", *flags)
    two_classes(server, chance, "c")
    side = 590
    data = chance.integers(0, 256, side * side * 3, np.uint8).tobytes()  # about 1 MiB
    picture = wire.inputs.Input(raw_rgb=wire.inputs.RawRgb(width=side, height=side, data=data))
    total, pulled, answered, ahead = 100, 0, 0, []
    watching = threading.Event()
    held = []

    def watch():
        while not watching.wait(0.02):
            metrics = server.metrics()
            held.append((metrics["tipserve_in_flight_items"], metrics["tipserve_in_flight_bytes"]))

    def items():
        nonlocal pulled
        for i in range(total):
            pulled += 1
            ahead.append(pulled - answered)
            yield wire.item(str(i), picture)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for result in server.api.stream("c", items(), batch=1):
            assert result.WhichOneof("outcome") == "classification", result
            answered += 1
    finally:
        watching.set()
        watcher.join()
    assert answered == total
    print(f"at most {max(ahead)} items ahead of the answers; held {max(held)}")
    # The bound, HTTP/2's window of 2 MiB, and what client and server have in hand.
    assert max(ahead) <= most + 8
    # One more waits for admission.
    assert max(items for items, _ in held) <= most + 1
    assert max(size for _, size in held) <= (most + 1) << 20


def test_messages_whose_items_wait_for_admission_stay_within_the_budget(serve, bundle, chance):
    """They have arrived, and still take their bytes: others wait in flow control."""
    flags = ("--queue-bytes", str(8 << 20), "--max-unfinished-bytes", str(64 << 20))
    server = serve(bundle(150), "--dtype", "float32", "--workers", "1", *flags)
    side = 1000
    data = chance.integers(0, 256, side * side * 3, np.uint8).tobytes()
    picture = wire.inputs.Input(raw_rgb=wire.inputs.RawRgb(width=side, height=side, data=data))
    # 29 MiB each: 12 of them are five times the budget.
    request = classify.EmbedRequest(inputs=[picture] * 10)
    before = reset_peak(server)
    calls = [server.api.classifying.Embed.future(request, timeout=300) for _ in range(12)]
    # The first is answered, so others have arrived.
    assert len(calls[0].result().inputs) == 10
    grown_by = peak(server) - before
    print(f"{grown_by >> 20} MiB more")
    for call in calls:
        call.cancel()
    assert grown_by < 160 << 20


def test_order_is_kept_whatever_each_item_takes(serve, bundle, chance):
    server = serve(bundle(2), "--dtype", "float32", "--max-batch", "3")
    two_classes(server, chance, "c")
    small, large = (wire.encoded(png(photo(chance, side=side))) for side in ((40, 60), (700, 900)))
    bad = wire.encoded(b"no picture")
    kinds = chance.choice(4, 300)
    contents = [
        small,
        large,
        bad,
        wire.embedding(chance.normal(size=48)),
    ]
    items = [
        wire.item(str(i), contents[kind], 1e-6 if i % 17 == 5 else None)
        for i, kind in enumerate(kinds)
    ]
    results = list(server.api.stream("c", items, ordered=True, batch=7))
    assert [r.id for r in results] == [str(i) for i in range(300)]
    assert [r.sequence for r in results] == list(range(300))
    for i, result in enumerate(results):
        failed = kinds[i] == 2 or i % 17 == 5
        assert (result.WhichOneof("outcome") == "error") == failed, result
