"""Feature statistics of a bundle: where they show, and that versions use them."""

from __future__ import annotations

import subprocess

import pytest
import tipserve
import wire
from conftest import BINARY
from pictures import photo, png
from random_bundle import random_bundle
from wire import bundle, cache, classify

pytest.importorskip("torch")


@pytest.fixture
def server(serve, tmp_path, chance):
    """Serves a bundle with statistics and the same one without; another one is not loaded."""
    statistics = pytest.importorskip("tipserve_export.statistics")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(40):
        (pictures / f"{i}.png").write_bytes(png(photo(chance, i % 3)))
    folder = tmp_path / "models"
    for name in ("plain", "told", "idle"):
        random_bundle(folder / name)
    assert statistics.add_statistics(folder / "told", pictures) == 40
    (tmp_path / "loaded").mkdir()
    for name in ("plain", "told"):
        (folder / name).rename(tmp_path / "loaded" / name)
    flags = ("--dtype", "float32", "--bundle-folders", str(folder))
    return serve(tmp_path / "loaded", *flags)


def text(server, *arguments: str) -> list[str]:
    """What a command prints for people, by line."""
    command = [BINARY, "--server", server.address, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_who_asks_is_told_which_bundles_have_statistics(server):
    info = server.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    found = {one.name: one.feature_statistics for one in info.bundles}
    assert found == {"plain": False, "told": True}
    listed = server.api.bundles.ListBundles(bundle.ListBundlesRequest()).bundles
    found = {one.folder: one.info.feature_statistics for one in listed}
    assert found == {"plain": False, "told": True, "idle": False}
    documents = server.cli("bundles", "list")["bundles"]
    found = {one["folder"]: one["feature_statistics"] for one in documents}
    assert found == {"plain": False, "told": True, "idle": False}
    default = server.cli("info")["bundle"]
    assert (default["name"], default["feature_statistics"]) == ("plain", False)
    with tipserve.Client(server.address) as client:
        found = {one.folder: one.info.feature_statistics for one in client.bundles()}
    assert found == {"plain": False, "told": True, "idle": False}
    shown = {line.split()[0]: line.split() for line in text(server, "bundles", "list")}
    assert "statistics" in shown["folder"]
    assert "yes" in shown["told"] and "no" in shown["plain"]
    assert not {"yes", "no"} & set(shown["idle"]), "it is not loaded"
    assert ["statistics", "no"] in [line.split() for line in text(server, "info")]


def test_the_automatic_choice_takes_them(server, chance):
    examples = [
        wire.example(i % 3, wire.encoded(png(photo(chance, i % 3))), str(i)) for i in range(24)
    ]
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("abc"), bundle="told")
    made = server.api.create(spec, examples).version
    # Left-out examples may overrule it: the reason then says so.
    standardised = made.head.standardised
    assert standardised == cache.STANDARDISED_BUNDLE or "standardised" in made.head.selection.reason
