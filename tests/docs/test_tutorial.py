"""The tutorial, step by step, with the demo's bundle and pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from conftest import BINARY, ROOT, blocks

BUNDLE = ROOT / "bundles/demo"


@pytest.fixture
def packages(tmp_path):
    """A folder that has what `pip install` would bring: the program, and the demo's data."""
    if not (BINARY.is_file() and (BUNDLE / "bundle.toml").is_file()):
        pytest.skip("no program, or no demo bundle: make build bundle")
    made = tmp_path / "packages"
    made.mkdir()
    (made / "tipserve").symlink_to(BINARY)
    pictures = ROOT / "packages/demo/src/tipserve_demo/pictures"
    (made / "tipserve_demo.py").write_text(
        f"def pictures(): return {str(pictures)!r}\ndef bundle(): return {str(BUNDLE)!r}\n"
    )
    return made


def test_every_step_works_as_it_is_written(packages, tmp_path):
    log = tmp_path / "log"
    with subprocess.Popen(
        [BINARY, "serve", "--bundle", BUNDLE, "--store", tmp_path / "store",
         "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=log.open("w"), text=True,
    ) as server:  # fmt: skip
        try:
            address = re.match(r"tipserve: serving on (\S+)", server.stdout.readline())[1]
            paths = [str(packages), str(ROOT / "clients/python/src")]
            env = os.environ | {
                "TIPSERVE_SERVER": address,
                "PYTHONPATH": os.pathsep.join(paths),
                "PATH": os.pathsep.join(
                    [str(packages), os.path.dirname(sys.executable), os.environ["PATH"]]
                ),
            }
            steps = [b for b in blocks() if b.run and b.page.name == "tutorial.md"]
            assert len(steps) >= 7
            for step in steps:
                program = {
                    "bash": ["bash", "-eo", "pipefail", "-c"],
                    "python": [sys.executable, "-c"],
                }
                done = subprocess.run(
                    [*program[step.language], step.text],
                    cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300,
                )  # fmt: skip
                assert done.returncode == 0, (step.text, done.stdout, done.stderr)
        finally:
            server.terminate()
    page = (tmp_path / "report.html").read_text()
    assert "data:image/" in page and "<svg" in page and "taken for" in page
