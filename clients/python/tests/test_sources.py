"""Labelled pictures in everything that people have them in."""

from __future__ import annotations

import functools
import io
import json
import os
import pathlib
import threading
import unicodedata

import pytest
from test_create import sent_examples, versioned

import tipserve
from tipserve import Example
from tipserve.labelled import load

LABELS = ["cat", "dog", "cat", "owl"]


@pytest.fixture
def files(tmp_path):
    """Four files that could be pictures, in a folder of their own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.jpg").write_bytes(f"picture {i}".encode())
    return [str(folder / f"{i}.jpg") for i in range(4)]


@pytest.fixture
def created(fake, call):
    """What a create_cache of a source sends: classes, and (class, bytes) of every example."""

    def create(source, **options):
        seen = []
        fake.create = versioned(seen)
        call("create_cache", "pets", source, **options)
        names = [one.display_name for one in seen[0][0].spec.classes]
        sent = sent_examples(seen[0])
        assert len({one.example_id for one in sent}) == len(sent)
        return names, [(names[one.class_index], one.input.encoded_image) for one in sent]

    return create


EXPECTED = [(label, f"picture {i}".encode()) for i, label in enumerate(LABELS)]
NAMES = ["cat", "dog", "owl"]


def test_pairs_and_dicts(created, files):
    for source in (
        list(zip(files, LABELS, strict=True)),
        zip(files, LABELS, strict=True),
        [{"image": path, "label": label} for path, label in zip(files, LABELS, strict=True)],
        {"image": files, "label": LABELS},
        [Example(label, path) for path, label in zip(files, LABELS, strict=True)],
    ):
        assert created(source) == (NAMES, EXPECTED)
    assert created([(files[0], 1)], classes=["a", "b"]) == (["a", "b"], [("b", b"picture 0")])


def test_a_dict_of_classes(created, files, tmp_path):
    folder = os.path.dirname(files[0])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(b"more")
    given = {"dog": files[3:], "cat": str(tmp_path / "more"), "any": f"{folder}/[01].jpg"}
    names, sent = created(given)
    assert names == ["dog", "cat", "any"]
    assert sent == [
        ("dog", b"picture 3"),
        ("cat", b"more"),
        ("any", b"picture 0"),
        ("any", b"picture 1"),
    ]


def test_data_frames(created, files):
    pandas = pytest.importorskip("pandas")
    table = {"path": files, "label": LABELS, "id": list("abcd")}
    assert created(pandas.DataFrame(table)) == (NAMES, EXPECTED)
    codes = pandas.DataFrame({"path": files, "label": [0, 1, 0, 2]})
    assert created(codes, classes=NAMES) == (NAMES, EXPECTED)
    with pytest.raises(ValueError, match="example 1 has no class"):
        created(pandas.DataFrame({"path": files[:2], "label": ["cat", None]}))
    with pytest.raises(ValueError, match=r"example 0 has the class 0\.5"):
        created(pandas.DataFrame({"path": files[:2], "label": [0.5, 1]}), classes=NAMES)


def test_polars_frames(created, files):
    polars = pytest.importorskip("polars")
    assert created(polars.DataFrame({"path": files, "label": LABELS})) == (NAMES, EXPECTED)


@pytest.mark.parametrize("columns", [["x", "label"], ["path"], ["path", "label", "category"]])
def test_columns_that_would_be_guessed_are_refused(created, columns, files):
    with pytest.raises(tipserve.InvalidArgument, match=", ".join(columns)) as caught:
        created([dict.fromkeys(columns, "x")])
    assert caught.value.reason == "COLUMNS_UNCLEAR"


def test_tables_in_files(created, files):
    folder = os.path.dirname(files[0])
    rows = [(os.path.basename(path), label) for path, label in zip(files, LABELS, strict=True)]
    for name, delimiter, mark in (
        ("a.csv", ",", ""),
        ("b.TSV", "\t", ""),
        ("c.csv", ",", "\ufeff"),
    ):
        path = os.path.join(folder, name)
        lines = [delimiter.join(row) for row in [("file_name", "label"), *rows]]
        with open(path, "w", encoding="utf-8") as file:
            file.write(mark + "\n".join(lines))
        assert created(path) == (NAMES, EXPECTED)
    path = os.path.join(folder, "metadata.jsonl")
    with open(path, "w") as file:
        file.writelines(json.dumps({"file_name": a, "label": b}) + "\n" for a, b in rows)
    assert created(path) == (NAMES, EXPECTED)
    with open(path, "a") as file:
        file.write("{\n")
    with pytest.raises(tipserve.InvalidArgument, match=r"metadata\.jsonl: line 5"):
        created(path)
    with open(os.path.join(folder, "a.csv"), "a") as file:
        file.write("\n3.jpg")
    with pytest.raises(tipserve.InvalidArgument, match=r"a\.csv: line 6"):
        created(os.path.join(folder, "a.csv"))


def test_coco(created, files):
    path = os.path.join(os.path.dirname(files[0]), "annotations.json")
    content = {
        "images": [{"id": 10 + i, "file_name": f"{i}.jpg"} for i in range(4)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"image_id": 10, "category_id": 3},
            {"image_id": 10, "category_id": 3},
            {"image_id": 11, "category_id": 7},
            {"image_id": 12, "category_id": 7},
            {"image_id": 12, "category_id": 3},
        ],
    }
    with open(path, "w") as file:
        json.dump(content, file)
    assert created(path) == (["dog", "cat"], [("cat", b"picture 0"), ("dog", b"picture 1")])
    with pytest.raises(tipserve.InvalidArgument, match="2 categories") as caught:
        created(path, on_rejected="fail")
    assert caught.value.reason == "SEVERAL_CATEGORIES"
    content["annotations"][0]["category_id"] = 99
    with open(path, "w") as file:
        json.dump(content, file)
    with pytest.raises(tipserve.InvalidArgument, match="not there"):
        created(path)


def test_parquet(created, files, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [pathlib.Path(f).read_bytes() for f in files], "label": LABELS})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert created(tmp_path / "x.parquet") == (NAMES, EXPECTED)
    # As `datasets` has pictures by their paths, which begin at the file's folder.
    pictures = [{"bytes": None, "path": os.path.basename(f)} for f in files]
    beside = pathlib.Path(files[0]).parent / "x.parquet"
    parquet.write_table(pyarrow.table({"image": pictures, "label": LABELS}), beside)
    assert created(beside) == (NAMES, EXPECTED)
    table = pyarrow.table({"image": [None, b"IMG"], "label": ["a", "b"]})
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(tipserve.InvalidArgument, match="example 0 has no picture"):
        created(tmp_path / "x.parquet")


def test_hugging_face_data_sets(created, files, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["owl", "cat", "dog"])}
    )
    rows = {"image": files, "label": [1, 2, 1, 0]}
    data = datasets.Dataset.from_dict(rows, features=features)
    expected = (["owl", "cat", "dog"], EXPECTED)
    assert created(data) == expected
    assert created(data.to_iterable_dataset()) == expected
    data.to_parquet(str(tmp_path / "x.parquet"))
    assert created(tmp_path / "x.parquet") == expected
    with pytest.raises(tipserve.InvalidArgument, match=r"create_cache\(ID, data\['train'\]\)"):
        created(datasets.DatasetDict({"train": data, "test": data}))
    # Another order of classes, as of a version that is evaluated.
    assert created(data, classes=NAMES) == (NAMES, EXPECTED)


def test_torch_data_sets(created, files):
    class Data:
        classes = (("cat", "house cat"), "dog", "owl")

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return pathlib.Path(files[index]).read_bytes(), NAMES.index(LABELS[index])

    names, sent = created(Data())
    assert names == ["cat, house cat", "dog", "owl"]
    assert [data for _, data in sent] == [data for _, data in EXPECTED]


def test_torchvision(tmp_path, created):
    torchvision = pytest.importorskip("torchvision")
    Image = pytest.importorskip("PIL.Image")
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (3, 2)).save(tmp_path / name / "0.png")
    folder = torchvision.datasets.ImageFolder(str(tmp_path))
    names, sent = created(folder)
    assert (names, [name for name, _ in sent]) == (["ant", "bee"], ["ant", "bee"])


def test_patterns(created, files, tmp_path):
    for i, label in enumerate(LABELS):
        (tmp_path / label.upper()).mkdir(exist_ok=True)
        os.rename(files[i], tmp_path / label.upper() / f"{i}.jpg")
    names, sent = created(f"{tmp_path}/*/[0-2].jpg")
    assert names == ["CAT", "DOG"]
    assert [data for _, data in sent] == [b"picture 0", b"picture 2", b"picture 1"]
    with pytest.raises(FileNotFoundError, match=r"no file matches .*\.gif"):
        created(f"{tmp_path}/*/*.gif")


def test_addresses(created, call, files):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for i, label in enumerate(LABELS):
        memory.pipe(f"/shop/{label}/{i}.jpg", f"picture {i}".encode())
    memory.pipe("/shop/@eaDir/x.jpg", b"junk")
    memory.pipe("/shop/cat/Thumbs.db", b"junk")
    names, sent = created("memory://shop")
    assert (names, sorted(sent)) == (NAMES, sorted(EXPECTED))
    results = call("classify", "pets", "memory://shop/*/*.jpg")
    assert sorted(r.best.display_name for r in results) == [f"picture {i}" for i in range(4)]
    assert len(call("classify", "pets", "memory://shop/cat")) == 2
    one = call("classify_one", "pets", "memory://shop/owl/3.jpg")
    assert (one.best.display_name, one.id) == ("picture 3", "memory://shop/owl/3.jpg")
    memory.pipe("/big.jpg", bytes(200_000))
    for address, reason in (
        ("memory://big.jpg", "PICTURE_TOO_LARGE"),
        ("memory://nothing.jpg", "FILE_UNREADABLE"),
        ("nothing://x.jpg", "URL_UNREADABLE"),
    ):
        with pytest.raises(tipserve.InvalidArgument) as caught:
            call("classify_one", "pets", address)
        assert caught.value.reason == reason
    memory.rm("/shop", recursive=True)


def test_web_addresses(call, files, monkeypatch):
    pytest.importorskip("aiohttp")
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    import tipserve._files

    monkeypatch.setattr(tipserve._files, "_SILENT_SECONDS", 0.3)
    released = threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/silent"):
                released.wait(30)
            super().do_GET()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=os.path.dirname(files[0]))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        urls = [f"{base}/{name}" for name in ("0.jpg", "1.jpg", "none.jpg", "silent.jpg")]
        results = call("classify", "pets", urls)
        released.set()
        assert [r.best.display_name for r in results[:2]] == ["picture 0", "picture 1"]
        assert [r.id for r in results] == urls
        for result in results[2:]:
            assert result.error.reason == "FILE_UNREADABLE"
            assert result.id in result.error.message
        server.shutdown()


# Folders


def folder_of(root, *paths):
    for path in paths:
        file = os.path.join(os.fsencode(root), path if isinstance(path, bytes) else path.encode())
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as out:
            out.write(os.path.basename(file))


def test_what_systems_leave_behind_is_no_picture(created, call, tmp_path):
    folder_of(
        tmp_path,
        *("cat/0.jpg", "cat/Thumbs.db", "cat/desktop.ini", "cat/labels.txt", "cat/.DS_Store"),
        *("dog/1.jpg", "dog/@eaDir/1.jpg", "dog/meta.JSON", "__MACOSX/dog/._1.jpg", "@eaDir/x.jpg"),
    )
    assert created(tmp_path) == (["cat", "dog"], [("cat", b"0.jpg"), ("dog", b"1.jpg")])
    assert len(call("classify", "pets", str(tmp_path))) == 2


def test_names_that_are_not_utf8_are_escaped(fake, call, tmp_path):
    try:
        folder_of(tmp_path, b"caf\xe9/a\xff.jpg", b"caf\xe9/a\xfe.jpg", "café/0.jpg")
    except OSError:
        pytest.skip("this file system has no such names")
    seen = []
    fake.create = versioned(seen)
    call("create_cache", "pets", tmp_path)
    assert [one.display_name for one in seen[0][0].spec.classes] == ["café", "caf\\xe9"]
    assert sorted(one.example_id for one in sent_examples(seen[0])) == [
        "caf\\xe9/a\\xfe.jpg",
        "caf\\xe9/a\\xff.jpg",
        "café/0.jpg",
    ]
    results = call("classify", "pets", tmp_path)
    assert len(results) == 3
    for result in results:
        assert result.ok
        print(result.id)  # which a surrogate would not let
    [gone] = call("classify", "pets", [os.fsdecode(os.fsencode(tmp_path) + b"/\xff")])
    assert gone.error.reason == "FILE_UNREADABLE"
    assert "\\xff" in str(gone.error)


def test_names_are_the_same_however_they_are_composed(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    for ours, theirs in ((composed, apart), (apart, composed)):
        loaded = load([(b"x", ours)], [theirs])
        assert [one.class_ for one in loaded.examples] == [0]


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        (["train", "val", "test"], "create_cache(ID, '{0}/train', validation='{0}/val'); and"),
        (["Training", "Validation"], "create_cache(ID, '{0}/Training', validation="),
        (["train"], "create_cache(ID, '{0}/train')"),
        (["test"], "evaluate(ID, '{0}/test')"),
    ],
)
def test_a_folder_of_splits_is_refused_with_what_to_do(call, tmp_path, parts, advice):
    folder_of(tmp_path, *(f"{part}/{name}/0.jpg" for part in parts for name in ("cat", "dog")))
    with pytest.raises(tipserve.InvalidArgument) as caught:
        call("create_cache", "pets", tmp_path)
    assert caught.value.reason == "FOLDER_OF_SPLITS"
    assert advice.format(tmp_path) in caught.value.message


def test_classes_may_be_called_as_splits_are(created, tmp_path):
    folder_of(tmp_path, "train/0.jpg", "test/1.jpg")
    assert created(tmp_path)[0] == ["test", "train"]
    folder_of(tmp_path, "bus/0.jpg", "train/old/0.jpg", "test/old/0.jpg")
    assert created(tmp_path)[0] == ["bus", "test", "train"]


# One thing where many are meant


def test_one_picture_is_not_gone_through(call):
    numpy = pytest.importorskip("numpy")
    Image = pytest.importorskip("PIL.Image")
    for one in (
        numpy.zeros((8, 9, 3), numpy.uint8),
        numpy.zeros((3, 8, 9), numpy.float32),
        numpy.zeros((8, 9, 1), numpy.float32),
        numpy.zeros((8, 9, 4), numpy.uint8),
        numpy.zeros((8, 9, 2), numpy.uint8),
        numpy.zeros((8, 9, 4), numpy.float32),
        numpy.zeros((8, 9), numpy.uint8),
        numpy.zeros(5, numpy.float32),
        numpy.frombuffer(b"\x89PNG\r\n\x1a\n....", numpy.uint8),
        [0.5, 0.25],
        Image.new("RGB", (4, 4)),
        b"bytes",
        io.BytesIO(b"bytes"),
        tipserve.Item(b"bytes"),
        {"a": b"bytes"},
    ):
        with pytest.raises(TypeError, match=r"classify_one|values"):
            call("classify", "pets", one)
    many = numpy.zeros((2, 8, 9, 3), numpy.uint8)
    assert len(call("classify", "pets", many)) == 2
    assert len(call("classify", "pets", numpy.zeros((5, 4), numpy.float32))) == 5
    assert len(call("classify", "pets", numpy.zeros((6, 8, 9), numpy.uint8))) == 6
    for one in (numpy.zeros((8, 9, 3), numpy.uint8), numpy.zeros(5, numpy.float32), [0.5]):
        with pytest.raises(TypeError, match="one"):
            call("embed", one)
    with pytest.raises(TypeError, match="holds no examples"):
        call("create_cache", "pets", many)


def test_items_of_every_kind(call, files, tmp_path):
    datasets = pytest.importorskip("datasets")
    pandas = pytest.importorskip("pandas")
    expected = [data.decode() for _, data in EXPECTED]
    opened = [open(path, "rb") for path in files]  # noqa: SIM115
    buffers = [io.BytesIO(data) for _, data in EXPECTED]
    for buffer in buffers:
        buffer.seek(0, io.SEEK_END)
    for items in (
        os.path.dirname(files[0]),
        os.path.dirname(files[0]) + "/*.jpg",
        files,
        pandas.Series(files),
        pandas.DataFrame({"path": files}),
        opened,
        buffers,
        datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image()),
        [{"bytes": data, "path": None} for _, data in EXPECTED],
    ):
        results = call("classify", "pets", items)
        assert [result.best.display_name for result in results] == expected
    for file in opened:
        file.close()


def test_the_empty_path_is_not_the_folder_that_the_program_runs_in(fake):
    with tipserve.Client(fake.address) as client:
        with pytest.raises(FileNotFoundError, match="empty path"):
            client.create_cache("c", "")
        with pytest.raises(FileNotFoundError, match="empty path"):
            list(client.classify("c", ""))
