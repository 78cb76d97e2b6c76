"""Resizing on the client against the real server: the same refusals, the same features."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import ROOT, RealServer, _serves
from test_refusals import SEED, UNUSUAL, photograph, saved

import tipserve

numpy = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")

BUNDLE = Path(os.environ.get("TIPSERVE_TEST_BUNDLE", ROOT / "bundles" / "demo"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of a bundle that has an encoder."""
    if not (_serves() and (BUNDLE / "bundle.toml").is_file()):
        pytest.skip(f"no server, or no bundle at {BUNDLE}: make bundle")
    running = RealServer(BUNDLE, tmp_path_factory.mktemp("server")).start()
    yield running
    running.stop()


def usual(chance):
    for number in range(40):
        width, height = (int(side) for side in chance.integers(20, 900, 2))
        picture = photograph(chance, width, height)
        if number % 2:
            yield f"a JPEG of {width}x{height}", saved(picture, "JPEG", quality=40 + number)
        else:
            yield f"a PNG of {width}x{height}", saved(picture, "PNG")


def test_whoever_resizes_the_answer_is_the_same(server):
    print("seed", SEED)
    files = {**UNUSUAL, **dict(usual(numpy.random.default_rng(SEED)))}
    ways = []
    for resize in ("server", "client"):
        with tipserve.Client(server.address, resize=resize) as client:
            # One by one: the last bits of a feature depend on its batch.
            ways.append([client.embed([data], strict=False) for data in files.values()])
    decoded = 0
    for name, here, there in zip(files, *ways, strict=True):
        assert here.picture_errors.keys() == there.picture_errors.keys(), name
        if here.picture_errors:
            reasons = [one.picture_errors[0].reason for one in (here, there)]
            assert reasons[0] == reasons[1], name
            continue
        decoded += 1
        cosine = float((here.pictures * there.pictures).sum())
        assert cosine == pytest.approx(1, abs=1e-6), name
    assert decoded >= 40
