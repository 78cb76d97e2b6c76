"""Bundles as models of Triton's repository: tritonclient lists, loads and unloads them."""

from __future__ import annotations

import threading

import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from models import CLASSES
from pictures import photo, png
from random_bundle import random_bundle
from test_bundles import FLOAT, states
from tokens import TokensFile
from tritonclient.utils import InferenceServerException
from wire import cache, classes, encoded, example

pytest.importorskip("torch")


@pytest.fixture(params=["grpc", "http"])
def connect(request):
    """Makes a client of an address, over one of the two protocols."""
    if request.param == "grpc":
        return triton.InferenceServerClient
    return triton_http.InferenceServerClient


def listed(client) -> dict[str, str]:
    """State of each bundle in the index, by its name."""
    index = client.get_model_repository_index()
    if isinstance(client, triton.InferenceServerClient):
        index = [{"name": one.name, "state": one.state} for one in index.models]
    return {one["name"]: one["state"] for one in index if one["name"].startswith("bundles/")}


def test_a_bundle_is_loaded_and_unloaded(serve, tmp_path, connect):
    folder = tmp_path / "models"
    first = random_bundle(tmp_path / "first", seed=1)
    random_bundle(folder / "second", seed=2)
    server = serve(first, "--bundle-folders", str(folder), *FLOAT)
    with connect(server.address) as client:
        assert listed(client) == {"bundles/first": "READY", "bundles/second": "UNAVAILABLE"}
        client.load_model("bundles/second")
        assert listed(client) == {"bundles/first": "READY", "bundles/second": "READY"}
        assert states(server) == {"first": "ready", "second": "ready"}
        client.load_model("bundles/second")  # as with Triton, again changes nothing
        client.unload_model("bundles/second")
        assert states(server) == {"first": "ready", "second": "available"}
        for refused, words in (
            (lambda: client.unload_model("bundles/second"), "second"),
            (lambda: client.unload_model("bundles/first"), "is the default"),
            (lambda: client.load_model("bundles/none"), "none"),
            (lambda: client.load_model("bundles/second", config="{}"), "no parameters are taken"),
        ):
            with pytest.raises(InferenceServerException, match=words):
                refused()


def test_no_request_fails_while_bundles_come_and_go(serve, tmp_path, chance):
    folder = tmp_path / "models"
    first = random_bundle(tmp_path / "first", seed=1)
    random_bundle(folder / "second", seed=2)
    server = serve(first, "--bundle-folders", str(folder), *FLOAT)
    shown = [
        example(i % len(CLASSES), encoded(png(photo(chance, i % 3))), str(i))
        for i in range(3 * len(CLASSES))
    ]
    spec = cache.CacheSpec(cache_id="trees", classes=classes(CLASSES))
    server.api.create(spec, shown)
    asked = encoded(png(photo(chance)))
    failed, done = [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                server.api.one("trees", asked)
            except Exception as error:
                failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    with triton.InferenceServerClient(server.address) as client:
        for _ in range(2):
            client.load_model("bundles/second")
            client.unload_model("bundles/second")
    done.set()
    asking.join()
    assert failed == []


def test_only_admins_load_bundles(serve, tmp_path):
    folder = tmp_path / "models"
    first = random_bundle(tmp_path / "first", seed=1)
    random_bundle(folder / "second", seed=2)
    file = TokensFile(tmp_path)
    for name, role, prefix in (
        ("reader", "classify", ""),
        ("writer", "write", ""),
        ("team", "admin", "team-"),
        ("admin", "admin", ""),
    ):
        file.add(name, role, prefix)
    flags = ("--tokens", str(file.path), "--bundle-folders", str(folder))
    server = serve(first, *flags, *FLOAT)
    with triton.InferenceServerClient(server.address) as client:

        def headers(name: str) -> dict[str, str]:
            return {"authorization": f"Bearer {file.tokens[name]}"}

        for name in ("reader", "writer", "team"):
            for change in (client.load_model, client.unload_model):
                with pytest.raises(InferenceServerException) as refused:
                    change("bundles/second", headers=headers(name))
                assert refused.value.status() == "StatusCode.PERMISSION_DENIED", name
        client.load_model("bundles/second", headers=headers("admin"))
        client.unload_model("bundles/second", headers=headers("admin"))
    lines = server.log.read_text()
    assert "load_bundle" in lines and "unload_model" in lines
