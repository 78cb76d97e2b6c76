"""`create` and `evaluate` of the command line against the formula's accuracy in Python."""

from __future__ import annotations

import e2e_formula as formula
import numpy as np
import pytest
import wire
from conftest import Clusters
from pictures import photo
from wire import cache


def write(path, points, labels, names, weights=None, dtype="float32", kind="int64"):
    arrays = {
        "features": points.astype(dtype),
        "labels": labels.astype(kind),
        "classes": np.array(names),
    }
    if weights is not None:
        arrays["text_weights"] = weights.astype(dtype)
    np.savez(path, **arrays)
    return path


def as_sent(points, dtype):
    return formula.unit(points.astype(dtype).astype(np.float32))


def check(evaluated, logits, labels, zero_shot=None):
    """The document's accuracies are the logits', but for rows that float32 may order either way."""
    assert evaluated["count"] == len(labels)
    for field, k in (("top1", 1), ("top5", 5)):
        difference = abs(evaluated[field] - formula.top(logits, labels, k)) * len(labels)
        assert difference <= formula.undecided(logits, k) + 1e-6, field
    if zero_shot is None:
        assert evaluated["zero_shot_top1"] is None
    else:
        difference = abs(evaluated["zero_shot_top1"] - formula.top(zero_shot, labels)) * len(labels)
        assert difference <= formula.undecided(zero_shot) + 1e-6
    one = evaluated["evaluations"][0]
    confusion = np.array(one["confusion"])
    assert confusion.sum() == len(labels)
    assert np.trace(confusion) / len(labels) == pytest.approx(evaluated["top1"])
    assert confusion.sum(1).tolist() == [c["count"] for c in one["classes"]]


@pytest.mark.parametrize(
    ("text", "dtype"),
    [(True, "float32"), (True, "float16"), (False, "float64"), (False, "float16")],
)
def test_embeddings_from_npz(features, chance, name, tmp_path, text, dtype):
    data = Clusters(chance, 9, spread=3.0)
    shots = np.repeat(np.arange(9), chance.integers(2, 9, 9))
    chance.shuffle(shots)
    points, labels = data.draw(labels=shots)
    names = [f"class {i}" for i in range(9)]
    names[4] = names[7] = "twice"
    weights = data.weights if text else None
    train = write(tmp_path / "train.npz", points, labels, names, weights, dtype, "uint8")
    test_points, test_labels = data.draw(700)
    test = write(tmp_path / "test.npz", test_points, test_labels, names, None, dtype, ">i4")
    f, keys = as_sent(test_points, dtype), as_sent(points, dtype)
    unit_text = None if weights is None else as_sent(weights, dtype)
    zero_shot = None if weights is None else formula.clip(f, unit_text, 9, 100)

    for flags in (
        ["--method", "tip-adapter", "--alpha", 2.5, "--beta", 6],
        ["--method", "tip-adapter", "--balance", "mean"],
        ["--method", "gda"],
        ["--method", "proker"],
        ["--method", "class-mean"],
        [],
    ):
        made = features.cli("create", name, "--from", train, *flags)
        version = made["version"]
        assert made["rejected"] == []
        assert [c["display_name"] for c in version["classes"]] == names
        assert [c["example_count"] for c in version["classes"]] == np.bincount(labels).tolist()
        head = version["head"]
        evaluated = features.cli("evaluate", f"{name}@{version['version']}", "--from", test)
        logits = formula.of_head(head, f, keys, labels, 9, unit_text)
        check(evaluated, logits, test_labels, zero_shot)
        got = features.api.logits(
            f"{name}@{version['version']}", map(wire.embedding, test_points[:50].astype(dtype))
        )
        scale = max(1, np.abs(logits).max() / 100)
        np.testing.assert_allclose(got, logits[:50], rtol=0, atol=1e-3 * scale, err_msg=str(head))


def test_one_shot_and_three_versions_side_by_side(features, chance, name, tmp_path):
    data = Clusters(chance, 12, spread=2.0)
    points, labels = data.draw(labels=chance.permutation(12))
    names = [f"n{i}" for i in range(12)]
    train = write(tmp_path / "train.npz", points, labels, names, data.weights)
    test_points, test_labels = data.draw(400)
    test = write(tmp_path / "test.npz", test_points, test_labels, names)
    heads = []
    for flags in (["--method", "zero-shot"], ["--method", "tip-adapter"], []):
        heads.append(features.cli("create", name, "--from", train, *flags)["version"]["head"])
    evaluated = features.cli("evaluate", f"{name}@1", f"{name}@2", f"{name}@3", "--from", test)
    f, keys, text = formula.unit(test_points), formula.unit(points), formula.unit(data.weights)
    for one, head in zip(evaluated["evaluations"], heads, strict=True):
        logits = formula.of_head(head, f, keys, labels, 12, text)
        assert (
            abs(one["top1"] - formula.top(logits, test_labels)) * 400
            <= formula.undecided(logits) + 1e-6
        )
    assert evaluated["top1"] == evaluated["zero_shot_top1"]


def test_shots_are_the_documented_draw(features, chance, name, tmp_path):
    import hashlib

    data = Clusters(chance, 4, spread=4.0)
    points, labels = data.draw(120)
    names = list("abcd")
    path = write(tmp_path / "all.npz", points, labels, names)
    flags = [
        "--from",
        path,
        "--shots",
        3,
        "--seed",
        17,
        "--method",
        "tip-adapter",
        "--alpha",
        1,
        "--beta",
        5,
    ]
    made = features.cli("create", name, *flags)
    assert made["version"]["key_count"] == 12
    order = sorted(range(120), key=lambda i: hashlib.sha256(f"17/{i}".encode()).digest())
    drawn = sorted(i for c in range(4) for i in [i for i in order if labels[i] == c][:3])
    rest = np.setdiff1d(np.arange(120), drawn)
    evaluated = features.cli("evaluate", name, "--from", path, "--except-shots", 3, "--seed", 17)
    units = formula.unit(points)
    logits = formula.tip_adapter(units[rest], units[drawn], labels[drawn], 4, alpha=1, beta=5)
    check(evaluated, logits, labels[rest])


def test_validation_chooses_by_the_official_grid(features, chance, name, tmp_path):
    data = Clusters(chance, 5, spread=3.5)
    points, labels = data.draw(40)
    valid_points, valid_labels = data.draw(150)
    names = list("vwxyz")
    train = write(tmp_path / "train.npz", points, labels, names, data.weights)
    valid = write(tmp_path / "valid.npz", valid_points, valid_labels, names)
    flags = ["--validation", valid, "--method", "tip-adapter", "--grid", "official"]
    made = features.cli(
        "create", name, "--from", train, *flags, "--beta-scale", 12, "--alpha-scale", 10
    )
    head = made["version"]["head"]
    assert head["selection"]["source"] == "validation"
    assert head["selection"]["example_count"] == 150
    assert made["version"]["key_count"] == 40
    f, keys, text = formula.unit(valid_points), formula.unit(points), formula.unit(data.weights)
    best, chosen, unsure = -1.0, None, False
    for i in range(200):
        beta = 0.1 + i * (12 - 0.1) / 200
        cached = formula.tip_adapter(f, keys, labels, 5, alpha=1, beta=beta)
        for j in range(20):
            alpha = 0.1 + j * (10 - 0.1) / 20
            logits = formula.clip(f, text, 5, 100) + alpha * cached
            accuracy = formula.top(logits, valid_labels)
            unsure |= formula.undecided(logits, margin=1e-4) > 0
            if accuracy > best + 1e-9:
                best, chosen = accuracy, (beta, alpha)
    recorded = head["selection"]["candidates"][0]["accuracy"]
    assert recorded == pytest.approx(best, abs=1.01 / 150 if unsure else 1e-9)
    if not unsure:
        assert (head["beta"], head["alpha"]) == pytest.approx(chosen)


def test_folders_of_pictures(tiny, chance, name, tmp_path):
    labels = {"train": [], "test": []}
    kinds = ["a_kite", "b", "c ä"]
    for part, counts in (("train", [2, 5, 3]), ("test", [12, 9, 11])):
        for kind, count in enumerate(counts):
            folder = tmp_path / part / kinds[kind]
            folder.mkdir(parents=True)
            for i in range(count):
                photo(chance, kind).save(folder / f"{i:02}.png")
            labels[part] += [kind] * count
    made = tiny.cli(
        "create",
        name,
        "--from",
        tmp_path / "train",
        "--method",
        "tip-adapter",
        "--alpha",
        4,
        "--beta",
        20,
    )
    assert [c["display_name"] for c in made["version"]["classes"]] == ["a kite", "b", "c ä"]
    evaluated = tiny.cli("evaluate", name, "--from", tmp_path / "test")

    def embedded(part):
        files = sorted((tmp_path / part).glob("*/*.png"))
        request = wire.classify.EmbedRequest(inputs=[wire.encoded(f.read_bytes()) for f in files])
        return formula.unit(
            [r.embedding.values for r in tiny.api.classifying.Embed(request).inputs]
        )

    prompts = ["a photo of a a kite.", "a photo of a b.", "a photo of a c ä."]
    embeds = tiny.api.classifying.Embed(wire.classify.EmbedRequest(texts=prompts))
    text = formula.unit([r.embedding.values for r in embeds.texts])
    scale = made["version"]["head"]["logit_scale"]
    f, keys = embedded("test"), embedded("train")
    truth = np.array(labels["test"])
    logits = formula.tip_adapter(
        f, keys, np.array(labels["train"]), 3, alpha=4, beta=20, text=text, scale=scale
    )
    check(evaluated, logits, truth, formula.clip(f, text, 3, scale))
    # A file that is no picture is reported by its path, and the exit code says so.
    (tmp_path / "test" / "b" / "notes.jpg").write_text("no picture")
    again = tiny.cli("evaluate", name, "--from", tmp_path / "test", code=4)
    assert again["count"] == len(truth)
    assert [r["id"] for r in again["rejected"]] == ["b/notes.jpg"]
    assert again["top1"] == evaluated["top1"]


def test_the_classes_of_evaluate_are_matched_by_name(features, chance, name, tmp_path):
    data = Clusters(chance, 4, spread=2.0)
    points, labels = data.draw(40)
    train = write(tmp_path / "train.npz", points, labels, list("abcd"))
    features.cli("create", name, "--from", train, "--method", "class-mean")
    test_points, test_labels = data.draw(200)
    straight = features.cli(
        "evaluate",
        name,
        "--from",
        write(tmp_path / "t.npz", test_points, test_labels, list("abcd")),
    )
    order = np.array([2, 0, 3, 1])
    turned = np.argsort(order)[test_labels]
    shuffled = write(tmp_path / "s.npz", test_points, turned, [list("abcd")[i] for i in order])
    assert features.cli("evaluate", name, "--from", shuffled)["top1"] == straight["top1"]
    unknown = write(tmp_path / "u.npz", test_points, test_labels, list("abcx"))
    error = features.cli("evaluate", name, "--from", unknown, code=None)["error"]
    assert "x" in error["message"]


def test_the_manifest_records_every_candidate(features, chance, name):
    data = Clusters(chance, 4, spread=3.0)
    points, labels = data.draw(labels=chance.permutation(32) % 4)
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcd", data.weights))
    version = features.api.create(spec, wire.examples_of(points, labels)).version
    selection = version.head.selection
    methods = [c.method for c in selection.candidates]
    assert version.head.method == methods[0] == cache.METHOD_STACK
    assert sorted(methods[1:4]) == sorted(
        [cache.METHOD_ZERO_SHOT, cache.METHOD_GDA, cache.METHOD_PROKER]
    )
    # The same on the other scale of the features.
    assert methods[4:] == [cache.METHOD_STACK]
    weighed = [c for c in selection.candidates if c.HasField("weight")]
    assert {c.method for c in weighed} <= set(methods[1:4])
    assert all(c.weight > 0 and c.temperature > 0 for c in weighed)
    assert selection.source == cache.SELECTION_SOURCE_LEAVE_ONE_OUT
    assert selection.example_count == 32
    assert selection.score and selection.grid and selection.reason
    for candidate in selection.candidates:
        assert candidate.skipped or 0 <= candidate.accuracy <= 1


def test_evaluate_says_how_far_probabilities_can_be_trusted(features, chance, name):
    data = Clusters(chance, 6, spread=4.0)
    points, labels = data.draw(60)
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcdef", data.weights))
    version = features.api.create(spec, wire.examples_of(points, labels)).version
    test_points, test_labels = data.draw(500)
    items = [wire.item(str(i), wire.embedding(p)) for i, p in enumerate(test_points)]
    results = list(features.api.stream(name, items, ordered=True, logits=True, probabilities=True))
    probabilities = np.array([r.classification.probabilities for r in results], np.float64)
    logits = np.array([r.classification.logits for r in results], np.float64)
    scaled = logits / version.head.temperature
    expected = np.exp(scaled - scaled.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)

    def messages():
        config = wire.classify.EvaluateConfig(caches=[name])
        yield wire.classify.EvaluateRequest(config=config)
        for i in range(0, 500, 90):
            part = [
                wire.classify.LabelledItem(class_index=int(label), input=wire.embedding(point))
                for point, label in zip(
                    test_points[i : i + 90], test_labels[i : i + 90], strict=True
                )
            ]
            yield wire.classify.EvaluateRequest(items=wire.classify.LabelledBatch(items=part))

    (one,) = features.api.classifying.Evaluate(messages()).evaluations
    own = expected[np.arange(500), test_labels]
    assert one.cross_entropy == pytest.approx(-np.log(own).mean(), rel=1e-3)
    confidence, right = expected.max(1), expected.argmax(1) == test_labels
    bins = np.minimum((confidence * 15).astype(int), 14)
    error = sum(
        abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )
    # One item on the edge of a bin may fall on either side.
    assert one.expected_calibration_error == pytest.approx(error, abs=5e-3)
