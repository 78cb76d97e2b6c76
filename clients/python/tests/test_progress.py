"""`on_progress=True` and `ProgressBar`: what is encoded, of what was received."""

from __future__ import annotations

import builtins
import re

import pytest

import tipserve
from tipserve.types import CreateProgress

STAGES = [
    CreateProgress("text", 0, 0, 0),
    CreateProgress("examples", 40, 7, 0),
    CreateProgress("examples", 40, 9, 1),
    CreateProgress("selection", 40, 39, 1),
    CreateProgress("storing", 40, 39, 1),
]


def test_a_bar_shows_what_is_encoded(capsys):
    pytest.importorskip("tqdm")
    bar = tipserve.ProgressBar()
    for progress, expected in zip(STAGES, ["0", "7", "9", "39", "39"], strict=True):
        bar(progress)
        shown = re.split(r"[\r\n]+", capsys.readouterr().err)
        last = next(line for line in reversed(shown) if line.strip())
        assert progress.stage in last
        if progress.received:
            assert f"{expected}/40" in last, shown
        assert ("1 rejected" in last) == (progress.rejected > 0), shown


def test_without_tqdm_each_stage_is_a_line(capsys, monkeypatch):
    imported = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    bar = tipserve.ProgressBar()
    for progress in STAGES:
        bar(progress)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("text", "examples", "selection", "storing", "done")
    ]
    assert lines[-1] == "done: 39 pictures, 1 rejected"
