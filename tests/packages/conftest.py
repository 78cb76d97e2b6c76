"""Fixtures: the wheels that `make wheel` built, and empty environments that they are put into."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / os.environ.get("TIPSERVE_WHEELS", "dist")


class Environment:
    """A virtual environment, with nothing of this one's or of the working copy's in reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        [self.packages] = folder.glob("lib/python3*/site-packages")

    def install(self, *what: str) -> None:
        """With pip; what is ours comes from the wheels, the rest from the index."""
        pip = [self.folder / "bin/pip", "install", "--quiet", "--find-links", WHEELS]
        subprocess.run([*pip, *what], check=True, timeout=900)

    def run(self, *command, code: int = 0, variables: dict | None = None) -> str:
        """A program of the environment, in an empty folder: its standard output, or what it
        complained of where another `code` is expected.
        """
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        done = subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            cwd=elsewhere,
            env=self.variables | (variables or {}),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    @property
    def variables(self) -> dict[str, str]:
        """What its programs run with: no PYTHONPATH, no LD_LIBRARY_PATH, no TIPSERVE_…"""
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}


@pytest.fixture(scope="session")
def wheels() -> dict[str, Path]:
    """The wheels by distribution."""
    found = {path.name.split("-")[0]: path for path in WHEELS.glob("tipserve*.whl")}
    if not found:
        pytest.fail(f"no wheels in {WHEELS}: make wheel")
    return found


@pytest.fixture(scope="session")
def server_environment(wheels, tmp_path_factory) -> Environment:
    """`pip install 'tipserve[server]'` in an empty environment: torch comes from the index."""
    environment = Environment(tmp_path_factory.mktemp("server") / "venv")
    environment.install("tipserve[server]")
    return environment


@pytest.fixture(scope="session")
def bare_environment(wheels, tmp_path_factory) -> Environment:
    """The server's wheel alone, without torch."""
    environment = Environment(tmp_path_factory.mktemp("bare") / "venv")
    environment.install("--no-deps", "tipserve-server")
    return environment


@pytest.fixture(scope="session")
def version() -> str:
    """The project's version: the workspace's."""
    return re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
