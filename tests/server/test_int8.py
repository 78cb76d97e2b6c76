"""8-bit encoders: chosen where they agree, said everywhere, and kept from caches that they are too
far from.
"""

import re
import shutil
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
import wire
from conftest import BINARY
from pictures import photo, png
from random_bundle import random_bundle
from wire import bundle, cache, classify, finetune

pytestmark = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="8-bit encoders run on CPUs with VNNI"
)


@pytest.fixture(scope="module")
def int8_bundle(bundles, tmp_path_factory) -> Path:
    """The small CLIP, and its encoders in 8 bits."""
    return bundles("tiny-vit-int8", "open-clip", "tiny-vit", "--random-init", "11")


def far(bundle: Path, out: Path) -> Path:
    """The same bundle, but that its 8-bit encoder is said to be far from the float one."""
    shutil.copytree(bundle, out)
    manifest = out / "bundle.toml"
    text = re.sub(r"(?m)^noise = .*$", "noise = 0.5", manifest.read_text())
    manifest.write_text(text)
    return out


def make(server, name: str, chance) -> None:
    examples = [
        wire.example(label, wire.encoded(png(photo(chance, label))), f"{label}-{shot}")
        for label in range(3)
        for shot in range(4)
    ]
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes(["ash", "elm", "oak"]),
        method=cache.METHOD_TIP_ADAPTER,
        without_text=True,
    )
    server.api.create(spec, examples)


def info_of(server):
    return server.api.classifying.GetServerInfo(classify.GetServerInfoRequest())


def embed(server, files) -> np.ndarray:
    request = classify.EmbedRequest(inputs=[wire.encoded(file) for file in files])
    answer = server.api.classifying.Embed(request)
    return np.array([one.embedding.values for one in answer.inputs], np.float64)


def reason(server, name: str, file: bytes) -> wire.Problem:
    with pytest.raises(grpc.RpcError) as refused:
        server.api.one(f"caches/{name}", wire.encoded(file))
    return wire.Problem.of_call(refused.value)


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made_in(server, name: str) -> str:
    return server.api.caches.GetVersion(
        cache.GetVersionRequest(name=f"caches/{name}/versions/1")
    ).encoder_dtype


def test_auto_takes_int8_and_says_so(serve, int8_bundle, name, chance):
    server = serve(int8_bundle)
    info = info_of(server)
    assert (info.dtype, info.text_dtype) == ("int8", "int8")
    assert 0 < info.bundle.int8.noise <= 0.01
    assert info.bundle.int8.count == 96
    assert 'dtype="int8"' in server.http("/metrics")[1]
    assert "as int8 on cpu" in server.log.read_text()
    make(server, name, chance)
    assert made_in(server, name) == "int8"


def test_what_is_asked_for_overrules_and_caches_serve_both(
    serve, int8_bundle, name, chance, tmp_path
):
    store = tmp_path / "shared"
    first = serve(int8_bundle, "--dtype", "float32", store=store)
    fingerprint = info_of(first).bundle.fingerprint
    assert info_of(first).dtype == "float32"
    make(first, name, chance)
    assert made_in(first, name) == "float32"
    files = [png(photo(chance, label)) for label in (0, 1, 2) * 4]
    plain = embed(first, files)
    first.close()

    second = serve(int8_bundle, store=store)
    assert info_of(second).dtype == "int8"
    assert info_of(second).bundle.fingerprint == fingerprint
    int8 = embed(second, files)
    cosines = (unit(plain) * unit(int8)).sum(axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(plain, int8)
    for file in files:
        assert second.api.one(f"caches/{name}", wire.encoded(file)).top


def test_features_that_are_too_far_do_not_meet(serve, int8_bundle, name, chance, tmp_path):
    bundle = far(int8_bundle, tmp_path / "far")
    store = tmp_path / "shared"
    first = serve(bundle, store=store)
    # Not of itself.
    assert info_of(first).dtype in ("bfloat16", "float32")
    make(first, name, chance)
    file = png(photo(chance, 1))
    first.close()

    second = serve(bundle, "--dtype", "int8", store=store)
    assert info_of(second).dtype == "int8"
    problem = reason(second, name, file)
    assert (problem.code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_DTYPE")
    assert "0.5" in problem.message and "--dtype" in problem.message
    # Its own it serves, and float servers do not.
    make(second, f"{name}-int8", chance)
    assert second.api.one(f"caches/{name}-int8", wire.encoded(file)).top
    second.close()
    third = serve(bundle, "--dtype", "float32", store=store)
    assert third.api.one(f"caches/{name}", wire.encoded(file)).top
    assert reason(third, f"{name}-int8", file).reason == "WRONG_DTYPE"


def test_what_an_int8_server_cannot_serve_is_neither_trained_nor_imported(
    serve, int8_bundle, name, chance, tmp_path
):
    bundle_folder = far(int8_bundle, tmp_path / "far")
    store = tmp_path / "shared"
    floats = serve(bundle_folder, "--dtype", "float32", store=store)
    make(floats, name, chance)
    file = tmp_path / "exported"
    floats.cli("caches", "export", name, file)

    server = serve(bundle_folder, "--dtype", "int8", store=store)
    run = server.api.tuning.FineTune(finetune.FineTuneRequest(cache=name, epochs=2))
    with pytest.raises(grpc.RpcError) as raised:
        list(run)
    problem = wire.Problem.of_call(raised.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_DTYPE")
    listed = server.api.tuning.ListFineTunes(finetune.ListFineTunesRequest())
    assert not listed.fine_tunes
    refused = server.cli("caches", "import", file, name, code=None)
    assert refused["error"]["reason"] == "WRONG_DTYPE", refused
    # No number was used up.
    spec = cache.AddExamplesSpec(base=name)
    more = [wire.example(0, wire.encoded(png(photo(chance, 0))), "more")]
    assert floats.api.add(spec, more).version.name == f"caches/{name}/versions/2"


def test_what_is_made_without_pictures_serves_where_it_was_made(
    serve, int8_bundle, name, chance, tmp_path
):
    bundle_folder = far(int8_bundle, tmp_path / "far")
    store = tmp_path / "shared"
    server = serve(bundle_folder, "--dtype", "int8", store=store)
    files = [png(photo(chance, label)) for label in (0, 1, 2) * 3]
    classes = wire.classes(["ash", "elm", "oak"])
    zero_shot = cache.CacheSpec(
        cache_id=f"{name}-text",
        classes=classes,
        method=cache.METHOD_ZERO_SHOT,
        allow_empty_classes=True,
    )
    server.api.create(zero_shot)
    spec = cache.CacheSpec(
        cache_id=f"{name}-embeddings",
        classes=classes,
        method=cache.METHOD_TIP_ADAPTER,
        without_text=True,
    )
    examples = [
        wire.example(index % 3, wire.embedding(list(row)), f"{index}")
        for index, row in enumerate(embed(server, files))
    ]
    server.api.create(spec, examples)
    made = [f"{name}-text", f"{name}-embeddings"]
    for one in made:
        # No picture was embedded for it.
        assert made_in(server, one) == ""
        assert server.api.one(f"caches/{one}", wire.encoded(files[0])).top
    picture = [wire.example(0, wire.encoded(files[0]), "picture")]
    added = server.api.add(cache.AddExamplesSpec(base=made[1]), picture).version
    assert added.encoder_dtype == "int8"
    # The embeddings may be 8-bit ones: not for a float server.
    floats = serve(bundle_folder, "--dtype", "float32", store=store)
    problem = reason(floats, made[1], files[0])
    assert problem.reason == "WRONG_DTYPE" and "computed in int8" in problem.message


def test_auto_takes_the_text_archive_only_where_it_agrees_too(serve, int8_bundle, tmp_path):
    server = serve(int8_bundle)
    assert info_of(server).text_dtype == "int8"
    head, table = (int8_bundle / "bundle.toml").read_text().split("[int8.text_agreement]")
    rough = re.sub(r"(?m)^noise = .*$", "noise = 0.9", table, count=1)
    unknown = table[table.index("[") :]
    for number, text in enumerate((f"{head}[int8.text_agreement]{rough}", head + unknown)):
        folder = tmp_path / f"rough-{number}"
        shutil.copytree(int8_bundle, folder)
        (folder / "bundle.toml").write_text(text)
        info = info_of(serve(folder))
        assert info.dtype == "int8"
        assert info.text_dtype in ("bfloat16", "float32")
        # It can still be asked for.
        assert info_of(serve(folder, "--dtype", "int8")).text_dtype == "int8"


class Pixels(torch.nn.Module):
    """The first levels of a picture, in any float format."""

    def forward(self, x):
        return x.float().flatten(1)[:, :24]


def test_the_metric_of_what_is_served_follows_the_default_bundle(serve, int8_bundle, tmp_path):
    folder = tmp_path / "models"
    random_bundle(folder / "other", name=r"a \"float\" one", module=Pixels())
    server = serve(int8_bundle, "--bundle-folders", str(folder))

    def served() -> dict[str, str]:
        [line] = [one for one in server.metrics() if one.startswith("tipserve_build_info")]
        return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line))

    assert served()["dtype"] == "int8"
    request = bundle.LoadBundleRequest(folder="other", make_default=True)
    server.api.bundles.LoadBundle(request, timeout=300)
    assert served()["dtype"] in ("bfloat16", "float32")
    assert served()["bundle"] == r"a \"float\" one"


def test_int8_without_an_archive_is_refused_at_the_start(tiny_bundle, tmp_path):
    said = subprocess.run(
        [
            *(BINARY, "serve", "--bundle", tiny_bundle, "--store", tmp_path / "s"),
            *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--dtype", "int8"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode != 0
    assert "has no int8 archive" in said.stderr
