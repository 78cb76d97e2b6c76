"""What the client does with caches and versions, against the real server."""

from __future__ import annotations

import json

import pytest
from conftest import WIDTH
from test_real_server import CLASSES, Data, data  # noqa: F401

import tipserve
from tipserve import Example

numpy = pytest.importorskip("numpy")


@pytest.fixture
def pets(real_call, data: Data):  # noqa: F811
    """A cache "c" of 20 examples in four classes."""
    return real_call("create_cache", "c", data.examples(20), created_by="ada", labels={"team": "a"})


def test_examples_and_classes_are_added_and_removed(real_call, data, pets, tmp_path):  # noqa: F811
    point = data.points(4)[0][0]
    eel = data.chance.normal(size=WIDTH).astype(numpy.float32)
    made = real_call(
        "add_examples",
        "c",
        [Example("bee", point, id="mine"), Example("eel", eel), Example("eel", -point)],
        remove=["0", "7"],
        validation=[Example("eel", eel)],
        created_by="bob",
    )
    assert (made.version, made.parent) == (2, "caches/c/versions/1")
    assert made.class_names == (*CLASSES, "eel")
    assert made.key_count == 20 - 2 + 3
    assert made.source == tipserve.SourceCounts(received=4, rejected=0, inherited=18, removed=2)
    # Labels are the base's; who made it is not.
    assert (dict(made.labels), made.created_by) == ({"team": "a"}, "bob")
    assert made.bundle_name
    examples = real_call("examples", "c", page_size=7)
    ids = [one.id for one in examples]
    assert ids == [*(str(i) for i in range(20) if i not in (0, 7)), "mine", "1+1", "1+2",
                   "validation/1+0"]  # fmt: skip
    assert [one.validation for one in examples] == [False] * 21 + [True]
    eels = real_call("examples", "c@2", filter='display_name = "eel" AND validation = false')
    assert eels == [tipserve.ExampleInfo(id, 4, "eel", False) for id in ("1+1", "1+2")]
    assert real_call("classify_one", "c", eel).best.display_name == "eel"
    # Again from the same base, and on: ids that are there are refused, one by one.
    again = real_call("add_examples", "c@2", [Example("eel", eel, id="mine")])
    assert [r.id for r in again.rejected] == ["mine"]
    with pytest.raises(tipserve.TipserveError, match="nowhere"):
        real_call("add_examples", "c", remove=["nowhere"])
    with pytest.raises(ValueError, match="'fox'"):
        real_call("add_examples", "c", [Example("fox", eel)], new_classes=())


def test_rows_of_a_file_are_added_twice_under_two_names(real_call, data, pets, tmp_path):  # noqa: F811
    points, labels = data.points(12)
    for name in ("more", "even-more"):
        numpy.savez(tmp_path / f"{name}.npz", features=points, labels=labels, classes=CLASSES)
        made = real_call("add_examples", "c", tmp_path / f"{name}.npz")
        assert made.rejected == ()
    assert made.key_count == 20 + 2 * 12
    assert [one.id for one in real_call("examples", "c")][20::12] == ["more/0", "even-more/0"]


def test_two_people_who_change_the_same_cache(real_call, data, pets):  # noqa: F811
    seen = real_call("cache", "c").etag
    assert seen
    real_call("set_alias", "c", "stable", 1, etag=seen)
    examples = data.examples(8)
    for method, *arguments in (
        ("set_alias", "c", "stable", 1),
        ("delete_alias", "c", "stable"),
        ("delete_cache", "c"),
        ("prune", "c", 1),
        ("create_cache", "c", examples),
        ("add_examples", "c", examples),
        ("rollback", "c", "stable"),
    ):
        if method == "rollback":
            real_call("create_cache", "c", examples)
            real_call("set_alias", "c", "stable", 2)
        with pytest.raises(tipserve.Conflict) as caught:
            real_call(method, *arguments, etag=seen)
        assert caught.value.reason == "ETAG_MISMATCH"
    with pytest.raises(tipserve.Conflict):
        real_call("create_cache", "c", examples, etag="new")
    assert real_call("create_cache", "d", examples, etag="new").version == 1


def test_versions_go_and_come_back(real_call, data, pets):  # noqa: F811
    for _ in range(4):
        real_call("create_cache", "c", data.examples(8))
    real_call("set_alias", "c", "stable", 4)
    assert real_call("rollback", "c", "stable").aliases == {"stable": 3}
    real_call("delete_version", "c@2")
    assert real_call("rollback", "c", "stable").aliases == {"stable": 1}
    with pytest.raises(tipserve.FailedPrecondition):
        real_call("rollback", "c", "stable")
    with pytest.raises(tipserve.FailedPrecondition):
        real_call("delete_version", "c@1")
    assert real_call("prune", "c", 1, dry_run=True) == (4, 3)
    assert [v.version for v in real_call("versions", "c")] == [5, 4, 3, 1]
    assert real_call("prune", "c", 1) == (4, 3)
    assert [v.version for v in real_call("versions", "c")] == [5, 1]
    assert real_call("create_cache", "c", data.examples(8)).version == 6


def test_lists_are_filtered(real_call, data, pets):  # noqa: F811
    real_call("create_cache", "texture-1", data.examples(8), labels={"team": "b"})

    def ids(filter):
        return [one.id for one in real_call("caches", filter=filter, page_size=1)]

    assert ids('labels.team = "a"') == ["c"]
    assert ids('cache_id = "tex*" AND class_count > 2') == ["texture-1"]
    assert ids("key_count >= 8") == ["c", "texture-1"]
    assert ids('created_by = "ada"') == ["c"]
    with pytest.raises(tipserve.InvalidArgument):
        ids("nonsense >")


def test_an_exported_file_serves_the_same_answers(real_call, data, pets, tmp_path):  # noqa: F811
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "c.safetensors"
    assert real_call("export", "c@1", path).name == "caches/c/versions/1"
    made = real_call("import_version", path, "copy", etag="new")
    assert (made.name, made.key_count) == ("caches/copy/versions/1", 20)
    points = data.points(16)[0]
    first, second = (
        numpy.stack([one.logits for one in real_call("classify", name, points, logits=True)])
        for name in ("c", "copy")
    )
    # Sums depend on how many items a batch has.
    numpy.testing.assert_allclose(first, second, atol=1e-4)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert any(file.get_tensor(name).shape == (20, WIDTH) for name in file.keys())  # noqa: SIM118
        assert any(
            value.startswith("{") and json.loads(value) for value in file.metadata().values()
        )
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(tipserve.TipserveError) as caught:
        real_call("import_version", path, "damaged")
    assert caught.value.reason
    assert [one.id for one in real_call("caches")] == ["c", "copy"]
