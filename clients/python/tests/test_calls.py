"""Unary calls and uploads: errors with their details, and what is repeated."""

from __future__ import annotations

import asyncio
import pickle
import random
import time

import fake_server as fs
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import tipserve
from tipserve import Example
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


# CreateCache


def versioned(seen):
    """A CreateCache that keeps what it is sent, and makes a version of it."""

    def create(requests, context):
        messages = list(requests)
        seen.append(messages)
        version = cache_pb2.Version(name="caches/pets/versions/1", version=1)
        progress = cache_pb2.CreateProgress(
            stage=cache_pb2.CreateProgress.STAGE_EXAMPLES, received=3
        )
        yield cache_pb2.CreateCacheResponse(progress=progress)
        rejected = cache_pb2.RejectedExample(
            example_id="7", code=3, message="no picture", reason="PICTURE_UNDECODABLE"
        )
        yield cache_pb2.CreateCacheResponse(rejected=rejected)
        yield cache_pb2.CreateCacheResponse(version=version)

    return create


def sent_examples(messages):
    return [example for message in messages[1:] for example in message.examples.examples]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "train"
    for name in ("a_dog", "Cat", "bird"):
        (root / name).mkdir(parents=True)
        for i in range(5):
            (root / name / f"{i}.jpg").write_bytes(f"{name} {i}".encode())
    (root / "bird" / ".DS_Store").write_bytes(b"junk")
    (root / "stray.jpg").write_bytes(b"no class")
    return root


def test_a_folder_becomes_classes_and_examples(fake, call, folder):
    seen, progress = [], []
    fake.create = versioned(seen)
    version = call(
        "create_cache",
        "pets",
        folder,
        method="tip_adapter",
        alpha=2.0,
        seed=5,
        templates=["a photo of a {}."],
        validation=folder,
        on_progress=progress.append,
    )
    spec = seen[0][0].spec
    assert spec.cache_id == "pets"
    assert [c.display_name for c in spec.classes] == ["Cat", "a dog", "bird"]
    assert spec.method == cache_pb2.METHOD_TIP_ADAPTER
    assert (spec.alpha, spec.HasField("beta"), spec.seed) == (2.0, False, 5)
    assert list(spec.prompt_templates) == ["a photo of a {}."]
    examples = sent_examples(seen[0])
    assert len(examples) == 30
    assert [e.validation for e in examples] == [False] * 15 + [True] * 15
    assert examples[5].example_id == "a_dog/0.jpg"
    assert examples[5].class_index == 1
    assert examples[5].input.encoded_image == b"a_dog 0"
    assert len({e.example_id for e in examples}) == 30
    assert version.version == 1
    assert [r.id for r in version.rejected] == ["7"]
    assert version.rejected[0].error.reason == "PICTURE_UNDECODABLE"
    assert progress[0].stage == "examples"
    assert progress[0].received == 3


def test_shots_are_chosen_by_the_seed(fake, call, folder):
    seen = []
    fake.create = versioned(seen)
    for seed in (1, 1, 2, 3, 4):
        call("create_cache", "pets", folder, shots=2, seed=seed)
    chosen = [tuple(e.example_id for e in sent_examples(messages)) for messages in seen]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1
    for examples in map(sent_examples, seen):
        assert [e.class_index for e in examples] == [0, 0, 1, 1, 2, 2]
    # The draw of `tipserve create --shots 2 --seed 1`, by coreutils' sha256sum.
    expected = "Cat/0 Cat/3 a_dog/2 a_dog/4 bird/0 bird/2"
    assert chosen[0] == tuple(f"{name}.jpg" for name in expected.split())


def test_examples_become_classes_sorted_by_name_or_as_given(fake, call):
    seen = []
    fake.create = versioned(seen)
    examples = [Example("b", b"1"), Example("a", [1.0, 2.0], id="mine"), Example("b", b"3")]
    call("create_cache", "pets", examples)
    assert [c.display_name for c in seen[0][0].spec.classes] == ["a", "b"]
    assert [(e.example_id, e.class_index) for e in sent_examples(seen[0])] == [
        ("0", 1),
        ("mine", 0),
        ("2", 1),
    ]
    classes = ["z", tipserve.ClassSpec("b", prompts=["a b"]), "a", "b"]
    call("create_cache", "pets", [Example(3, b"1"), Example("a", b"2")], classes=classes)
    assert [e.class_index for e in sent_examples(seen[1])] == [3, 2]
    assert list(seen[1][0].spec.classes[1].prompts) == ["a b"]
    with pytest.raises(ValueError, match="more than one class"):
        call("create_cache", "pets", [Example("b", b"1")], classes=classes)
    with pytest.raises(ValueError, match="never guessed"):
        call("create_cache", "pets", [Example(0, b"1")])
    with pytest.raises(ValueError, match="no class is called"):
        call("create_cache", "pets", [Example("q", b"1")], classes=classes)


def test_a_source_that_fails_makes_no_cache(fake, call):
    """The server must not take what it has for the whole: no half-close, a cancelled call."""
    finished = []

    def create(requests, context):
        for _ in requests:
            pass
        # To a servicer in Python a cancelled call looks like a half-closed one
        # at first; the cancelled one is soon over.
        for _ in range(50):
            if not context.is_active():
                return
            time.sleep(0.01)
        finished.append(True)
        yield cache_pb2.CreateCacheResponse(version=cache_pb2.Version(version=1))

    def source():
        yield from [Example("a", b"x" * 40_000)] * 5
        raise KeyError("mine")

    fake.create = create
    with pytest.raises(KeyError, match="mine"):
        call("create_cache", "pets", source(), classes=["a"])
    fake.stop()
    assert not finished


def test_examples_that_cannot_be_sent_are_rejected_by_id(fake, call, tmp_path):
    seen = []
    fake.create = versioned(seen)
    limit = fake.limits["max_message_bytes"]
    examples = [
        Example("a", b"good"),
        Example("a", b"x" * (limit * 2), id="big"),
        Example("a", tmp_path / "absent.jpg", id="gone"),
    ]
    version = call("create_cache", "pets", examples)
    assert [r.id for r in version.rejected] == ["big", "gone", "7"]
    assert [e.example_id for e in sent_examples(seen[0])] == ["0"]
    with pytest.raises(tipserve.InvalidArgument, match=str(limit * 2)):
        call("create_cache", "pets", examples, on_rejected="fail")


def test_uploads_stay_under_the_servers_limit(fake, call):
    seen = []
    fake.create = versioned(seen)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    limit = fake.limits["max_message_bytes"]
    sizes = [chance.randrange(1, limit - 5000) for _ in range(50)]
    call("create_cache", "pets", [Example("a", b"x" * size) for size in sizes])
    assert max(message.ByteSize() for message in seen[0]) <= limit
    assert [len(e.input.encoded_image) for e in sent_examples(seen[0])] == sizes


def breaks_early(calls):
    """Breaks the first call before all of it was sent, and takes the second."""
    good = versioned([])

    def create(requests, context):
        calls.append(None)
        if len(calls) == 1:
            next(requests)
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield from good(requests, context)

    return create


def test_create_is_repeated_where_the_examples_can_be_read_again(fake, call):
    # More than grpc sends without the server reading: the end is never reached.
    examples = [Example("a", b"x" * 60_000) for _ in range(200)]
    calls = []
    fake.create = breaks_early(calls)
    assert call("create_cache", "pets", examples).version == 1
    assert len(calls) == 2

    # A source that can be read only once is not.
    calls.clear()
    with pytest.raises(tipserve.Unavailable):
        call("create_cache", "pets", iter(examples), classes=["a"])
    assert len(calls) == 1

    # All was sent, and then the connection broke: it may have succeeded. The
    # server knows the request by its id, and answers with what it made.
    def breaks_late(requests, context):
        spec, *_ = list(requests)
        calls.append(spec.spec.request_id)
        if len(calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield from versioned([])(iter([spec]), context)

    calls.clear()
    fake.create = breaks_late
    assert call("create_cache", "pets", examples[:3]).version == 1
    first, second = calls
    assert first == second and len(first) == 36
    # Another call is another request.
    assert call("create_cache", "pets", examples[:3]).version == 1
    assert calls[2] != first


@pytest.mark.parametrize("repetition", range(5))
def test_a_refusal_in_mid_upload_keeps_its_details(fake, call, repetition):
    """grpc.aio loses the server's status here; the asyncio client must not."""

    def create(requests, context):
        next(requests)
        fs.abort(context, fs.status(3, "bad id", reason="CACHE_ID_INVALID"))
        yield

    fake.create = create
    with pytest.raises(tipserve.InvalidArgument) as caught:
        call("create_cache", "a/b", [Example("a", b"x" * 60_000) for _ in range(100)])
    assert caught.value.reason == "CACHE_ID_INVALID"


def test_wrong_options_are_refused_before_anything_is_sent(fake, call):
    for options in (
        {"method": "magic"},
        {"on_rejected": "shrug"},
        {"shots": 0},
        {"key_dtype": "f8"},
        {"grid": tipserve.Grid("huge")},
    ):
        with pytest.raises(ValueError):
            call("create_cache", "pets", [Example("a", b"x")], **options)
    with pytest.raises(TypeError, match="list of strings"):
        call("create_cache", "pets", [Example("a", b"x")], templates="a {}")
    with pytest.raises(TypeError, match="Example"):
        call("create_cache", "pets", ["a.jpg"])
    assert fake.calls == []


def test_an_npz_file_brings_features_labels_classes_and_weights(fake, call, tmp_path):
    numpy = pytest.importorskip("numpy")
    seen = []
    fake.create = versioned(seen)
    features = numpy.random.default_rng().normal(size=(6, 4)).astype(numpy.float16)
    weights = numpy.eye(3, 4, dtype=numpy.float32)
    path = tmp_path / "features.npz"
    numpy.savez(
        path, features=features, labels=[2, 0, 1, 2, 0, 1], classes=["x", "y", "x"],
        text_weights=weights,
    )  # fmt: skip
    call("create_cache", "pets", path)
    spec = seen[0][0].spec
    assert [c.display_name for c in spec.classes] == ["x", "y", "x"]
    assert [list(c.text_weight.values) for c in spec.classes] == weights.tolist()
    examples = sent_examples(seen[0])
    assert [e.class_index for e in examples] == [2, 0, 1, 2, 0, 1]
    numpy.testing.assert_allclose(
        [e.input.embedding.values for e in examples], features.astype(numpy.float32)
    )


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
