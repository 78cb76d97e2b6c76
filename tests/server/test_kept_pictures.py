"""Pictures, addresses and metadata that a version keeps of its examples: only where asked for,
taken over by every version made from it, and gone with it."""

from __future__ import annotations

import io
import time

import grpc
import numpy as np
import pytest
import wire
from pictures import photo, png, saved
from PIL import Image
from wire import Problem, cache, classify, finetune

SIDE, BYTES = 256, 48 << 10


def spec(name, names="ab", **fields):
    return cache.CacheSpec(
        cache_id=name, classes=wire.classes(names), method=cache.METHOD_CLASS_MEAN, **fields
    )


def refused(call) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Problem.of_call(caught.value)


def fetch(api, parent, example) -> Image.Image:
    """The kept picture, decoded."""
    request = cache.GetExamplePictureRequest(parent=parent, example_id=example)
    answer = api.caches.GetExamplePicture(request, timeout=wire.LIMIT)
    assert answer.content_type == "image/jpeg"
    assert 0 < len(answer.data) <= BYTES
    picture = Image.open(io.BytesIO(answer.data))
    assert picture.format == "JPEG"
    picture.load()
    return picture


def looks_like(kept: Image.Image, original: Image.Image) -> None:
    """The same picture at the size of a thumbnail."""
    longest = max(original.size)
    expected = [max(1, round(side * min(1, SIDE / longest))) for side in original.size]
    assert np.abs(np.subtract(kept.size, expected)).max() <= 1, (kept.size, expected)
    small = original.convert("RGB").resize((8, 8), Image.Resampling.BOX)
    off = np.asarray(kept.resize((8, 8), Image.Resampling.BOX), float) - np.asarray(small, float)
    assert np.abs(off).mean() < 12, off


def infos(api, parent) -> dict:
    return {info.example_id: info for info in api.examples(parent)}


@pytest.fixture(scope="module")
def pictured(tiny_bundle, tmp_path_factory):
    """A server that encodes pictures."""
    from conftest import Server

    server = Server(tiny_bundle, tmp_path_factory.mktemp("kept") / "store", "--dtype", "float32")
    yield server
    server.close()


def test_nothing_of_a_picture_is_kept_unless_asked(pictured, chance, name):
    plain = [wire.example(i % 2, wire.encoded(png(photo(chance, i)))) for i in range(4)]
    for example in plain:
        example.thumbnail = png(photo(chance))
    version = pictured.api.create(spec(name), plain).version
    assert version.picture_count == 0
    assert not any(info.has_picture for info in pictured.api.examples(name))
    problem = refused(lambda: fetch(pictured.api, name, "0"))
    assert problem.code is grpc.StatusCode.NOT_FOUND
    assert "keep_pictures" in problem.message
    # Not in any file either: a thumbnail is a JPEG.
    for file in pictured.store.glob(f"caches/{name}/**/*"):
        assert not file.is_file() or b"\xff\xd8\xff" not in file.read_bytes()


def test_kept_pictures_go_through_every_change(pictured, chance, name):
    api = pictured.api
    photos = [photo(chance, i, (200, 700)) for i in range(6)]
    files = [
        *(png(photos[0]), saved(photos[1], "JPEG", quality=90), saved(photos[2], "BMP")),
        *(saved(photos[3], "WEBP"), saved(photos[4], "TIFF"), png(photos[5])),
    ]
    examples = [wire.example(i % 2, wire.encoded(file)) for i, file in enumerate(files)]
    for i, example in enumerate(examples):
        example.example_id = f"photos/{i}"
        example.uri = f"file:///photos/{i}.png"
        example.metadata["camera"] = f"Nr. {i}"
    examples[4].validation = examples[5].validation = True
    made = api.create(spec(name, keep_pictures=True), examples).version
    assert made.picture_count == 6
    assert made.size_bytes > sum(
        len(answer.data)
        for answer in (
            api.caches.GetExamplePicture(
                cache.GetExamplePictureRequest(parent=name, example_id=e.example_id)
            )
            for e in examples
        )
    )
    for i, original in enumerate(photos):
        looks_like(fetch(api, name, f"photos/{i}"), original)
        info = infos(api, name)[f"photos/{i}"]
        assert info.has_picture
        assert info.uri == f"file:///photos/{i}.png"
        assert dict(info.metadata) == {"camera": f"Nr. {i}"}

    # Added to: what the base keeps is taken over, the new one has no picture but if asked.
    fresh = [photo(chance, 9) for _ in range(2)]
    new = [wire.example(1, wire.encoded(png(picture))) for picture in fresh]
    new[0].example_id, new[1].example_id = "bare", "kept"
    added = cache.AddExamplesSpec(base=name, remove_example_ids=["photos/0"])
    assert api.add(added, new[:1]).version.picture_count == 5
    added = cache.AddExamplesSpec(base=name, keep_pictures=True)
    assert api.add(added, new[1:]).version.picture_count == 6
    looks_like(fetch(api, f"{name}@3", "photos/5"), photos[5])
    looks_like(fetch(api, f"{name}@3", "kept"), fresh[1])
    for absent in ("photos/0", "bare", "never"):
        problem = refused(lambda absent=absent: fetch(api, f"{name}@3", absent))
        assert problem.code is grpc.StatusCode.NOT_FOUND, absent
    assert infos(api, f"{name}@3")["photos/4"].metadata["camera"] == "Nr. 4"

    # Fine-tuned, exported, imported.
    *_, last = api.tuning.FineTune(finetune.FineTuneRequest(cache=f"{name}@3", epochs=1))
    assert last.run.version.picture_count == 6
    looks_like(fetch(api, f"{name}@4", "photos/5"), photos[5])
    _, data = api.export(f"{name}@4")
    other = f"{name}-copy"
    assert api.import_(other, data).picture_count == 6
    looks_like(fetch(api, other, "kept"), fresh[1])
    assert infos(api, other)["photos/1"].uri == "file:///photos/1.png"

    # Deleted with it.
    api.caches.DeleteCache(cache.DeleteCacheRequest(name=other))
    assert refused(lambda: fetch(api, other, "kept")).code is grpc.StatusCode.NOT_FOUND
    deadline = time.monotonic() + wire.LIMIT
    while any(
        f.is_file() for f in pictured.store.glob(f"caches/{other}/versions/**/*.safetensors")
    ):
        assert time.monotonic() < deadline, "its bytes are still there"
        time.sleep(0.05)


def test_an_embedding_brings_its_own_thumbnail(pictured, chance, name):
    api, picture = pictured.api, photo(chance, 3, (300, 500))
    request = classify.EmbedRequest(inputs=[wire.encoded(png(picture))])
    (made,) = api.classifying.Embed(request, timeout=wire.LIMIT).inputs
    embedding = wire.embedding(np.array(made.embedding.values))
    examples = [wire.example(i, embedding) for i in range(2)]
    examples[0].thumbnail = saved(picture, "JPEG", quality=95)
    broken = wire.example(1, embedding)
    broken.example_id, broken.thumbnail = "broken", b"\xff\xd8\xff no picture"
    made = api.create(spec(name, keep_pictures=True), [*examples, broken])
    assert made.version.picture_count == 1
    assert list(made.rejected) == ["broken"]
    assert made.rejected["broken"].reason.startswith("PICTURE_")
    looks_like(fetch(api, name, "0"), picture)


def test_a_thumbnail_tells_nothing_but_its_pixels(pictured, chance, name):
    """Place and camera stay behind; the picture stands upright."""
    tall = photo(chance, 2).resize((300, 600))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010F] = "Secret Camera Works"
    exif.get_ifd(0x8825)[1] = "N"
    file = saved(tall, "JPEG", quality=95, exif=exif)
    assert b"Secret" in file
    examples = [wire.example(i, wire.encoded(file)) for i in range(2)]
    pictured.api.create(spec(name, keep_pictures=True), examples)
    kept = fetch(pictured.api, name, "0")
    assert kept.size == (256, 128)
    assert not kept.getexif()
    looks_like(kept, tall.transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"uri": "x" * 2049}, "2049 bytes, over 2048"),
        ({"uri": "a\nb"}, "uri"),
        ({"metadata": {str(i): "" for i in range(17)}}, "17 entries, over 16"),
        ({"metadata": {"k": "v" * 1025}}, "1025 bytes, over 1024"),
        ({"metadata": {"k\0": ""}}, "metadata"),
    ],
)
def test_what_is_too_much_is_rejected_with_the_reason(features, clusters, name, fields, words):
    points, labels = clusters.draw(labels=np.arange(4) % 2)
    examples = wire.examples_of(points, labels)
    bad = wire.example(0, wire.embedding(points[0]))
    bad.example_id = "bad"
    for field, value in fields.items():
        if field == "metadata":
            bad.metadata.update(value)
        else:
            setattr(bad, field, value)
    made = features.api.create(spec(name), [*examples, bad])
    assert list(made.rejected) == ["bad"]
    assert words in made.rejected["bad"].message
