"""Unary calls and uploads: errors with their details, and what is repeated."""

from __future__ import annotations

import asyncio
import pickle
import time

import fake_server as fs
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import tipserve
from tipserve._proto import cache_pb2, classify_pb2, finetune_pb2
from tipserve.errors import Code, from_status


def fails(times, made, then):
    """A call that fails so often and then answers."""
    left = iter(range(times))

    def do(request, context):
        if next(left, None) is not None:
            if isinstance(made, status_pb2.Status):
                fs.abort(context, made)
            context.abort(made, "away")
        return then

    return do


def count(fake, name):
    return sum(called == name for called, _ in fake.calls)


# Errors


def test_errors_carry_all_that_the_server_said(fake, call):
    made = fs.status(3, "bad id", reason="CACHE_ID_INVALID", retry=1.5, value="a/b", limit="63")
    packed = made.details.add()
    packed.Pack(
        error_details_pb2.BadRequest(
            field_violations=[{"field": "spec.cache_id", "description": "has a slash"}]
        )
    )
    made.details.add().Pack(error_details_pb2.RequestInfo(request_id="r-17"))
    made.details.add(type_url="type.googleapis.com/of.the.Future", value=b"\xff")
    fake.unary["GetCache"] = lambda request, context: fs.abort(context, made)
    with pytest.raises(tipserve.InvalidArgument) as caught:
        call("cache", "a/b")
    error = caught.value
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message == "bad id"
    assert error.reason == "CACHE_ID_INVALID"
    assert error.domain == "tipserve"
    assert error.metadata == {"value": "a/b", "limit": "63"}
    assert error.violations == (tipserve.FieldViolation("spec.cache_id", "has a slash"),)
    assert error.retry_delay == 1.5
    assert error.request_id == "r-17"
    for part in ("INVALID_ARGUMENT", "bad id", "CACHE_ID_INVALID", "spec.cache_id"):
        assert part in str(error)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_every_code_has_its_exception(code):
    error = from_status(status_pb2.Status(code=code, message="m"))
    assert error.code is code
    if code is not Code.UNKNOWN:
        assert type(error) is not tipserve.TipserveError
        assert type(error).__name__ == code.name.title().replace("_", "")


def test_errors_survive_pickling():
    error = from_status(fs.status(8, "full", reason="QUEUE_FULL", retry=2.0, queue="decode"))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is tipserve.ResourceExhausted
    assert (again.message, again.reason, again.metadata, again.retry_delay) == (
        "full",
        "QUEUE_FULL",
        {"queue": "decode"},
        2.0,
    )


def test_an_unreachable_server_is_unavailable(call, fake):
    fake.stop()
    with pytest.raises(tipserve.Unavailable):
        call("server_info", retry=tipserve.NO_RETRIES)


# Retries


def test_reads_are_repeated(fake, call):
    fake.unary["GetCache"] = fails(
        2, grpc.StatusCode.UNAVAILABLE, cache_pb2.Cache(name="caches/pets")
    )
    assert call("cache", "pets").id == "pets"
    assert count(fake, "GetCache") == 3


def test_reads_are_repeated_after_the_delay_that_the_server_named(fake, call):
    stamps = []
    refuse = fails(1, fs.status(8, "full", retry=0.3), cache_pb2.Cache(name="caches/pets"))

    def do(request, context):
        stamps.append(time.monotonic())
        return refuse(request, context)

    fake.unary["GetCache"] = do
    call("cache", "pets")
    # Not about speed: never sooner than the server asked for.
    assert stamps[1] - stamps[0] >= 0.3


@pytest.mark.parametrize(
    "made",
    [
        fs.status(5, "no such cache"),
        fs.status(8, "over the quota"),  # no delay: for good
        fs.status(13, "a mistake", reason="BUG"),
        fs.status(8, "come back tomorrow", retry=86_400),
    ],
)
def test_what_will_not_change_is_not_repeated(fake, call, made):
    fake.unary["GetCache"] = fails(1, made, cache_pb2.Cache())
    with pytest.raises(tipserve.TipserveError):
        call("cache", "pets")
    assert count(fake, "GetCache") == 1


def test_writes_are_not_repeated(fake, call):
    fake.unary["SetAlias"] = fails(1, grpc.StatusCode.UNAVAILABLE, cache_pb2.Cache())
    with pytest.raises(tipserve.Unavailable):
        call("set_alias", "pets", "stable", 1)
    assert count(fake, "SetAlias") == 1


def test_repeating_ends_with_the_timeout(fake, call):
    fake.unary["GetServerInfo"] = fails(10**9, grpc.StatusCode.UNAVAILABLE, None)
    patient = tipserve.RetryPolicy(attempts=10**9, first_delay=0.05, max_delay=0.05)
    # A call under way when the time is over ends with that.
    with pytest.raises((tipserve.Unavailable, tipserve.DeadlineExceeded)):
        call("server_info", retry=patient, client_timeout=0.5)


def test_delays_grow_within_their_bounds():
    policy = tipserve.RetryPolicy(attempts=5, first_delay=1, factor=3, max_delay=20, jitter=0.5)
    for attempt, full in enumerate((1, 3, 9, 20, 20), start=1):
        for _ in range(50):
            assert full / 2 <= policy.delay(attempt) <= full
    assert policy.delay(6) is None
    assert tipserve.NO_RETRIES.delay(1) is None


# Evaluate, Embed, paging, fine-tuning


def test_evaluate_matches_folders_with_classes_by_name(fake, call, folder):
    classes = [cache_pb2.ClassInfo(index=i, display_name=n) for i, n in enumerate(
        ["bird", "a dog", "Cat"])]  # fmt: skip
    fake.unary["GetVersion"] = lambda request, context: cache_pb2.Version(classes=classes)
    evaluation = classify_pb2.Evaluation(
        version="caches/pets/versions/1",
        count=15,
        top1=0.5,
        classes=[classify_pb2.ClassEvaluation(index=i) for i in range(3)],
        confusion=range(9),
    )
    fake.unary["Evaluate"] = lambda request, context: classify_pb2.EvaluateResponse(
        evaluations=[evaluation] * len(request[0].config.caches),
        rejected=[cache_pb2.RejectedExample(example_id="q", code=3, message="bad")],
        rejected_count=1,
    )
    (folder / "bird" / "empty.png").write_bytes(b"")
    done = call("evaluate", "pets", folder)
    items = [i for message in fake.calls[-1][1][1:] for i in message.items.items]
    assert [i.class_index for i in items] == [2] * 5 + [1] * 5 + [0] * 5
    assert (done.top1, done.zero_shot_top1) == (0.5, None)
    assert done.confusion == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    assert [r.id for r in done.rejected] == ["bird/empty.png", "q"]
    assert done.rejected_count == 2
    side_by_side = call("evaluate", ["pets@1", "pets@2"], folder)
    assert len(side_by_side) == 2
    assert list(fake.calls[-1][1][0].config.caches) == ["pets@1", "pets@2"]


def test_embed_sends_bounded_requests_and_keeps_the_order(fake, call):
    numpy = pytest.importorskip("numpy")

    def embed(request, context):
        def result(value):
            if value < 0:
                return classify_pb2.EmbedResult(error=fs.status(3, "bad", reason="BAD"))
            return classify_pb2.EmbedResult(embedding={"values": [value, 0, 0, 1]})

        assert request.ByteSize() <= fake.limits["max_message_bytes"]
        return classify_pb2.EmbedResponse(
            inputs=[result(float(i.encoded_image.split()[0])) for i in request.inputs],
            texts=[result(float(t)) for t in request.texts],
        )

    fake.unary["Embed"] = embed
    pictures = [f"{i} ".encode() + b"x" * 20_000 for i in range(20)]
    made = call("embed", pictures, [str(i) for i in range(100)])
    assert made.pictures.dtype == numpy.float32
    assert made.pictures[:, 0].tolist() == list(range(20))
    assert made.texts[:, 0].tolist() == list(range(100))
    pictures[3] = b"-1"
    pictures[5] = b""
    with pytest.raises(tipserve.InvalidArgument, match="picture 3"):
        call("embed", pictures)
    made = call("embed", pictures, strict=False)
    assert sorted(made.picture_errors) == [3, 5]
    assert numpy.isnan(made.pictures[[3, 5]]).all()
    assert made.pictures[[4, 6], 0].tolist() == [4, 6]
    assert call("embed").pictures.shape == (0, 4)
    with pytest.raises(TypeError):
        call("embed", texts="one text")


def test_listing_goes_through_all_pages(fake, call):
    def page(request, context):
        start = int(request.page_token or 0)
        return cache_pb2.ListCachesResponse(
            caches=[cache_pb2.Cache(name=f"caches/{i}") for i in range(start, start + 2)],
            next_page_token=str(start + 2) if start < 6 else "",
        )

    fake.unary["ListCaches"] = page
    assert [c.id for c in call("caches", page_size=2, fields=["name"])] == list("01234567")
    assert count(fake, "ListCaches") == 4
    assert all(list(r.read_mask.paths) == ["name"] for n, r in fake.calls if n == "ListCaches")


def run(state, **rest):
    return finetune_pb2.FineTuneRun(name="fineTunes/1", state=state, **rest)


def tuning(last):
    def fine_tune(request, context):
        yield finetune_pb2.FineTuneResponse(run=run(finetune_pb2.FineTuneRun.STATE_RUNNING))
        for epoch in range(1, 4):
            yield finetune_pb2.FineTuneResponse(progress={"epoch": epoch, "epochs": 3})
        yield finetune_pb2.FineTuneResponse(run=last)

    return fine_tune


def tune(kind, fake, use):
    """Runs `use` on a handle: awaiting what it returns, if it must be."""
    if kind == "sync":
        with tipserve.Client(fake.address) as client:
            made = use(client.finetune("pets", epochs=3))
            return list(made) if hasattr(made, "__iter__") else made

    async def main():
        async with tipserve.AsyncClient(fake.address) as client:
            made = use(client.finetune("pets", epochs=3))
            return [p async for p in made] if hasattr(made, "__aiter__") else await made

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_fine_tuning_streams_progress_and_ends_with_a_version(fake, kind):
    state = finetune_pb2.FineTuneRun
    fake.fine_tune = tuning(run(state.STATE_SUCCEEDED, version={"version": 2}))
    assert [p.epoch for p in tune(kind, fake, lambda handle: handle)] == [1, 2, 3]
    assert tune(kind, fake, lambda handle: handle.result()).version == 2
    fake.fine_tune = tuning(run(state.STATE_FAILED, error=fs.status(9, "no keys", reason="X")))
    with pytest.raises(tipserve.FailedPrecondition, match="no keys"):
        tune(kind, fake, lambda handle: handle.result())
    fake.fine_tune = tuning(run(state.STATE_CANCELLED))
    with pytest.raises(tipserve.Cancelled):
        tune(kind, fake, lambda handle: handle.result())


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_fine_tuning_is_cancelled_by_name(fake, kind):
    ended = []

    def endless(request, context):
        yield finetune_pb2.FineTuneResponse(run=run(finetune_pb2.FineTuneRun.STATE_QUEUED))
        context.add_callback(lambda: ended.append(True))
        while context.is_active():
            time.sleep(0.01)

    fake.fine_tune = endless
    tune(kind, fake, lambda handle: handle.cancel())
    assert [r.name for n, r in fake.calls if n == "CancelFineTune"] == ["fineTunes/1"]


def test_addresses_may_carry_a_scheme(fake):
    with tipserve.Client(f"http://{fake.address}/") as client:
        assert client.server_info().bundle.name == "fake"
    with pytest.raises(ValueError):
        tipserve.Client("http://")
    with pytest.raises(ValueError):
        tipserve.Client("localhost:1", resize="maybe")
