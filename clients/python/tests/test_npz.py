"""Embeddings in files: nothing is cast in silence, and errors name file and array."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import pytest

import tipserve
from tipserve.labelled import load

numpy = pytest.importorskip("numpy")

GOOD = {
    "features": numpy.arange(12, dtype=numpy.float32).reshape(4, 3),
    "labels": numpy.array([0, 2, 1, 0]),
    "classes": numpy.array(["cat", "dog", "owl"]),
}


@pytest.fixture
def saved(tmp_path):
    def save(name="pets.npz", **arrays):
        path = tmp_path / name
        with open(path, "wb") as file:  # numpy would add a suffix
            numpy.savez(file, **{k: v for k, v in {**GOOD, **arrays}.items() if v is not None})
        return path

    return save


def read(path):
    loaded = load(path)
    return [one.display_name for one in loaded.classes], [e.class_ for e in loaded.examples]


@pytest.mark.parametrize(
    "arrays",
    [
        {"classes": numpy.array([b"cat", b"dog", b"owl"])},
        {"labels": numpy.array([0, 2, 1, 0], numpy.uint8)},
        {"labels": numpy.array([0, 2, 1, 0], ">i2")},
        {"features": numpy.asfortranarray(GOOD["features"].astype(numpy.float64))},
        {"features": GOOD["features"].astype(numpy.float16)},
    ],
)
def test_what_loses_nothing_is_read(saved, arrays):
    path = saved(**arrays)
    assert read(path) == (["cat", "dog", "owl"], [0, 2, 1, 0])
    rows = [example.picture for example in load(path).examples]
    numpy.testing.assert_array_equal(rows, GOOD["features"])


def test_bytes_that_are_utf8_are_names(saved):
    path = saved(classes=numpy.array(["café".encode(), b"dog", b"owl"]))
    assert read(path)[0] == ["café", "dog", "owl"]


def test_the_suffix_may_be_in_capitals(saved):
    assert read(saved("PETS.NPZ"))[0] == ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("arrays", "array", "why"),
    [
        ({"labels": numpy.array([0.7, 1.7, 2.7, 0])}, "labels", "float64, not whole numbers"),
        ({"labels": numpy.array([0.0, 1.0, 2.0, 0])}, "labels", "float64, not whole numbers"),
        ({"labels": numpy.array([True, False] * 2)}, "labels", "bool, not whole numbers"),
        ({"labels": numpy.array(["cat"] * 4)}, "labels", "not whole numbers"),
        ({"labels": numpy.eye(4, dtype=int)}, "labels", r"\[4, 4\], not \[M\]"),
        ({"labels": numpy.array([0, 1])}, "labels", "2 values, but features has 4 rows"),
        ({"labels": numpy.array([0, 1, 3, 0])}, "labels", "holds 3 at position 2"),
        ({"labels": numpy.array([0, 1, -1, 0])}, "labels", "holds -1 at position 2"),
        ({"labels": None}, "labels", r"missing \(arrays in the file: classes, features\)"),
        ({"features": GOOD["features"] * 1j}, "features", "complex64, not float16"),
        ({"features": GOOD["features"].astype(int)}, "features", "int64, not float16"),
        ({"features": numpy.ones((4, 3), numpy.longdouble)}, "features", "not float16"),
        ({"features": numpy.ones(4, numpy.float32)}, "features", r"\[4\], not \[rows, width\]"),
        ({"classes": numpy.array([1, 2, 3])}, "classes", "int64, not strings"),
        ({"classes": numpy.array([[b"cat"], [b"dog"]])}, "classes", r"not \[N\]"),
        ({"classes": numpy.array([], dtype=str)}, "classes", "is empty"),
        ({"classes": numpy.array(["a", "b", " "])}, "classes", "no name at position 2"),
        ({"classes": numpy.zeros(3, "U0")}, "classes", "no name at position 0"),
        ({"classes": numpy.array([b"\xff"] * 3)}, "classes", "not UTF-8"),
        ({"classes": numpy.array(["a", None], object)}, "classes", "never unpickled"),
        ({"text_weights": numpy.ones((2, 3), "f4")}, "text_weights", r"ask for \[3, 3\]"),
        ({"text_weights": numpy.ones((3, 3), "c8")}, "text_weights", "complex64"),
    ],
)
def test_what_would_be_cast_is_refused_by_file_and_array(saved, arrays, array, why):
    path = saved(**arrays)
    with pytest.raises(tipserve.TipserveError, match=why) as caught:
        load(path)
    assert caught.value.reason == "NPZ_INVALID"
    assert caught.value.message.startswith(f"{path}: the array {array} ")
    assert caught.value.metadata == {"path": str(path), "array": array}


def test_damaged_files_are_refused_by_name(saved, tmp_path):
    path = saved()
    data = path.read_bytes()
    harmed = bytearray(data)
    harmed[data.index(GOOD["features"].tobytes())] ^= 255  # so its checksum is false
    for content in (data[: len(data) // 2], b"", b"no zip", pickle.dumps([1]), bytes(harmed)):
        path.write_bytes(content)
        with pytest.raises(tipserve.InvalidArgument) as caught:
            load(path)
        assert caught.value.reason == "NPZ_INVALID"
        assert str(path) in caught.value.message


def bytes_of(array) -> bytes:
    out = io.BytesIO()
    numpy.lib.format.write_array(out, array)
    return out.getvalue()


def archived(path, compression=zipfile.ZIP_DEFLATED, suffix=".npy", **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in {**GOOD, **members}.items():
            data = array if isinstance(array, bytes) else bytes_of(array)
            archive.writestr(name + suffix, data)
    return path


def with_letter(value: int) -> bytes:
    """Names of which one has a number in a letter's place."""
    letter, wrong = "c".encode("utf-32-le"), struct.pack("<I", value)
    return bytes_of(GOOD["classes"]).replace(letter, wrong, 1)


@pytest.mark.parametrize(
    ("members", "array", "why"),
    [
        ({"features": b"no array"}, "features", "magic string is not correct"),
        ({"features": b"\x93NUMPY\x09\0"}, "features", "cannot be read"),
        ({"classes": with_letter(0xD800)}, "classes", "0xd800, which is no character"),
        ({"classes": with_letter(0x110000)}, "classes", "0x110000, which is no character"),
        ({"classes": with_letter(0x0A)}, "classes", "at position 0 that holds the control"),
        ({"compression": zipfile.ZIP_LZMA}, "features", "only stored, deflated and bzip2"),
        ({"suffix": ""}, "features", "is missing"),
    ],
)
def test_members_that_are_no_arrays_are_named(tmp_path, members, array, why):
    with pytest.raises(tipserve.InvalidArgument, match=why) as caught:
        load(archived(tmp_path / "x.npz", **members))
    assert caught.value.metadata["array"] == array


def test_an_encrypted_member_is_named(tmp_path):
    path = archived(tmp_path / "x.npz")
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(signature)
        data[at + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(tipserve.InvalidArgument, match="features cannot be read: it is encrypted"):
        load(path)


def test_an_archive_may_begin_with_a_program(tmp_path):
    path = archived(tmp_path / "x.npz")
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert read(path)[0] == ["cat", "dog", "owl"]
