"""The client against the real server, on embeddings: no encoder is needed."""

from __future__ import annotations

import random
import threading

import pytest
from conftest import FAST, WIDTH

import tipserve
from tipserve import Example

numpy = pytest.importorskip("numpy")

CLASSES = ["ant", "bee", "crow", "dog"]
PATIENT = tipserve.RetryPolicy(attempts=100, first_delay=0.05, max_delay=0.5)


class Data:
    """Points around one centre a class."""

    def __init__(self, seed: int) -> None:
        print("seed", seed)
        self.chance = numpy.random.default_rng(seed)
        self.centres = self.chance.normal(size=(len(CLASSES), WIDTH))

    def points(self, count: int):
        """Points and their classes' indices."""
        labels = numpy.arange(count) % len(CLASSES)
        rest = labels[len(CLASSES) :]
        rest[:] = self.chance.permutation(rest)
        points = self.centres[labels] + 0.5 * self.chance.normal(size=(count, WIDTH))
        return points.astype(numpy.float32), labels

    def examples(self, count: int):
        points, labels = self.points(count)
        pairs = zip(points, labels, strict=True)
        return [Example(CLASSES[label], point) for point, label in pairs]


@pytest.fixture
def data() -> Data:
    return Data(random.randrange(2**32))


def unit(rows):
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def test_logits_are_the_formulas(real_call, data):
    keys, labels = data.points(40)
    weights = data.centres + data.chance.normal(size=data.centres.shape)
    classes = [
        tipserve.ClassSpec(name, text_weight=row.tolist())
        for name, row in zip(CLASSES, weights, strict=True)
    ]
    examples = [Example(int(label), key) for key, label in zip(keys, labels, strict=True)]
    version = real_call(
        "create_cache", "c", examples, classes=classes, method="tip_adapter", alpha=1.7, beta=4.2
    )
    assert version.version == 1
    assert version.key_count == 40
    assert version.class_names == tuple(CLASSES)
    assert version.rejected == ()
    assert (version.head.method, version.head.alpha, version.head.beta) == (
        tipserve.Method.TIP_ADAPTER,
        1.7,
        4.2,
    )
    points, _ = data.points(100)
    results = real_call("classify", "c", points, logits=True, probabilities=True, neighbours=3)
    f = unit(points.astype(numpy.float64))
    k = unit(keys.astype(numpy.float64))
    affinity = numpy.exp(-4.2 * (1 - f @ k.T))
    scale = version.head.logit_scale
    expected = scale * f @ unit(weights).T + 1.7 * affinity @ numpy.eye(len(CLASSES))[labels]
    assert [r.position for r in results] == list(range(100))
    numpy.testing.assert_allclose(numpy.stack([r.logits for r in results]), expected, atol=1e-3)
    for i, result in enumerate(results):
        assert result.version == "caches/c/versions/1"
        assert result.best.index == expected[i].argmax()
        assert result.probabilities.sum() == pytest.approx(1, abs=1e-4)
        near = numpy.argsort(-(f[i] @ k.T))[:3]
        assert [n.example_id for n in result.neighbours] == [str(j) for j in near]
    one = real_call("classify_one", "c@1", points[0], logits=True)
    numpy.testing.assert_allclose(one.logits, expected[0], atol=1e-3)


def test_bad_items_are_results_and_bad_calls_are_errors(real_call, data):
    real_call("create_cache", "c", data.examples(20))
    good = data.points(4)[0]
    nan = good[1].copy()
    nan[3] = numpy.nan
    results = real_call("classify", "c", [good[0], [1.0] * 7, nan, [0.0] * WIDTH, good[1]])
    assert [r.ok for r in results] == [True, False, False, False, True]
    for result in results[1:4]:
        assert result.error.code is tipserve.Code.INVALID_ARGUMENT
        assert result.error.reason
    for method, name, error in (
        ("cache", "nothing", tipserve.NotFound),
        ("version", "c@9", tipserve.NotFound),
        ("delete_cache", "nothing", tipserve.NotFound),
        ("cache", "../etc", tipserve.InvalidArgument),
    ):
        with pytest.raises(error) as caught:
            real_call(method, name)
        assert caught.value.reason
    with pytest.raises(tipserve.NotFound):
        real_call("classify", "nothing", good)
    with pytest.raises(tipserve.InvalidArgument) as caught:
        real_call("create_cache", "a/b", data.examples(20))
    assert "a/b" in caught.value.message
    with pytest.raises(tipserve.InvalidArgument):
        real_call("create_cache", "empty", [], classes=[])


def test_examples_that_cannot_be_used_are_reported(real_call, data):
    examples = [*data.examples(20), Example("ant", [1.0, 2.0], id="short"),
                Example("bee", [float("nan")] * WIDTH, id="not finite")]  # fmt: skip
    version = real_call("create_cache", "c", examples)
    assert sorted(r.id for r in version.rejected) == ["not finite", "short"]
    assert version.key_count == 20
    with pytest.raises(tipserve.InvalidArgument):
        real_call("create_cache", "c", examples, on_rejected="fail")
    assert real_call("cache", "c").version_count == 1


def test_versions_aliases_and_listing(real_call, data):
    for name in ("b", "a", "a", "c"):
        real_call("create_cache", name, data.examples(20), labels={"made": "here"})
    assert [c.id for c in real_call("caches", page_size=2)] == ["a", "b", "c"]
    assert [v.version for v in real_call("versions", "a", page_size=1)] == [2, 1]
    cache = real_call("set_alias", "a", "stable", 1)
    assert dict(cache.aliases) == {"stable": 1}
    assert real_call("version", "a@stable").version == 1
    assert real_call("version", "a").labels == {"made": "here"}
    assert dict(real_call("delete_alias", "a", "stable").aliases) == {}
    real_call("delete_cache", "b")
    assert [c.id for c in real_call("caches")] == ["a", "c"]


def test_evaluate_counts_as_the_answers_do(real_call, data):
    real_call("create_cache", "c", data.examples(40))
    points, labels = data.points(200)
    examples = [Example(CLASSES[label], p) for p, label in zip(points, labels, strict=True)]
    done = real_call("evaluate", "c", examples)
    taken = numpy.array([r.best.index for r in real_call("classify", "c", points)])
    assert done.count == 200
    assert done.top1 == pytest.approx((taken == labels).mean())
    confusion = numpy.zeros((4, 4), int)
    numpy.add.at(confusion, (labels, taken), 1)
    assert done.confusion == tuple(map(tuple, confusion.tolist()))
    assert [c.count for c in done.classes] == numpy.bincount(labels, minlength=4).tolist()
    assert done.unknown is None
    for options in ({"reject": 0.8}, {"reject_below": 1.0}, {"precision": 0.8}):
        rejecting = real_call("evaluate", "c", examples, **options).unknown
        accepted = [r.accepted for r in real_call("classify", "c", points, **options)]
        assert rejecting.accepted == pytest.approx(numpy.mean(accepted), abs=0.01)
        assert (rejecting.threshold is None) == ("precision" in options)


def test_many_items_stream_in_order(real_call, data):
    real_call("create_cache", "c", data.examples(20))
    points, _ = data.points(20_000)
    results = real_call("classify", "c", iter(points), top_k=1, window=300)
    assert [r.position for r in results] == list(range(20_000))
    assert all(r.ok for r in results)


@pytest.mark.parametrize("hard", [True, False], ids=["killed", "terminated"])
def test_a_server_restarted_in_mid_stream_loses_no_item(real, data, hard):
    points, _ = data.points(3000)
    with tipserve.Client(real.address, retry=PATIENT) as client:
        client.create_cache("c", data.examples(20))
        expected = [r.best.index for r in client.classify("c", points)]

        def restart():
            real.stop(hard)
            real.start()

        thread = threading.Thread(target=restart)
        seen = []
        for i, result in enumerate(client.classify("c", points, window=64, resend=100)):
            if i == 500:
                thread.start()
            seen.append(result)
        thread.join()
    assert [r.error for r in seen if r.error] == []
    assert [r.best.index for r in seen] == expected


def test_fine_tuning_makes_a_version(real, data):
    with tipserve.Client(real.address, retry=FAST) as client:
        client.create_cache("c", data.examples(40))
        progress = []
        try:
            list(client.fine_tunes())
        except tipserve.Unimplemented:
            pytest.skip("this server does not fine-tune")
        with client.finetune("c", epochs=3, seed=1, move_alias="tuned") as run:
            for step in run:
                progress.append(step)
            version = run.result()
        assert version.version == 2
        assert version.parent == "caches/c/versions/1"
        assert version.head.method is tipserve.Method.TIP_ADAPTER_F
        assert version.fine_tune.epochs <= 3
        assert progress[-1].epochs == 3
        assert client.version("c@tuned").version == 2
        assert [r.state for r in client.fine_tunes("c")] == [tipserve.RunState.SUCCEEDED]


def test_the_servers_info_says_what_it_serves(real_call):
    info = real_call("server_info")
    assert info.bundle.width == WIDTH
    assert not info.bundle.has_image_encoder
    assert info.limits["max_message_bytes"] > 0
