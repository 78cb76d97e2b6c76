"""GetDrift: how what a version is asked differs from its examples."""

from __future__ import annotations

import numpy as np
import pytest
import wire
from conftest import WIDTH
from wire import analysis, cache


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def points(chance):
    """Draws points around the centre of a class; there are six."""
    centres = unit(chance.standard_normal((6, WIDTH)))

    def draw(labels, noise=1.2):
        labels = np.asarray(labels)
        away = chance.standard_normal((len(labels), WIDTH)) * noise / WIDTH**0.5
        return unit(centres[labels] + away)

    return draw


def made(server, name, points, count=240):
    labels = (np.arange(count) % 6).tolist()
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcdef"))
    server.api.create(spec, wire.examples_of(points(labels), labels))


def ask(server, name, rows, **options):
    items = [wire.item(str(i), wire.embedding(row)) for i, row in enumerate(rows)]
    return [one.classification for one in server.api.stream(name, items, **options)]


def drift(server, name):
    request = analysis.GetDriftRequest(cache=name)
    return server.api.analysing.GetDrift(request, timeout=wire.LIMIT)


def test_traffic_like_the_examples_shows_no_drift(features, name, points):
    made(features, name, points)
    nothing = drift(features, name)
    assert nothing.item_count == 0 and "Nothing has been asked" in nothing.summary
    assert not nothing.HasField("similarity_index")
    got = ask(features, name, points(np.arange(3200) % 6))
    assert not any(one.neighbours for one in got), "what is sampled is not returned"
    found = drift(features, name)
    assert (found.version, found.item_count) == (f"caches/{name}/versions/1", 3200)
    assert found.compared_count == 200, "one in sixteen"
    assert len(found.similarity_deciles) == 9 and len(found.similarity_shares) == 10
    assert sum(found.similarity_shares) == pytest.approx(1)
    assert found.similarity_index < 0.25 and found.class_index < 0.05
    assert [one.expected_share for one in found.classes] == [pytest.approx(1 / 6)] * 6


def test_other_pictures_and_another_mix_show(features, name, points, chance):
    made(features, name, points)
    # Of two classes alone, and far from every example.
    rows = points(np.arange(1600) % 2, noise=6.0)
    got = ask(features, name, rows, reject={}, neighbours=1)
    found = drift(features, name)
    assert found.item_count == found.compared_count == 1600, "asked for, they are all compared"
    assert found.similarity_index > 0.25
    lowest = np.mean([one.neighbours[0].similarity < found.similarity_deciles[0] for one in got])
    # Compared without one shot in forty, so that a few more are that far away.
    assert lowest - 1e-6 <= found.similarity_shares[0] < lowest + 0.05 and lowest > 0.5
    assert found.recognised_count == 1600
    rejected = np.mean([not one.accepted for one in got])
    assert found.rejected_share == pytest.approx(rejected)
    assert "not like the examples" in found.summary
    shares = np.bincount([one.top[0].index for one in got], minlength=6) / 1600
    for one in found.classes:
        assert one.share == pytest.approx(shares[one.index])
    metrics = features.metrics()
    key = f'tipserve_version_drift_index{{version="{name}@1",of="similarity"}}'
    assert metrics.get(key, 1) > 0.25  # absent where many versions were asked before


def test_few_compared_items_are_not_said_to_be_like_the_examples(features, name, points, chance):
    made(features, name, points)
    # Of no class at all; of 144 items nine are compared, which tell nothing.
    ask(features, name, unit(chance.standard_normal((144, WIDTH))))
    found = drift(features, name)
    assert found.compared_count == 9 and found.similarity_index == 0
    assert "are like" not in found.summary and "only 9" in found.summary


def test_few_examples_raise_no_alarm_by_chance(features, name, points):
    made(features, name, points, count=18)
    ask(features, name, points(np.arange(6400) % 6))
    found = drift(features, name)
    assert found.compared_count > 300
    # What 18 examples leave open is taken away: 21.7 (chi-square of nine degrees
    # of freedom, 99 %) over 19, or more if some are each other's nearest.
    shares = np.clip(found.similarity_shares, 1e-3, None)
    plain = np.sum((shares - 0.1) * np.log(shares / 0.1))
    assert found.similarity_index <= max(0.0, plain - 1.1)


def test_few_examples_show_pictures_unlike_any_of_them(features, name, points):
    made(features, name, points, count=18)
    ask(features, name, points(np.arange(6400) % 6, noise=6.0))
    assert drift(features, name).similarity_index > 0.25


# One example of each class, and two of three: too few that can be left out.
@pytest.mark.parametrize("count", [6, 9])
def test_a_version_of_few_examples_has_no_similarity(features, name, points, count):
    made(features, name, points, count=count)
    ask(features, name, points(np.arange(200) % 6))
    found = drift(features, name)
    assert found.item_count == 200 and found.compared_count == 0
    assert not found.similarity_deciles and not found.HasField("similarity_index")
    assert "not known" in found.summary
