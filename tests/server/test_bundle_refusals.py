"""Bundles that are not served: too many of them, two of one name, and those that fail on pictures;
and that loading one more leaves the others their turns.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
import torch
import wire
from conftest import BINARY
from pictures import photo, png
from random_bundle import random_bundle
from wire import Problem, bundle, classify

FLOAT = ("--dtype", "float32")


def refused(run) -> Problem:
    with pytest.raises(grpc.RpcError) as raised:
        run()
    return Problem.of_call(raised.value)


def states(server) -> dict[str, str]:
    """State of each bundle by its folder."""
    found = server.cli("bundles", "list")["bundles"]
    return {one["folder"]: one["state"] for one in found}


def load(server, folder: str):
    request = bundle.LoadBundleRequest(folder=folder)
    return server.api.bundles.LoadBundle(request, timeout=300)


def embedded(server, chance, named: str = ""):
    """The outcome of a picture that no one has sent before."""
    content = wire.encoded(png(photo(chance, 0)))
    request = classify.EmbedRequest(bundle=named, inputs=[content])
    [answer] = server.api.classifying.Embed(request, timeout=60).inputs
    return answer


def refused_start(tmp_path: Path, *flags) -> str:
    """What a server says that does not start."""
    said = subprocess.run(
        [
            *(BINARY, "serve", *map(str, flags), "--store", tmp_path / "unused", *FLOAT),
            *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 1, said.stderr
    assert "serving on" not in said.stdout
    return said.stderr


def test_more_bundles_than_are_ever_loaded_are_refused_at_the_start(serve, tmp_path):
    folder = tmp_path / "models"
    first = random_bundle(folder / "b00", seed=0)
    for number in range(1, 34):
        # Other bundles only by their names: none of them need be loaded.
        shutil.copytree(first, folder / f"b{number:02}")
        manifest = folder / f"b{number:02}" / "bundle.toml"
        manifest.write_text(manifest.read_text().replace('"b00"', f'"b{number:02}"'))
    said = refused_start(tmp_path, "--bundle", folder)
    assert "names 34 bundles" in said and "max_bundles is 16" in said, said
    assert "--bundle-folders" in said
    for number in range(17, 34):
        shutil.rmtree(folder / f"b{number:02}")
    assert "names 17 bundles" in refused_start(tmp_path, "--bundle", folder)
    shutil.rmtree(folder / "b16")
    server = serve(folder, "--bundle-folders", str(tmp_path), *FLOAT, "--workers", "1")
    assert len(states(server)) == 16
    random_bundle(tmp_path / "more", seed=9)
    problem = refused(lambda: load(server, "more"))
    assert (problem.reason, problem.metadata["maximum"]) == ("LIMIT_EXCEEDED", "16")


def test_two_folders_of_one_name_serve_and_are_not_taken_for_each_other(serve, tmp_path):
    one = random_bundle(tmp_path / "a" / "bundle", name="one", seed=1)
    two = random_bundle(tmp_path / "b" / "bundle", name="two", seed=2)
    server = serve(one, "--bundle", two, *FLOAT)
    server.api.bundles.UnloadBundle(bundle.UnloadBundleRequest(bundle="two"), timeout=60)
    problem = refused(lambda: load(server, "bundle"))
    assert problem.reason == "BUNDLE_NOT_FOUND" and "several" in problem.message
    server.terminate()
    # A bundle that is also in a folder of bundles is one, until another comes.
    (tmp_path / "c").mkdir()
    folders = ("--bundle-folders", str(one.parent), "--bundle-folders", str(tmp_path / "c"))
    server = serve(one, *folders, *FLOAT)
    assert load(server, "bundle").info.name == "one"
    shutil.copytree(two, tmp_path / "c" / "bundle")
    problem = refused(lambda: load(server, "bundle"))
    assert problem.reason == "BUNDLE_NOT_FOUND" and "several" in problem.message


class WrongWidth(torch.nn.Module):
    """Three numbers a picture, whatever the bundle says."""

    def forward(self, x):
        return x.float().mean((2, 3))


class NotNumbers(torch.nn.Module):
    """Not a number, whatever the picture."""

    def forward(self, x):
        return x.float().flatten(1)[:, :24] * float("nan")


class Normed(torch.nn.Module):
    """Divides by the picture's norm: not a number for a black one alone, if it is all zeros."""

    def forward(self, x):
        row = x.float().flatten(1)[:, :24] + 2.0
        return row / row.norm(2, dim=1, keepdim=True)


class OneAtATime(torch.nn.Module):
    """Fails on batches, as where memory is short."""

    def forward(self, x):
        if x.size(0) > 1:
            raise RuntimeError("not enough memory")
        return x.float().flatten(1)[:, :24]


@pytest.mark.parametrize(
    ("module", "reason"), [(WrongWidth(), "[1, 3]"), (NotNumbers(), "not finite")]
)
def test_a_bundle_that_fails_on_every_picture_is_refused(serve, tmp_path, chance, module, reason):
    bad = random_bundle(tmp_path / "more" / "bad", module=module)
    said = refused_start(tmp_path, "--bundle", bad)
    assert "every picture" in said and reason in said and str(bad) in said, said
    good = random_bundle(tmp_path / "good")
    server = serve(good, "--bundle-folders", str(bad.parent), *FLOAT)
    problem = refused(lambda: load(server, "bad"))
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "BUNDLE_UNUSABLE",
    )
    assert reason in problem.message
    assert states(server) == {"good": "ready", "bad": "available"}
    assert server.http("/readyz")[0] == 200
    assert embedded(server, chance).HasField("embedding")


@pytest.mark.parametrize("module", [Normed(), OneAtATime()])
def test_a_bundle_that_fails_on_some_batches_alone_is_served(serve, tmp_path, chance, module):
    server = serve(random_bundle(tmp_path / "some", module=module), *FLOAT)
    assert embedded(server, chance).HasField("embedding")


class Slow(torch.nn.Module):
    """Products that depend on the picture, so that fusing cannot compute them beforehand."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.ballast = torch.nn.Parameter(torch.eye(512))
        self.rounds = rounds

    def forward(self, x):
        idle = self.ballast + x.float().mean() * 0.0
        for _ in range(self.rounds):
            idle = torch.mm(idle, self.ballast)
        return x.float().flatten(1)[:, :24] * idle[0, 0]


def test_others_are_served_while_fusing_is_tried_on_the_only_worker(serve, tmp_path, chance):
    slow = random_bundle(tmp_path / "more" / "slow", module=Slow(100))
    flags = ("--bundle-folders", str(slow.parent), *FLOAT, "--workers", "1")
    server = serve(random_bundle(tmp_path / "quick"), *flags)

    def seconds(named: str) -> float:
        began = time.monotonic()
        assert embedded(server, chance, named).HasField("embedding")
        return time.monotonic() - began

    loading = threading.Thread(target=lambda: load(server, "slow"))
    loading.start()
    waits = []
    while loading.is_alive():
        waits.append(seconds("quick"))
    assert "fused image encoder" in server.log.read_text()
    alone = sorted(seconds("slow") for _ in range(5))[2]
    # Trying takes 14 runs, and the others have their turns between any two.
    assert max(waits) < 6 * alone, (max(waits), alone)
    assert len(waits) > 8, (len(waits), alone)
