"""Caches and their versions: additions, conditions, files, lists."""

from __future__ import annotations

import os
import random
import tracemalloc

import fake_server as fs
import grpc
import pytest

import tipserve
from tipserve import Example
from tipserve._proto import cache_pb2

MIB = 1024 * 1024


def version_of(name, *classes, version=3):
    infos = [cache_pb2.ClassInfo(index=i, display_name=n) for i, n in enumerate(classes)]
    return cache_pb2.Version(name=name, version=version, classes=infos)


@pytest.fixture
def base(fake):
    """A base version, "caches/pets/versions/3" of the classes "Cat" and "a dog"."""
    made = version_of("caches/pets/versions/3", "Cat", "a dog")
    fake.unary["GetVersion"] = lambda request, context: made
    return made


@pytest.fixture
def seen(fake):
    """What AddExamples was sent, each time."""
    calls = []

    def add(requests, context):
        calls.append(list(requests))
        yield cache_pb2.AddExamplesResponse(progress={"stage": 2, "received": 1})
        yield cache_pb2.AddExamplesResponse(
            rejected={"example_id": "x", "code": 3, "message": "no", "reason": "BAD"}
        )
        made = cache_pb2.Version(
            name="caches/pets/versions/4",
            version=4,
            parent="caches/pets/versions/3",
            created_by="ada",
            bundle_name="demo",
            source={"received": 2, "rejected": 1, "inherited": 7, "removed": 2},
        )
        yield cache_pb2.AddExamplesResponse(version=made)

    fake.add = add
    return calls


def added(messages):
    return {
        e.example_id: (e.class_index, e.validation)
        for m in messages[1:]
        for e in m.examples.examples
    }


def new_classes(messages):
    return [one.display_name for one in messages[0].spec.new_classes]


def test_a_folders_known_classes_get_its_examples_and_others_are_new(call, base, seen, tmp_path):
    for name in ("a_dog", "zebra", "ant"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(name.encode())
    progress = []
    made = call(
        "add_examples",
        "pets@stable",
        tmp_path,
        remove=["cat/1.jpg", "cat/2.jpg"],
        relabel={"cat/3.jpg": "zebra", "cat/4.jpg": 1},
        created_by="ada",
        labels={"a": "b"},
        etag="e7",
        validation=tmp_path,
        on_progress=progress.append,
    )
    spec = seen[0][0].spec
    # By its number, whatever the name was.
    assert spec.base == "caches/pets/versions/3"
    assert new_classes(seen[0]) == ["ant", "zebra"]
    assert list(spec.remove_example_ids) == ["cat/1.jpg", "cat/2.jpg"]
    relabelled = [(r.example_id, r.class_name, r.class_index) for r in spec.relabel]
    assert relabelled == [("cat/3.jpg", "zebra", 0), ("cat/4.jpg", "", 1)]
    assert (spec.created_by, dict(spec.labels), spec.etag) == ("ada", {"a": "b"}, "e7")
    assert (spec.method, spec.seed, spec.HasField("alpha")) == (0, 1, False)
    assert added(seen[0]) == {
        "a_dog/0.jpg": (1, False),
        "ant/0.jpg": (2, False),
        "zebra/0.jpg": (3, False),
        "validation/a_dog/0.jpg": (1, True),
        "validation/ant/0.jpg": (2, True),
        "validation/zebra/0.jpg": (3, True),
    }
    assert (made.version, made.parent) == (4, "caches/pets/versions/3")
    assert (made.created_by, made.bundle_name) == ("ada", "demo")
    assert made.source == tipserve.SourceCounts(2, 1, 7, 2)
    assert [r.id for r in made.rejected] == ["x"]
    assert progress[0].stage == "examples"


def test_examples_are_added_by_name_or_index(call, base, seen):
    examples = [Example("Cat", b"0"), Example("new", b"1", id="mine"), Example(1, b"2")]
    call("add_examples", "pets", examples)
    assert new_classes(seen[0]) == ["new"]
    # Positions begin at 0 in every call: the base's number tells them apart.
    assert added(seen[0]) == {"3+0": (0, False), "mine": (2, False), "3+2": (1, False)}
    call("add_examples", "pets", validation=examples[:1])
    assert added(seen.pop()) == {"validation/3+0": (0, True)}
    call("add_examples", "pets", iter(examples), new_classes=["newer", "new"], id_prefix="p/")
    assert new_classes(seen[1]) == ["newer", "new"]
    assert added(seen[1]) == {"p/3+0": (0, False), "p/mine": (3, False), "p/3+2": (1, False)}
    with pytest.raises(ValueError, match="'new'"):
        call("add_examples", "pets", examples, new_classes=())
    with pytest.raises(TypeError, match="remove"):
        call("add_examples", "pets", remove="one-id")
    call("add_examples", "pets", remove=["a"])
    # To grpc's Python server a cancelled call can look like one that ended.
    [removal] = [sent for sent in seen if sent and sent[0].spec.remove_example_ids]
    assert len(removal) == 1
    assert removal[0].spec.remove_example_ids == ["a"]


def test_rows_of_two_files_keep_apart(call, base, seen, tmp_path):
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "more.npz"
    numpy.savez(
        path, features=numpy.eye(3, 4), labels=[0, 1, 1], classes=["Cat", "owl"],
        text_weights=numpy.eye(2, 4),
    )  # fmt: skip
    call("add_examples", "pets", path)
    assert added(seen[0]) == {"more/0": (0, False), "more/1": (2, False), "more/2": (2, False)}
    assert [list(c.text_weight.values) for c in seen[0][0].spec.new_classes] == [[0, 1, 0, 0]]


def test_adding_is_repeated_under_the_same_request_id(fake, call, base, seen):
    good, calls = fake.add, []

    def add(requests, context):
        calls.append(None)
        if len(calls) == 1:
            next(requests)
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield from good(requests, context)

    fake.add = add
    examples = [Example("Cat", b"x" * 60_000) for _ in range(200)]
    assert call("add_examples", "pets", examples).version == 4
    assert len(calls) == 2
    assert seen[-1][0].spec.request_id


@pytest.mark.parametrize(
    "name, method, arguments",
    [
        ("SetAlias", "set_alias", ("pets", "stable", 1)),
        ("DeleteAlias", "delete_alias", ("pets", "stable")),
        ("DeleteCache", "delete_cache", ("pets",)),
        ("DeleteVersion", "delete_version", ("pets@1",)),
        ("PruneVersions", "prune", ("pets", 3)),
    ],
)
def test_a_change_on_a_condition(fake, call, name, method, arguments):
    def refuse(request, context):
        if request.etag == "old":
            fs.abort(context, fs.status(10, "it is e2 by now", reason="ETAG_MISMATCH"))
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    fake.unary[name] = refuse
    with pytest.raises(tipserve.Conflict, match="e2") as caught:
        call(method, *arguments, etag="old")
    assert isinstance(caught.value, tipserve.Aborted)
    assert caught.value.code is tipserve.Code.ABORTED
    with pytest.raises(tipserve.Unavailable):
        call(method, *arguments)
    # Once each: nothing that changes is repeated.
    assert [called for called, _ in fake.calls] == [name, name]


def test_another_abortion_is_no_conflict(fake, call):
    fake.unary["SetAlias"] = lambda request, context: fs.abort(context, fs.status(10, "race"))
    with pytest.raises(tipserve.Aborted) as caught:
        call("set_alias", "pets", "stable", 1)
    assert not isinstance(caught.value, tipserve.Conflict)


def test_pruning(fake, call):
    answer = cache_pb2.PruneVersionsResponse(deleted_versions=[4, 1])
    fake.unary["PruneVersions"] = lambda request, context: answer
    assert call("prune", "pets", 2, dry_run=True) == (4, 1)
    request = fake.calls[-1][1]
    assert (request.name, request.keep, request.validate_only) == ("pets", 2, True)


def test_rolling_back_goes_to_the_version_before(fake, call):
    cache = cache_pb2.Cache(name="caches/pets", aliases={"stable": 7, "first": 2}, etag="e5")
    fake.unary["GetCache"] = lambda request, context: cache

    def page(request, context):
        numbers, token = {"": ((9, 7), "n"), "n": ((4, 2), "")}[request.page_token]
        versions = [cache_pb2.Version(version=number) for number in numbers]
        return cache_pb2.ListVersionsResponse(versions=versions, next_page_token=token)

    fake.unary["ListVersions"] = page
    call("rollback", "pets", "stable")
    request = fake.calls[-1][1]
    assert (request.alias, request.version, request.etag) == ("stable", 4, "e5")
    call("rollback", "pets", "stable", etag="e4")
    assert fake.calls[-1][1].etag == "e4"
    with pytest.raises(tipserve.FailedPrecondition, match="none before"):
        call("rollback", "pets", "first")
    with pytest.raises(tipserve.NotFound, match="'nope'"):
        call("rollback", "pets", "nope")


def test_lists_are_filtered_by_the_server(fake, call):
    def page(request, context):
        start = int(request.page_token or 0)
        infos = [
            cache_pb2.ExampleInfo(
                example_id=str(i), class_index=1, display_name="a dog", validation=i > 2
            )
            for i in range(start, start + 2)
        ]
        token = str(start + 2) if start < 2 else ""
        return cache_pb2.ListExamplesResponse(examples=infos, next_page_token=token)

    fake.unary["ListExamples"] = page
    examples = call("examples", "pets@stable", filter="class_index = 1")
    assert examples == [tipserve.ExampleInfo(str(i), 1, "a dog", i > 2) for i in range(4)]
    requests = [r for n, r in fake.calls if n == "ListExamples"]
    assert [r.filter for r in requests] == ["class_index = 1"] * 2
    assert [r.parent for r in requests] == ["pets@stable"] * 2
    call("caches", filter='cache_id = "tex*"')
    assert fake.calls[-1][1].filter == 'cache_id = "tex*"'


# Files


def exporting(content, lacks=0):
    def export(request, context):
        version = version_of("caches/pets/versions/3", "Cat")
        header = cache_pb2.ExportHeader(version=version, size_bytes=len(content))
        yield cache_pb2.ExportVersionResponse(header=header)
        for start in range(0, len(content) - lacks, MIB):
            chunk = content[start : min(start + MIB, len(content) - lacks)]
            yield cache_pb2.ExportVersionResponse(chunk=chunk)

    return export


def test_a_version_goes_into_a_file_and_out_of_it(fake, call, tmp_path):
    content = random.randbytes(3 * MIB + 17)
    fake.export = exporting(content)
    path = tmp_path / "pets.safetensors"
    assert call("export", "pets@3", path).name == "caches/pets/versions/3"
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["pets.safetensors"]
    usual = tmp_path / "usual"
    usual.touch()
    assert path.stat().st_mode == usual.stat().st_mode
    with pytest.raises(FileExistsError, match="overwrite"):
        call("export", "pets@3", path)
    fake.export = exporting(b"other")
    call("export", "pets@3", str(path), overwrite=True)
    assert path.read_bytes() == b"other"
    with open(tmp_path / "open", "wb") as file:
        call("export", "pets@3", file)
    assert (tmp_path / "open").read_bytes() == b"other"

    path.write_bytes(content)
    got = []

    def imported(requests, context):
        messages = list(requests)
        got.append(messages)
        return version_of("caches/two/versions/1", "Cat", version=1)

    fake.imported = imported
    made = call("import_version", path, "two", allow_other_bundle=True, etag="new")
    assert made.name == "caches/two/versions/1"
    spec = got[0][0].spec
    assert (spec.cache_id, spec.size_bytes) == ("two", len(content))
    assert (spec.allow_other_bundle, spec.etag) == (True, "new")
    assert b"".join(m.chunk for m in got[0][1:]) == content
    limit = fake.limits["max_message_bytes"]
    assert max(m.ByteSize() for m in got[0]) <= limit
    with pytest.raises(FileNotFoundError):
        call("import_version", tmp_path / "nothing", "two")


def test_a_file_that_is_cut_off_is_none(fake, call, tmp_path):
    fake.export = exporting(random.randbytes(2 * MIB), lacks=1)
    with pytest.raises(tipserve.TipserveError, match="promised 2097152 bytes and sent 2097151"):
        call("export", "pets", tmp_path / "x")
    fake.export = lambda request, context: fs.abort(context, fs.status(15, "damaged"))
    with pytest.raises(tipserve.DataLoss):
        call("export", "pets", tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_a_broken_export_is_begun_again(fake, call, tmp_path):
    content = random.randbytes(2 * MIB)
    whole, calls = exporting(content), []

    def export(request, context):
        calls.append(None)
        for i, message in enumerate(whole(request, context)):
            if len(calls) == 1 and i == 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            yield message

    fake.export = export
    call("export", "pets", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content
    assert len(calls) == 2


def test_a_refused_import_says_why(fake, call, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(20 * MIB))

    def imported(requests, context):
        next(requests)
        fs.abort(context, fs.status(9, "another bundle", reason="BUNDLE_MISMATCH"))

    fake.imported = imported
    with pytest.raises(tipserve.FailedPrecondition) as caught:
        call("import_version", path, "two")
    assert caught.value.reason == "BUNDLE_MISMATCH"


def test_transfers_hold_only_a_few_messages(fake, call, tmp_path):
    """Python's own allocations: grpc's are bounded by its flow control."""
    fake.limits["max_message_bytes"] = 4 * MIB
    size = 64 * MIB
    chunk = bytes(MIB)

    def export(request, context):
        header = cache_pb2.ExportHeader(version=version_of("caches/a/versions/1"), size_bytes=size)
        yield cache_pb2.ExportVersionResponse(header=header)
        for _ in range(size // MIB):
            yield cache_pb2.ExportVersionResponse(chunk=chunk)

    def imported(requests, context):
        next(requests)
        assert sum(len(m.chunk) for m in requests) == size
        return version_of("caches/two/versions/1")

    fake.export, fake.imported = export, imported
    tracemalloc.start()
    try:
        call("export", "a", tmp_path / "x")
        call("import_version", tmp_path / "x", "two")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 2, peak
