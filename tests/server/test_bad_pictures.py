"""Pictures that are none: each a clear error wherever pictures go; the others are answered."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import wire
from pictures import photo, png, saved
from refusals import INVALID, refused, still_serves
from wire import Problem, cache, classify


def header(width: int, height: int) -> bytes:
    """A PNG that announces a size, with hardly any data."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    fields = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", fields)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


BAD_PICTURES = {
    "text": (b"This is a text file, whatever its name says.\n" * 20, "PICTURE_UNRECOGNISED", []),
    "empty": (b"", "PICTURE_EMPTY", []),
    "bomb": (header(50_000, 50_000), "PICTURE_TOO_LARGE", ["50000"]),
    "no pixels": (header(0, 10), None, []),
    "truncated png": (None, None, []),
    "truncated jpeg": (None, "PICTURE_TRUNCATED", []),
    "broken jpeg": (None, None, []),
}


def bad_pictures(chance):
    """Each bad picture with its reason and words of its message."""
    good = photo(chance)
    jpeg, whole = saved(good, "JPEG"), png(good)
    files = BAD_PICTURES | {
        "truncated png": (whole[: len(whole) // 2], None, []),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], "PICTURE_TRUNCATED", []),
        "broken jpeg": (jpeg[:60] + chance.bytes(600), None, []),
    }
    return good, files


@pytest.fixture(scope="module")
def picture_cache(tiny):
    chance = np.random.default_rng(3)
    examples = [
        wire.example(k, wire.encoded(png(photo(chance, k)))) for k in (0, 1) for _ in range(2)
    ]
    tiny.api.create(cache.CacheSpec(cache_id="pictures", classes=wire.classes("ab")), examples)
    return tiny


def test_bad_pictures_everywhere(picture_cache, chance):
    api = picture_cache.api
    good, files = bad_pictures(chance)
    own = wire.encoded(png(good))
    expected = api.one("pictures", own, logits=True).logits

    def check(problem, name):
        _, reason, words = files[name]
        assert problem.code == INVALID, (name, problem)
        assert problem.reason == reason or (
            reason is None and problem.reason.startswith("PICTURE_")
        )
        for word in words:
            assert word in problem.message
        if name == "bomb":
            assert problem.metadata["limit"] and problem.metadata["value"]
            assert problem.metadata["limit"] in problem.message.replace(",", "")

    for name, (data, _, _) in files.items():
        check(
            refused(
                api.classifying.Classify,
                classify.ClassifyRequest(cache="pictures", input=wire.encoded(data)),
            ),
            name,
        )
    items = [wire.item("good 0", own)]
    for name, (data, _, _) in files.items():
        items += [wire.item(name, wire.encoded(data)), wire.item(f"good {len(items)}", own)]
    results = {r.id: r for r in api.stream("pictures", items, batch=3, logits=True)}
    assert len(results) == len(items)
    for result in results.values():
        if result.id.startswith("good"):
            np.testing.assert_allclose(result.classification.logits, expected, atol=1e-4)
        else:
            check(Problem.of_status(result.error), result.id)
    embedded = api.classifying.Embed(
        classify.EmbedRequest(inputs=[wire.encoded(d) for d, _, _ in files.values()] + [own])
    )
    for name, result in zip([*files, None], embedded.inputs, strict=True):
        if name is None:
            assert len(result.embedding.values) == 48
        else:
            check(Problem.of_status(result.error), name)
    labelled = [wire.example(0, wire.encoded(d), name) for name, (d, _, _) in files.items()]
    spec = cache.CacheSpec(cache_id="with-bad", classes=wire.classes("a"))
    created = api.create(spec, [*labelled, wire.example(0, own, "good")])
    assert created.rejected.keys() == files.keys()
    assert created.version.key_count == 1
    for name, one in created.rejected.items():
        assert one.reason == files[name][1] or one.reason.startswith("PICTURE_")
        assert one.code == INVALID.value[0] and one.message


def test_raw_pixels_of_the_wrong_size(picture_cache):
    for width, height, count in (
        (3, 3, 26),
        (3, 3, 28),
        (0, 5, 0),
        (2**31, 2**31, 12),
        (2**32 - 1, 1, 3),
    ):
        raw = wire.inputs.RawRgb(width=width, height=height, data=b"\x50" * count)
        request = classify.ClassifyRequest(cache="pictures", input=wire.inputs.Input(raw_rgb=raw))
        problem = refused(picture_cache.api.classifying.Classify, request)
        assert problem.code == INVALID
        assert problem.reason in ("PICTURE_SHAPE", "PICTURE_TOO_LARGE")
        assert str(width) in problem.message or problem.reason == "PICTURE_TOO_LARGE"


def test_it_still_serves(picture_cache, chance):
    still_serves(picture_cache, "pictures", wire.encoded(png(photo(chance))))
