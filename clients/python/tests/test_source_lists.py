"""Lists of labelled pictures in a file: CSV, TSV and JSON lines."""

from __future__ import annotations

import pytest

import tipserve
from tipserve.labelled import load


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "path,label\n0.png,b\n1.png,a\n"),
        ("x.CSV", "\ufeffLabel, PATH\r\nb,0.png\r\n\r\n a ,1.png\r\n"),
        ("x.csv", 'file_name;class\n"0.png";b\n1.png;a\n'),
        ("x.tsv", "image\tcategory\tnote\n0.png\tb\tx, y\n1.png\ta\t\n"),
        ("x.ndjson", '{"path": "0.png", "label": "b"}\n\n{"label": "a", "path": "1.png"}'),
    ],
)
def test_lists_of_all_forms_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    found = load(tmp_path / name)
    assert [one.display_name for one in found.classes] == ["a", "b"]
    assert [(one.id, one.class_) for one in found.examples] == [("0.png", 1), ("1.png", 0)]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.csv", "path,label\n0.png\n", "line 2 has another number of columns"),
        ("x.csv", "path,label\n0.png,\n", "example 0 has no class"),
        ("x.csv", 'path,label\n"0.png,a\n', "unexpected end of data"),
        ("x.csv", b"path,label\n0.png,\xe9\n", "can't decode byte 0xe9"),
        ("x.jsonl", '{"path": "0.png", "label": null}', "example 0 has no class"),
        ("x.jsonl", '{"path": "0", "label": "a"}\n{"path": "1"}', "example 1 lacks 'label'"),
        ("x.jsonl", b'{"path": "\xff"}', "can't decode byte 0xff"),
        ("x.txt", "0.png a", "is a file: labelled pictures come from"),
    ],
)
def test_what_is_wrong_with_a_list_names_the_file(tmp_path, name, text, says):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(tipserve.InvalidArgument) as caught:
        load(tmp_path / name)
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_names_in_two_normal_forms_are_one_class(tmp_path):
    pairs = [("0.png", "cafe\u0301"), ("1.png", "caf\u00e9")]
    found = load(pairs)
    assert [one.display_name for one in found.classes] == ["caf\u00e9"]
    assert [one.class_ for one in found.examples] == [0, 0]


def test_a_list_of_labels_is_for_a_version_of_independent_ones(fake, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("file,labels\na.png,dog; cat\nb.png,\n")
    found = load(path)
    assert [one.display_name for one in found.classes] == ["cat", "dog"]
    assert [one.class_ for one in found.examples] == [(1, 0), ()]
    with tipserve.Client(fake.address) as client, pytest.raises(ValueError, match="multi_label"):
        client.create_cache("c", path)
