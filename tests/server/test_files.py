"""Files and folders that the command line cannot use: named, with what is wrong; nothing is made."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from conftest import WIDTH
from pictures import photo

GOOD = {
    "features": np.random.default_rng(8).normal(size=(6, WIDTH)).astype(np.float32),
    "labels": np.array([0, 1, 2, 2, 1, 0]),
    "classes": np.array(["a", "b", "c"]),
}


def changed(**arrays):
    made = GOOD | arrays
    return {name: array for name, array in made.items() if array is not None}


def rows(array, at, value):
    copy = np.array(array)
    copy[at] = value
    return copy


BAD = {
    "no features": (changed(features=None), "features"),
    "no labels": (changed(labels=None), "labels"),
    "no classes": (changed(classes=None), "classes"),
    "a label beyond": (changed(labels=np.array([0, 1, 2, 3, 1, 0])), "3"),
    "a label below": (changed(labels=np.array([0, 1, 2, -1, 1, 0])), "-1"),
    "too few labels": (changed(labels=GOOD["labels"][:5]), "5"),
    "labels of floats": (changed(labels=GOOD["labels"] + 0.5), "labels"),
    "features of one dimension": (changed(features=GOOD["features"].ravel()), "features"),
    "features of integers": (changed(features=np.ones((6, WIDTH), int)), "features"),
    "objects": (changed(classes=np.array(["a", "b", "c"], object)), "classes"),
    "text of another width": (
        changed(text_weights=np.ones((3, WIDTH - 1), np.float32)),
        str(WIDTH - 1),
    ),
    "text of too few": (changed(text_weights=np.ones((2, WIDTH), np.float32)), "text_weights"),
    "text not finite": (changed(text_weights=np.full((3, WIDTH), np.nan, np.float32)), "NaN"),
    "another width": (changed(features=GOOD["features"][:, :-1]), str(WIDTH - 1)),
    "an empty class": (changed(classes=np.array(["a", "b", "c", "d"])), '"d"'),
    "nothing at all": (
        changed(features=np.zeros((0, WIDTH), np.float32), labels=np.zeros(0, int)),
        "",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_arrays_that_cannot_be_used(features, name, tmp_path, what):
    arrays, word = BAD[what]
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    error = features.cli("create", name, "--from", path, code=1)["error"]
    assert word in error["message"], error
    assert f"caches/{name}" not in features.api.ids()


def test_rows_that_cannot_be_used_are_reported(features, name, tmp_path):
    values = rows(rows(GOOD["features"], 2, np.nan), 5, 0)
    np.savez(tmp_path / "rows.npz", **changed(features=values))
    made = features.cli("create", name, "--from", tmp_path / "rows.npz", code=4)
    assert {one["id"] for one in made["rejected"]} == {"2", "5"}
    assert made["version"]["key_count"] == 4
    error = features.cli("create", f"{name}-s", "--strict", "--from", tmp_path / "rows.npz", code=1)
    assert '"2"' in error["error"]["message"]
    assert f"caches/{name}-s" not in features.api.ids()


VARIANTS = {
    "compressed": lambda path: np.savez_compressed(path, **GOOD),
    "bytes": lambda path: np.savez(path, **changed(classes=GOOD["classes"].astype("S"))),
    "Fortran": lambda path: np.savez(path, **changed(features=np.asfortranarray(GOOD["features"]))),
    "big-endian": lambda path: np.savez(path, **changed(features=GOOD["features"].astype(">f8"))),
    "other arrays": lambda path: np.savez(path, **changed(more=np.arange(3), text=np.array("x"))),
}


@pytest.mark.parametrize("what", VARIANTS)
def test_arrays_in_every_form_make_the_same_cache(features, name, tmp_path, what):
    np.savez(tmp_path / "plain.npz", **GOOD)
    VARIANTS[what](tmp_path / "variant.npz")
    answers = []
    for file in ("plain", "variant"):
        flags = ["--method", "tip-adapter", "--alpha", 1, "--beta", 5]
        made = features.cli("create", name, "--from", tmp_path / f"{file}.npz", *flags)
        reference = f"{name}@{made['version']['version']}"
        evaluated = features.cli("evaluate", reference, "--from", tmp_path / "plain.npz")
        assert [c["display_name"] for c in made["version"]["classes"]] == ["a", "b", "c"]
        answers.append((evaluated["top1"], evaluated["evaluations"][0]["cross_entropy"]))
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_files_that_are_no_archives(features, name, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "whole.npz", **GOOD)
    data = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "junk.npz", "w") as junk:
        for array in ("features", "labels", "classes"):
            junk.writestr(f"{array}.npy", b"junk")
    for file in ("text", "cut", "empty", "junk"):
        error = features.cli("create", name, "--from", tmp_path / f"{file}.npz", code=1)["error"]
        assert f"{file}.npz" in error["message"]
    error = features.cli("create", name, "--from", tmp_path / "nowhere.npz", code=3)["error"]
    assert "nowhere.npz" in error["message"]


def test_folders_that_cannot_be_used(tiny, chance, name, tmp_path):
    (tmp_path / "none").mkdir()
    assert tiny.cli("create", name, "--from", tmp_path / "none", code=1)["error"]["message"]
    (tmp_path / "gap" / "full").mkdir(parents=True)
    (tmp_path / "gap" / "bare").mkdir()
    photo(chance).save(tmp_path / "gap" / "full" / "a.png")
    error = tiny.cli("create", name, "--from", tmp_path / "gap", code=1)["error"]
    assert "bare" in error["message"]
    (tmp_path / "gap" / "bare" / "b.jpg").write_text("no picture")
    error = tiny.cli("create", name, "--from", tmp_path / "gap", code=1)["error"]
    assert "bare" in error["message"]
    assert f"caches/{name}" not in tiny.api.ids()
