"""EXIF orientation: what Pillow's exif_transpose makes of a file, for everything a version does."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tritonclient.grpc as triton
import wire
from models import pictured
from old_versions import age
from pictures import photo, saved
from PIL import Image, ImageOps
from pixel_bundle import pixel_bundle
from wire import cache, classify, finetune, inputs

tipserve = pytest.importorskip("tipserve")

ORIENTATION = 0x0112
# Cosine of a picture and its own key, which may be kept in bfloat16; turned wrongly it is below 0.7.
SAME = 0.999
APPLY, IGNORE = inputs.EXIF_ORIENTATION_APPLY, inputs.EXIF_ORIENTATION_IGNORE
KINDS = {
    "JPEG": {"quality": 92},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With an embedding cache: what is held of a file turned is not that of the file as it is."""
    from conftest import Server

    folder = tmp_path_factory.mktemp("exif")
    flags = ("--dtype", "float32", "--embedding-cache-bytes", str(64 << 20))
    started = Server(pixel_bundle(folder / "bundle"), folder / "store", *flags)
    yield started
    started.close()


def turned(picture: Image.Image, orientation: int, kind: str) -> bytes:
    """A file of the picture that says that it is to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(picture, kind, exif=exif, **KINDS[kind])


def raw(picture: Image.Image) -> inputs.Input:
    return inputs.Input(
        raw_rgb=inputs.RawRgb(
            width=picture.width, height=picture.height, data=picture.convert("RGB").tobytes()
        )
    )


def truth(file: bytes, asked: int) -> inputs.Input:
    """The pixels that Pillow reads. (It turns a TIFF whatever is asked.)"""
    opened = Image.open(io.BytesIO(file))
    return raw(ImageOps.exif_transpose(opened) if asked == APPLY else opened)


def embedded(server, contents, asked: int) -> np.ndarray:
    request = classify.EmbedRequest(inputs=contents, exif_orientation=asked)
    return np.array(
        [one.embedding.values for one in server.api.classifying.Embed(request).inputs], np.float32
    )


@pytest.mark.parametrize("asked", [APPLY, IGNORE], ids=["apply", "ignore"])
def test_every_orientation_is_pillows(server, chance, asked):
    files = {
        (kind, orientation): turned(photo(chance), orientation, kind)
        for kind in KINDS
        for orientation in range(1, 9)
    }
    found = embedded(server, map(wire.encoded, files.values()), asked)
    expected = embedded(server, [truth(file, asked) for file in files.values()], asked)
    for case, a, b in zip(files, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6, err_msg=str(case))
    # It makes a difference at all.
    other = embedded(server, map(wire.encoded, files.values()), APPLY + IGNORE - asked)
    differ = {
        case for case, a, b in zip(files, found, other, strict=True) if abs(a - b).max() > 1e-3
    }
    assert differ == {(kind, turn) for kind, turn in files if kind != "TIFF" and turn != 1}


def test_the_default_is_to_apply_it(server, chance):
    file = wire.encoded(turned(photo(chance), 6, "JPEG"))
    default = embedded(server, [file], inputs.EXIF_ORIENTATION_UNSPECIFIED)
    np.testing.assert_array_equal(default, embedded(server, [file], APPLY))


@pytest.fixture
def versions(server, name, chance):
    """Two versions of the same turned files, by what they do with orientation, and the files."""
    files = [turned(photo(chance, n % 4), 1 + n, "JPEG") for n in range(8)]
    # As it is seen, and as it is stored: the nearest example tells which a query was.
    examples = [wire.example(n % 4, wire.encoded(file), f"{n}") for n, file in enumerate(files)]
    made = {}
    for asked in (APPLY, IGNORE):
        spec = cache.CacheSpec(
            cache_id=f"{name}-{asked}",
            classes=wire.classes(["a", "b", "c", "d"]),
            method=cache.METHOD_TIP_ADAPTER,
            alpha=1,
            beta=5.5,
            exif_orientation=asked,
        )
        made[asked] = server.api.create(spec, examples).version
        assert made[asked].exif_orientation == asked
    return made, files


def nearest(server, version: str, content) -> float:
    answer = server.api.one(version, content, neighbours=1)
    return answer.neighbours[0].similarity


@pytest.mark.parametrize("asked", [APPLY, IGNORE], ids=["apply", "ignore"])
def test_queries_and_examples_of_a_version_agree(server, versions, asked):
    made, files = versions
    other = APPLY + IGNORE - asked
    for file in files:
        assert nearest(server, made[asked].name, wire.encoded(file)) > SAME
        assert nearest(server, made[asked].name, truth(file, asked)) > SAME
    # Files 2 to 8 are turned: seen the other way, none is its own example.
    assert max(nearest(server, made[asked].name, truth(f, other)) for f in files[1:]) < 1 - 1e-4


@pytest.mark.parametrize("asked", [APPLY, IGNORE], ids=["apply", "ignore"])
def test_versions_made_from_it_keep_it(server, versions, asked, chance):
    made, _ = versions
    file = turned(photo(chance), 8, "PNG")
    spec = cache.AddExamplesSpec(base=made[asked].name)
    added = server.api.add(spec, [wire.example(0, wire.encoded(file), "new")]).version
    assert added.exif_orientation == asked
    assert nearest(server, added.name, truth(file, asked)) > SAME

    request = finetune.FineTuneRequest(cache=added.name, epochs=1)
    *_, last = server.api.tuning.FineTune(request)
    assert last.run.version.exif_orientation == asked

    _, exported = server.api.export(added.name)
    imported = server.api.import_(f"{added.name.split('/')[1]}-again", exported)
    assert imported.exif_orientation == asked


def test_one_evaluation_judges_each_version_in_its_own_way(server, versions):
    made, files = versions
    config = classify.EvaluateConfig(caches=[version.name for version in made.values()])
    items = [
        classify.LabelledItem(id=str(n), class_index=n % 4, input=wire.encoded(file))
        for n, file in enumerate(files)
    ]
    requests = [
        classify.EvaluateRequest(config=config),
        classify.EvaluateRequest(items=classify.LabelledBatch(items=items)),
    ]
    together = server.api.classifying.Evaluate(iter(requests)).evaluations
    for (asked, version), judged in zip(made.items(), together, strict=True):
        config = classify.EvaluateConfig(caches=[version.name])
        seen = [
            classify.LabelledItem(
                id=item.id, class_index=item.class_index, input=truth(file, asked)
            )
            for item, file in zip(items, files, strict=True)
        ]
        requests = [
            classify.EvaluateRequest(config=config),
            classify.EvaluateRequest(items=classify.LabelledBatch(items=seen)),
        ]
        (alone,) = server.api.classifying.Evaluate(iter(requests)).evaluations
        assert judged.cross_entropy == pytest.approx(alone.cross_entropy, abs=1e-5)


def test_the_inference_protocol_does_as_the_version_does(server, versions):
    made, files = versions
    with triton.InferenceServerClient(server.address) as client:
        for asked, version in made.items():
            _, model, _, number = version.name.split("/")
            outputs = [triton.InferRequestedOutput("logits")]
            found = client.infer(model, [pictured(files)], number, outputs=outputs)
            expected = server.api.logits(version.name, [truth(file, asked) for file in files])
            np.testing.assert_allclose(found.as_numpy("logits"), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("resize", ["server", "client", "client-jpeg"])
def test_the_python_client_leaves_it_to_the_version(server, versions, resize):
    made, files = versions
    with tipserve.Client(server.address, resize=resize) as client:
        for asked, version in made.items():
            assert (
                client.version(version.name).exif_orientation
                == {APPLY: "apply", IGNORE: "ignore"}[asked]
            )
            for form in (files, [Image.open(io.BytesIO(file)) for file in files]):
                for result in client.classify(version.name, form[1:], neighbours=1):
                    assert result.neighbours[0].similarity > SAME, (asked, result.id)


@pytest.mark.parametrize("asked", [None, "apply", "ignore"])
def test_clients_ask_for_it_by_name(server, chance, tmp_path, name, asked):
    """And apply it unless told otherwise; `embed`, too."""
    for kind in range(2):
        folder = tmp_path / "ab"[kind]
        folder.mkdir()
        (folder / "1.jpg").write_bytes(turned(photo(chance, kind), 6, "JPEG"))
    given = [] if asked is None else ["--exif-orientation", asked]
    flags = ["--from", tmp_path, "--method", "tip-adapter", "--alpha", 1, "--beta", 5.5, *given]
    made = server.cli("create", f"{name}-cli", *flags)["version"]
    with tipserve.Client(server.address) as client:
        more = {} if asked is None else {"exif_orientation": asked}
        again = client.create_cache(
            f"{name}-python", tmp_path, method="tip_adapter", alpha=1, beta=5.5, **more
        )
    assert made["exif_orientation"] == again.exif_orientation == (asked or "apply")
    file = tmp_path / "a/1.jpg"
    expected = truth(file.read_bytes(), IGNORE if asked == "ignore" else APPLY)
    for who in ("cli", "python"):
        assert nearest(server, f"{name}-{who}", expected) > SAME
    found = server.cli("embed", file, *given)["inputs"][0]["embedding"]
    [own] = server.api.classifying.Embed(classify.EmbedRequest(inputs=[expected])).inputs
    np.testing.assert_allclose(found, own.embedding.values, rtol=0, atol=1e-5)


def test_a_version_from_before_it_was_recorded_ignores_it(server, versions):
    made, files = versions
    old = made[IGNORE].name
    server.terminate()
    age(server.store, old)
    server.start()
    with tipserve.Client(server.address) as client:
        assert client.version(old).exif_orientation == "ignore"
    for file in files:
        assert nearest(server, old, wire.encoded(file)) > SAME
    added = server.api.add(
        cache.AddExamplesSpec(base=old), [wire.example(0, wire.encoded(files[0]), "new")]
    )
    assert added.version.exif_orientation == IGNORE


def test_a_value_that_is_none_is_refused(server, name):
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(["a"]), exif_orientation=7)
    with pytest.raises(Exception, match="7 is not an ExifOrientation"):
        server.api.create(spec)
