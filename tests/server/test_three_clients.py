"""The command line, Python and Go differ in nothing: what is taken, refused, and answered.

A thousand files a run (TIPSERVE_ODD_FILES says another number), and the files that failed once
where they lie beside the project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import wire
from conftest import BINARY, ROOT, Server
from odd_files import odd_files
from pixel_bundle import SIZE, pixel_bundle
from wire import cache

tipserve = pytest.importorskip("tipserve")

COUNT = int(os.environ.get("TIPSERVE_ODD_FILES", "1000"))
KEPT = ROOT.parent / "shared/cases/pictures"


@dataclass
class Answer:
    """What one client says of one file."""

    reason: str
    embedding: np.ndarray | None
    notes: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    # No picture is all zeros, which has no direction.
    bundle = pixel_bundle(folder / "bundle", mean=-0.25)
    started = Server(bundle, folder / "store", "--dtype", "float32")
    chance = np.random.default_rng(1)
    points = chance.normal(size=(4, 3 * SIZE * SIZE))
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN)
    started.api.create(spec, wire.examples_of(points, [0, 1, 0, 1]))
    yield started
    started.close()


@pytest.fixture(scope="module")
def go(tmp_path_factory) -> Path:
    """The Go client as a program that prints its answers."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    program = tmp_path_factory.mktemp("go") / "answers"
    built = ["go", "build", "-o", str(program), "./internal/answers"]
    subprocess.run(built, cwd=ROOT / "clients/go", check=True)
    return program


@pytest.fixture
def folder(chance, tmp_path) -> Path:
    """The files, in two folders, which are classes too."""
    root = tmp_path / "files"
    for one in ("even", "odd"):
        (root / one).mkdir(parents=True)
    for number, (name, data) in enumerate(odd_files(chance, COUNT)):
        (root / ("odd" if number % 2 else "even") / name).write_bytes(data)
    if KEPT.is_dir():
        for path in KEPT.iterdir():
            shutil.copy(path, root / "odd" / path.name)
    return root


def lines(command: list, codes: tuple[int, ...]) -> list[dict]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode in codes, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def answered(reason, embedding, notes) -> Answer:
    values = None if embedding is None else np.array(embedding, np.float32)
    return Answer(reason or "", values, bool(notes))


def of_command_line(server, folder) -> dict[str, Answer]:
    flags = ["--json", "--server", server.address, "classify", "c", folder, "--embedding"]
    return {
        one["id"]: answered(
            one.get("error", {}).get("reason"), one.get("embedding"), one.get("notes")
        )
        for one in lines([BINARY, *flags], (0, 4))
    }


def of_python(server, folder, resize) -> dict[str, Answer]:
    paths = [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    with tipserve.Client(server.address, resize=resize) as client:
        return {
            one.id: answered(one.error and one.error.reason, one.embedding, one.notes)
            for one in client.classify("c", paths, embedding=True)
        }


def of_go(server, go, folder, *flags) -> dict[str, Answer]:
    command = [go, "-server", server.address, "-cache", "c", *flags, folder]
    return {
        one["id"]: answered(one.get("reason"), one.get("embedding"), one.get("notes"))
        for one in lines(command, (0,))
    }


def test_they_take_refuse_and_answer_alike(server, go, folder):
    truth = of_command_line(server, folder)
    others = {
        "Python": of_python(server, folder, "server"),
        "Python, resizing": of_python(server, folder, "client"),
        "Go": of_go(server, go, folder),
        "Go, resizing": of_go(server, go, folder, "-resize"),
    }
    taken = [name for name, one in truth.items() if not one.reason]
    print(
        f"{len(truth)} files, {len(taken)} taken, {sum(one.notes for one in truth.values())} noted"
    )
    assert len(taken) >= 0.4 * len(truth) and len(taken) < len(truth)
    differ = []
    for who, answers in others.items():
        assert answers.keys() == truth.keys(), who
        for name, expected in truth.items():
            found = answers[name]
            if (found.reason, found.notes) != (expected.reason, expected.notes):
                differ.append(
                    f"{who}, {name}: {found.reason or 'taken'} {found.notes}, "
                    f"not {expected.reason or 'taken'} {expected.notes}"
                )
            elif not expected.reason:
                jpeg = Path(name).read_bytes()[:2] == b"\xff\xd8"
                # A changed byte can make coefficients overflow: then libjpeg-turbo's vector code
                # and its C code differ (JSIMD_FORCENONE=1 shows it).
                if jpeg and "-flipped" in name:
                    continue
                # Go's inverse DCT rounds otherwise (docs/clients.md); all else is to the pixel.
                most = 0.02 if jpeg and who == "Go, resizing" else 1e-6
                off = float(abs(found.embedding - expected.embedding).max())
                if off > most:
                    differ.append(f"{who}, {name}: off by {off:.2g}")
    assert not differ, f"{len(differ)}:\n" + "\n".join(differ[:40])


def test_they_make_the_same_version_of_a_folder(server, go, folder, name):
    flags = ["--from", folder, "--method", "class-mean", "--allow-empty-classes"]
    document = server.cli("create", f"{name}-cli", *flags, code=None)
    rejected = {"cli": {one["id"]: one["reason"] for one in document["rejected"]}}
    with tipserve.Client(server.address) as client:
        made = client.create_cache(
            f"{name}-python", folder, method="class_mean", allow_empty_classes=True
        )
        rejected["python"] = {one.id: one.error.reason for one in made.rejected}
    command = [go, "-server", server.address, "-cache", f"{name}-go", "-create", folder]
    rejected["go"] = {one["id"]: one["reason"] for one in lines(command, (0,))}
    assert rejected["cli"] == rejected["python"] == rejected["go"]
    listed = {
        who: [(e.example_id, e.display_name) for e in server.api.examples(f"{name}-{who}")]
        for who in rejected
    }
    assert listed["cli"] == listed["python"] == listed["go"]
    query = wire.embedding(np.random.default_rng(2).normal(size=3 * SIZE * SIZE))
    answers = [server.api.logits(f"{name}-{who}", [query]) for who in rejected]
    np.testing.assert_allclose(answers[1:], [answers[0]] * 2, rtol=0, atol=1e-4)
