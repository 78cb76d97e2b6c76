"""Tables and data sets whose labels, ids or columns are not as they should be: nothing is turned
into something else in silence."""

from __future__ import annotations

import enum
import io
import json

import pytest

import tipserve
from tipserve.labelled import load

PICTURES = ["a.jpg", "b.jpg", "c.jpg"]


def found(source, **options):
    loaded = load(source, **options)
    names = [one.display_name for one in loaded.classes]
    return names, [(one.id, one.class_) for one in loaded.examples]


def table(label=("x", "y", "x"), **more):
    return {"image": PICTURES, "label": list(label), **more}


def pandas_frame(*args, **options):
    return pytest.importorskip("pandas").DataFrame(*args, **options)


EXPECTED = (["x", "y"], [("a.jpg", 0), ("b.jpg", 1), ("c.jpg", 0)])


def of_categories(values):
    return pytest.importorskip("pandas").Categorical(values)


def nullable(values, dtype):
    return pytest.importorskip("pandas").array(values, dtype=dtype)


class Species(str, enum.Enum):
    X = "x"
    Y = "y"


@pytest.mark.parametrize(
    "make",
    [
        lambda: pandas_frame(table()),
        lambda: pandas_frame(table([" x", "y\n", "x "])),
        lambda: pandas_frame(table(of_categories(["x", "y", "x"]))),
        lambda: table([Species.X, Species.Y, Species.X]),
        lambda: list(pandas_frame(table()).itertuples(index=False)),
        lambda: pandas_frame(table()).to_dict("records"),
        lambda: type("Sub", (pytest.importorskip("pandas").DataFrame,), {})(table()),
        lambda: pytest.importorskip("polars").DataFrame(table()),
        lambda: pytest.importorskip("pyarrow").table(table()),
        lambda: pytest.importorskip("pyarrow").record_batch(table()),
    ],
)
def test_names_are_the_same_however_a_table_has_them(make):
    assert found(make()) == EXPECTED


def test_a_list_of_labels_may_stand_in_a_cell():
    numpy, several = pytest.importorskip("numpy"), [["x", "y"], [], ["y"]]
    arrays = [numpy.array(labels, dtype=object) for labels in several]
    for frame in (pandas_frame(table(several)), pandas_frame(table(arrays))):
        names, examples = found(frame)
        assert (names, [of for _, of in examples]) == (["x", "y"], [(0, 1), (), (1,)])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: table(["x", float("nan"), "x"]), "example 1 has no class"),
        (lambda: table(nullable(["x", None, "x"], "string")), "example 1 has no class"),
        (lambda: table(nullable([1, None, 0], "Int64")), "example 1 has no class"),
        (lambda: table(["x", "  ", "x"]), "example 1 has no class"),
        (lambda: table([1.0, 0.0, 1.0]), r"has the class 1\.0, neither"),
        (lambda: table([True, False, True]), "has the class True, neither"),
        (lambda: table([b"x", b"y", b"x"]), "has the class b'x', neither"),
        (lambda: table(id=[1.0, float("nan"), 3.0]), r"its id is 1\.0, neither"),
        (lambda: table(id=[True, False, True]), "its id is True, neither"),
    ],
)
def test_what_is_no_label_and_no_id_is_refused(make, says):
    given = make()
    for source in (given, pandas_frame(given)):
        with pytest.raises(ValueError, match=says):
            found(source, classes=["x", "y"])


def test_an_id_that_is_missing_is_none():
    for missing in (nullable([7, None, 9], "Int64"), ["7", None, "9"]):
        assert [id for id, _ in found(pandas_frame(table(id=missing)))[1]] == ["7", "b.jpg", "9"]


@pytest.mark.parametrize("twice", ["image", "label", "id"])
def test_two_columns_of_one_name_are_not_chosen_from(twice):
    names = ["image", "label", "id", twice.title()]
    frame = pandas_frame([[*"abcd"], [*"efgh"]], columns=names)
    with pytest.raises(tipserve.InvalidArgument, match="several are called") as caught:
        load(frame)
    assert caught.value.reason == "COLUMNS_UNCLEAR"
    # In a frame of two rows the names of the columns would pass for its values.
    frame = pandas_frame([["a", "x", 1, "x"], ["b", "y", 2, "y"]], columns=["image", "label", 0, 0])
    assert found(frame) == (["x", "y"], [("a", 0), ("b", 1)])


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: {"image": "a.j", "label": "cat"}, TypeError, "column 'image' is a str"),
        (lambda: pandas_frame(table()).to_dict(), TypeError, "column 'image' is a dict"),
        (lambda: {"image": ["a", "b"], "label": ["x"]}, ValueError, "'image' 2, 'label' 1"),
        (lambda: [{"image": "a", "label": "x"}, {"image": "b"}], ValueError, "example 1 lacks"),
        (lambda: pandas_frame(table()).iterrows(), ValueError, "example 0 has the class image"),
        (lambda: [("a", [0, 1, 0])], ValueError, "not a number for each class"),
    ],
)
def test_what_is_no_table_is_not_gone_through(make, error, says):
    with pytest.raises(error, match=says):
        found(make(), classes=["x", "y"])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.csv", "path,label,Label\na,b,c\n", "several are called"),
        ("x.jsonl", '{"path": "a", "label": "b", "note": ' + "[" * 90_000, "recursion"),
        ("x.json", '{"images": ' + "[" * 90_000, "recursion"),
        ("x.json", '{"images": null, "annotations": [], "categories": []}', "not lists of objects"),
    ],
)
def test_files_are_refused_by_name(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(tipserve.InvalidArgument, match=says) as caught:
        load(tmp_path / name)
    assert name in caught.value.message


def test_a_field_may_hold_a_large_picture(tmp_path):
    address = "data:image/png;base64," + "iVBO" * 100_000
    (tmp_path / "x.csv").write_text(f'path,label\n"{address}",b\n')
    (example,) = load(tmp_path / "x.csv").examples
    assert example.picture == address


def test_a_parquet_file_that_breaks_off_within_is_refused_by_name(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [bytes([n]) * 1000 for n in range(3)]
    path = tmp_path / "x.parquet"
    parquet.write_table(
        pyarrow.table(table(image=pictures)), path, compression="gzip", use_dictionary=False
    )
    data = bytearray(path.read_bytes())
    data[8:60] = bytes(52)
    path.write_bytes(data)
    with pytest.raises(tipserve.InvalidArgument, match=r"cannot read .*x\.parquet"):
        list(load(path).examples)


# Data sets


@pytest.fixture
def data_set():
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGB", (4, 4)).save(file, "PNG")
    pictures = [{"bytes": file.getvalue(), "path": None}] * 3

    def make(labels, kind=None):
        kind = kind or datasets.ClassLabel(names=["x", "y"])
        features = datasets.Features({"image": datasets.Image(), "label": kind})
        return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)

    return make


def test_a_data_sets_format_does_not_matter(data_set):
    labels = [("0", 0), ("1", 1), ("2", 0)]
    for kind in ("numpy", "pandas", "arrow", None):
        assert found(data_set([0, 1, 0]).with_format(kind)) == (["x", "y"], labels)

    def turned(rows):
        return {"image": [one.rotate(90) for one in rows["image"]], "label": rows["label"]}

    assert found(data_set([0, 1, 0]).with_transform(turned)) == (["x", "y"], labels)


def test_lists_of_labels_have_names_too(data_set, tmp_path):
    datasets = pytest.importorskip("datasets")
    several = data_set([[0, 1], [], [1]], datasets.Sequence(datasets.ClassLabel(names=["x", "y"])))
    several.to_parquet(tmp_path / "x.parquet")
    for source in (several, tmp_path / "x.parquet"):
        names, examples = found(source)
        assert (names, [of for _, of in examples]) == (["x", "y"], [(0, 1), (), (1,)])


@pytest.mark.parametrize("labels", [[0, -1, 0], [0, None, 0]])
def test_a_row_without_a_label_is_refused(data_set, labels):
    with pytest.raises(ValueError, match=r"class index -1|example 1 has no class"):
        found(data_set(labels))


def test_data_sets_of_torch(files_of_torch):
    joined, torch = files_of_torch
    assert found(joined(["x", "y"], ["x", "y"]))[0] == ["x", "y"]
    with pytest.raises(tipserve.InvalidArgument, match="different classes") as caught:
        load(joined(["x", "y"], ["y", "x"]), classes=["x", "y"])
    assert caught.value.reason == "CLASSES_DIFFER"
    with pytest.raises(TypeError, match="no names: 3"):
        load(joined([3, 7], [3, 7]))
    for label in (torch.tensor(True), torch.tensor(1.0), torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="neither a name nor an index"):
            found([("a", label)], classes=["x", "y"])
    assert found([("a", torch.tensor(1))], classes=["x", "y"]) == (["x", "y"], [("a", 1)])


@pytest.fixture
def files_of_torch():
    torch = pytest.importorskip("torch")
    data = pytest.importorskip("torch.utils.data")

    class Some(data.Dataset):
        def __init__(self, classes):
            self.classes = classes

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return f"{index}.jpg", index

    return lambda *lists: data.ConcatDataset([Some(classes) for classes in lists]), torch


def test_rows_of_json_are_trimmed(tmp_path):
    rows = [{"path": "a", "label": " b "}, {"path": "c", "label": "b"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found(tmp_path / "x.jsonl") == (["b"], [("a", 0), ("c", 0)])
