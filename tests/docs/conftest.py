"""Where things are, and the blocks of code of the pages."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TIPSERVE_BINARY", ROOT / "target/release/tipserve"))
# Every page but the changelog, which is of the past.
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / path for path in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "export/README.md")),
    *sorted((ROOT / "clients").glob("*/README.md")),
    *sorted((ROOT / "crates").glob("*/README.md")),
    *sorted((ROOT / "deploy").glob("*/*/README.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
    *sorted((ROOT / "packages").glob("*/README.md")),
]
_BLOCK = re.compile(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\S.*\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: Path
    language: str
    text: str
    run: bool
    """Whether the page asks a test to run it."""

    @property
    def name(self) -> str:
        """For a test's name."""
        return f"{self.page.relative_to(ROOT)}:{self.text.splitlines()[0][:40]}"


@cache
def blocks() -> list[Block]:
    """All of them; indented ones are the shell's, or formulas."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        found += [Block(page, m[2], m[3], bool(m[1])) for m in _BLOCK.finditer(text)]
        rest = _BLOCK.sub("", text)
        found += [Block(page, "indented", m[0], False) for m in _INDENTED.finditer(rest)]
    return found


@pytest.fixture(scope="session")
def help_of():
    """A command's help page by its words."""
    if not BINARY.is_file():
        pytest.skip(f"no program at {BINARY}: make build")

    @cache
    def page(*words: str) -> str:
        done = subprocess.run([BINARY, *words, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return page
