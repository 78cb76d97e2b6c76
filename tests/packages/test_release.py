"""The scripts that keep a release whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PLACES = sorted(set(re.findall(r'^    \("([\w./-]+)", ', (ROOT / "scripts/versions").read_text(), re.MULTILINE)))  # fmt: skip


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of what has the version in it."""
    for name in [*PLACES, "scripts/versions", "scripts/release-notes"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def versions(tree: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, tree / "scripts/versions", *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_one_version_is_printed(tree, version):
    assert versions(tree).stdout == f"{version}\n"


@pytest.mark.parametrize("place", [one for one in PLACES if one != "Cargo.toml"])
def test_a_place_with_another_version_is_named(tree, version, place):
    text = (tree / place).read_text()
    assert version in text
    (tree / place).write_text(text.replace(version, "9.8.7"))
    done = versions(tree)
    assert done.returncode == 1
    assert f"{place}: 9.8.7, not {version}" in done.stderr


def test_a_release_needs_its_date_and_its_notes(tree, version):
    text = (tree / "CHANGELOG.md").read_text()
    dated = re.sub(r"^## .*$", f"## {version} (2026-12-01)", text, count=1, flags=re.MULTILINE)
    (tree / "CHANGELOG.md").write_text(dated.replace("(2026-12-01)", "(unreleased)", 1))
    assert versions(tree).returncode == 0
    assert "is unreleased" in versions(tree, "--released").stderr
    (tree / "CHANGELOG.md").write_text(dated)
    assert versions(tree, "--released").returncode == 0

    notes = [tree / "scripts/release-notes"]
    said = subprocess.run([*notes, version], capture_output=True, text=True, check=True).stdout
    assert said.strip()
    assert "\n## " not in said
    assert subprocess.run([*notes, "9.8.7"], capture_output=True).returncode == 1


def test_crates_that_are_published_say_what_they_are():
    """And need no crate of ours that is not: cargo would refuse them."""
    command = ["cargo", "metadata", "--no-deps", "--locked", "--format-version", "1"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = {one["name"]: one for one in json.loads(told)["packages"]}
    published = {name: one for name, one in ours.items() if one["publish"] is None}
    for name, crate in published.items():
        told = ("description", "license", "repository", "homepage", "authors", "keywords", "readme")
        assert [field for field in told if not crate[field]] == [], name
        needs = {it["name"] for it in crate["dependencies"] if it["kind"] != "dev"}
        assert needs & ours.keys() <= published.keys(), name
    for page in ("CONTRIBUTING.md", "scripts/release-files"):
        text = (ROOT / page).read_text()
        commands = re.findall(r"cargo (?:publish|package)(?:[^`\n\\]|\\\n)*", text)
        named = [re.findall(r"-p ([\w-]+)", command) for command in commands]
        assert [set(names) for names in named if names] == [published.keys()], page
