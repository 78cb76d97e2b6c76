"""CreateCache: what is uploaded, what is rejected, what is repeated."""

from __future__ import annotations

import random
import time

import fake_server as fs
import grpc
import pytest

import tipserve
from tipserve import Example
from tipserve._proto import cache_pb2


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
