"""Parts of a data set, wherever they are: they are not classes."""

from __future__ import annotations

import pytest

import tipserve
from tipserve.labelled import load

PARTS = [
    "train",
    "Training",
    "training_set",
    "trainset",
    "val",
    "dev-set",
    "eval",
    "TEST",
    "holdout",
]


def written(paths):
    fsspec = pytest.importorskip("fsspec")
    base = "memory://splits"
    system = fsspec.filesystem("memory")
    if system.exists("/splits"):
        system.rm("/splits", recursive=True)
    for path in paths:
        with fsspec.open(f"{base}/{path}", "wb") as file:
            file.write(b"x")
    return base


@pytest.mark.parametrize("part", PARTS)
def test_parts_at_an_address_are_refused(part):
    base = written([f"{part}/cat/0.jpg", f"{part}/dog/0.jpg"])
    with pytest.raises(tipserve.InvalidArgument, match="parts of a data set") as caught:
        load(base)
    assert caught.value.reason == "FOLDER_OF_SPLITS"
    assert f"'{base}/{part}'" in caught.value.message


def test_parts_at_an_address_are_refused_beside_other_folders():
    for other in ("bus/a/0.jpg", "unlabelled/a/0.jpg"):
        base = written(["train/cat/0.jpg", "test/dog/0.jpg", other])
        with pytest.raises(tipserve.InvalidArgument, match=r"train.*; and see how well"):
            load(base)


def test_classes_at_an_address_may_be_called_so():
    for paths in (
        ["train/0.jpg", "test/0.jpg"],
        ["train/old/0.jpg", "bus/old/0.jpg"],
        ["train/a/0.jpg", "test/a/0.jpg", "bus/0.jpg"],
    ):
        loaded = load(written(paths))
        assert {one.display_name for one in loaded.classes} == {
            path.split("/")[0] for path in paths
        }


@pytest.mark.parametrize("part", PARTS)
def test_parts_in_a_dict_are_refused(part):
    with pytest.raises(tipserve.InvalidArgument, match="parts of a data set") as caught:
        load({part: [b"x"]})
    assert f"data[{part!r}]" in caught.value.message
