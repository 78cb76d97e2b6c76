"""scripts/gpu-check itself, tiny and on the CPU: every check holds, every row is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import BINARY, ROOT

TABLE = (
    "encoder through the engine",
    "JPEG to label",
    "times as fast as the formula in plain PyTorch",
    "floor over time",
    "caches at random over one cache",
    "latency of one picture",
    "with CUDA graphs",
    "chosen there",
    "Tip-Adapter-F",
    "goodput at 3 x",
    "over TorchScript as served",
    "profile, engine",
    "profile, head",
    "workers a card",
    "JPEG decoding",
)


def check(out, *flags: str, binary=BINARY) -> tuple[int, list[dict]]:
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts/gpu-check", "--device", "cpu", "--quick"),
            *("--seconds", "0.3", "--binary", binary, "--out", out, *flags),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    print(done.stdout, done.stderr, sep="\n")
    return done.returncode, json.loads(out.read_text())


def test_every_row_is_measured_and_every_check_holds(tmp_path):
    code, rows = check(tmp_path / "gpu.json")
    assert code == 0
    for part in TABLE:
        assert any(part in row["row"] for row in rows), part
    for row in rows:
        assert {"row", "value", "goal", "ok", "card", "date"} <= row.keys()
        assert row["value"] is not None
        # Right is right on a CPU too; how fast a GPU is, a CPU cannot say.
        if row["part"] == "profile":
            # What is to explain a row that missed: what ran, and for how long.
            spent = row["details"]["by_name"]
            assert spent and all(it["calls"] > 0 and it["ms"] >= 0 for it in spent.values())
            assert 0 < row["value"] <= 1
        speed = any(part in row["row"] for part in TABLE)
        assert row["ok"] is (None if speed else True), row


def test_what_does_not_run_is_missed(tmp_path):
    code, rows = check(tmp_path / "gpu.json", "--only", "head", binary="/bin/false")
    assert code == 1
    assert [row["ok"] for row in rows] == [False]


def test_a_server_without_a_gpu_says_that_it_has_no_graphs_and_serves(tiny_bundle, serve):
    server = serve(tiny_bundle, "--device", "cpu", "--cuda-graphs", "auto")
    said = "no CUDA graphs: every batch is computed without"
    assert said in server.log.read_text()
    assert server.http("/readyz")[0] == 200
    quiet = serve(tiny_bundle, "--device", "cpu")
    assert "CUDA graph" not in quiet.log.read_text()


def test_a_word_that_says_nothing_of_graphs_is_refused(features_bundle, tmp_path):
    flags = ("--bundle", features_bundle, "--store", tmp_path, "--cuda-graphs", "on")
    done = subprocess.run([BINARY, "serve", *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2  # a wrong setting
    assert "off or auto is needed" in done.stderr, done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_driver_is_told_so(features_bundle, tmp_path):
    for device in ("cuda", "cuda:1", "cuda:0,1", "cuda:all"):
        flags = ("--bundle", features_bundle, "--store", tmp_path, "--device", device)
        done = subprocess.run(
            [BINARY, "serve", *flags, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 1
        assert "CUDA is not available" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) < 5


def test_the_folder_that_travels_measures_on_its_own_and_goes_on_where_it_stopped(tmp_path):
    """Copied elsewhere, with nothing of the tree beside it; under the limit that it states."""
    # Programs that CI compiles unoptimised are nearly twice as large.
    limit = 64 if os.environ.get("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3") == "3" else 128
    made = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts/gpu-carry", "--out", tmp_path / "carried"),
            *("--limit-mib", str(limit)),
        ],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert sum(it.stat().st_size for it in (tmp_path / "carried").rglob("*")) < limit << 20

    def run(*flags: str) -> list[dict]:
        subprocess.run(
            [tmp_path / "carried/run", "--device", "cpu", "--quick", "--seconds", "0.2", *flags],
            env=os.environ | {"PYTHON": sys.executable},
            check=True,
            cwd=tmp_path,
        )
        written = tmp_path / "carried/gpu.json"
        return json.loads(written.read_text()) if written.exists() else []

    assert run("--minutes", "0") == [], "no time, nothing begun"
    head = run("--only", "head")
    assert {row["part"] for row in head} == {"head"}
    both = run("--only", "head", "--only", "workers", "--resume")
    assert {row["part"] for row in both} == {"head", "workers"}
    # What was measured before is kept, not measured again.
    assert both[: len(head)] == head
