"""What the pages tell people to type is what the program takes."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import textwrap

import pytest
import tomllib
import yaml
from conftest import BINARY, PAGES, ROOT, blocks

SHELLS = ("bash", "sh", "console", "indented")
# The groups of commands, whose own word comes second.
GROUPS = ("bundles", "caches", "finetunes", "token")


def commands(text: str) -> list[list[str]]:
    """The words of every call of tipserve in a block."""
    joined = text.replace("\\\n", " ")
    found = []
    for part in re.split(r"\n|\||&&|;|\$\(", joined):
        words = part.split("#")[0].strip().removesuffix(")")
        match = re.match(r"(?:\S*/)?tipserve(?:-client)? (.*)", words)
        if match is None:
            continue
        try:
            found.append(shlex.split(match[1].replace("…", "")))
        except ValueError:  # a quotation that goes on elsewhere
            found.append(match[1].split())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_its_language(page):
    """The tests choose by it: what says none would be run and checked by nobody."""
    fences = re.findall(r"^```(.*)$", page.read_text("utf-8"), re.MULTILINE)
    assert all(fences[::2]), page
    assert not any(fences[1::2]), page


def check_flags(words: list[str], help_of) -> None:
    """The command of these words exists, and its flags do."""
    words = [word for word in words if not word.startswith("$")]
    plain = [word for word in words if re.fullmatch(r"[a-z]+", word)]
    flags = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    command = next((word for word in plain if word in help_of()), None)
    if command is None:
        assert set(flags) <= {"--version", "--help"}, words
        return
    path = [command]
    if command in GROUPS and len(plain) > plain.index(command) + 1:
        path.append(plain[plain.index(command) + 1])
    page = help_of(*path)
    for flag in flags:
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", page), (path, flag)


@pytest.mark.parametrize(
    "block", [b for b in blocks() if b.language in SHELLS], ids=lambda block: block.name
)
def test_commands_and_flags_exist(block, help_of):
    for words in commands(block.text):
        check_flags(words, help_of)


@pytest.mark.parametrize(
    "block",
    [b for b in blocks() if b.language in ("python", "json", "toml", "yaml", "bash", "sh")],
    ids=lambda block: block.name,
)
def test_blocks_are_of_their_language(block):
    text = textwrap.dedent(block.text)
    if block.language == "python":
        ast.parse(text)
    elif block.language == "json":
        json.loads(text)
    elif block.language == "toml":
        tomllib.loads(text)
    elif block.language == "yaml":
        list(yaml.safe_load_all(text))
    elif "…" not in text:
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def reasons_of(page: str) -> set[str]:
    """The reasons in the second column, or the first, of a page's tables."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    cells = re.findall(r"^\|([^|]*)\|([^|]*)\|", text, re.MULTILINE)
    words = {
        word for row in cells for cell in row for word in re.findall(r"[A-Z]+(?:_[A-Z]+)*", cell)
    }
    return {word for word in words if "_" in word or word in ("CONFLICT", "DAMAGED", "BUSY")}


def test_every_reason_of_the_server_is_in_troubleshooting():
    sources = [ROOT / "src/rpc/error/mapping.rs", *(ROOT / "src/auth").glob("*.rs")]
    text = "".join(path.read_text("utf-8") for path in sources)
    stated = {word for word in re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', text)}
    known = reasons_of("troubleshooting.md")
    # Status codes and variables look alike.
    codes = {"NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED",
             "RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "DATA_LOSS", "ALREADY_EXISTS"}  # fmt: skip
    missing = {word for word in stated - known - codes if not word.startswith("TIPSERVE_")}
    assert not missing


def test_links_between_pages_lead_somewhere():
    """For pages that the site does not have; `make docs` looks at its own, anchors included."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
            if "://" in target or target.startswith("mailto:"):
                continue
            assert (page.parent / target).exists(), (page, target)


def test_the_manual_has_a_page_for_every_command(tmp_path, help_of):
    subprocess.run([BINARY, "man", "--dir", tmp_path], check=True)
    pages = {path.name for path in tmp_path.iterdir()}
    listed = re.findall(r"^  ([a-z]+) +[A-Z]", help_of(), re.MULTILINE)
    assert {"tipserve.1", "tipserve-caches-list.1"} <= pages
    assert {f"tipserve-{name}.1" for name in listed if name != "help"} <= pages
    page = (tmp_path / "tipserve-create.1").read_text()
    assert "exif\\-orientation" in page and ".TH" in page
    one = subprocess.run([BINARY, "man"], capture_output=True, text=True, check=True)
    assert "tipserve \\- Turns a few labelled pictures" in one.stdout
