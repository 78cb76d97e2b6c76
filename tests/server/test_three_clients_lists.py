"""The command line, Python and Go read lists of pictures alike: what is a class, what is an
example, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import wire
from conftest import WIDTH
from pictures import photo, png
from test_three_clients import go, lines, server  # noqa: F401

tipserve = pytest.importorskip("tipserve")

ROWS = "{0}{2}{1}\n0.png{2}b\n1.png{2}a\n"


def objects(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def coco(**parts) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "1.png"}],
            "categories": [{"id": 5, "name": "a"}, {"id": 4, "name": "b"}],
            "annotations": [
                {"image_id": 1, "category_id": 4},
                {"image_id": 2, "category_id": 5},
            ],
            **parts,
        }
    )


LISTS = {
    "plain.csv": ROWS.format("path", "label", ","),
    "CAPITALS.CSV": ROWS.format("PATH", "Label", ","),
    "mark.csv": "\ufeff" + ROWS.format("image", "class", ","),
    "windows.csv": ROWS.format("file", "category", ",").replace("\n", "\r\n"),
    "semicolons.csv": ROWS.format("file_name", "label", ";"),
    "tabs.csv": ROWS.format("path", "label", "\t"),
    "tabs.tsv": ROWS.format("path", "label", "\t"),
    "blank.csv": "path,label\n\n0.png,b\n\n1.png,a\n\n",
    "spaces.csv": "path, label\n0.png, b\n1.png, a \n",
    "quotes.csv": 'path,label\n"0.png","b ""x"", y"\n1.png,a\n',
    "numbers.csv": "path,label\n0.png,1\n1.png,0\n",
    "ids.csv": "path,label,id\n0.png,b,first\n1.png,a,second\n",
    "composed.csv": "path,label\n0.png,cafe\u0301\n1.png,caf\u00e9\n",
    "twice.csv": "path,label\n0.png,b\n1.png,a\n0.png,b\n",
    "gone.csv": "path,label\n0.png,b\n9.png,a\n1.png,a\n",
    "no-header.csv": "0.png,b\n1.png,a\n",
    "two-labels.csv": "path,label,class\n0.png,b,x\n",
    "no-label.csv": "path,note\n0.png,b\n",
    "short.csv": "path,label\n0.png\n1.png,a\n",
    "long.csv": "path,label\n0.png,b,x\n1.png,a\n",
    "unlabelled.csv": "path,label\n0.png,\n1.png,a\n",
    "line-break.csv": 'path,label\n0.png,"b\nc"\n1.png,a\n',
    "latin.csv": "path,label\n0.png,\u00e9\n".encode("latin1"),
    "wide.csv": ROWS.format("path", "label", ",").encode("utf-16"),
    "empty.csv": "",
    "only-header.csv": "path,label\n",
    "plain.jsonl": objects({"path": "0.png", "label": "b"}, {"label": "a", "path": "1.png"}),
    "plain.ndjson": objects({"image": "0.png", "label": "b"}, {"image": "1.png", "label": "a"}),
    "number.jsonl": objects({"path": "0.png", "label": 1}, {"path": "1.png", "label": 0}),
    "nothing.jsonl": objects({"path": "0.png", "label": None}),
    "lacks.jsonl": objects({"path": "0.png", "label": "b"}, {"path": "1.png"}),
    "broken.jsonl": '{"path": "0.png", "label"\n',
    "array.jsonl": '[{"path": "0.png", "label": "b"}]',
    "plain.json": coco(),
    "several.json": coco(
        annotations=[
            {"image_id": 1, "category_id": 4},
            {"image_id": 1, "category_id": 4},
            {"image_id": 2, "category_id": 4},
            {"image_id": 2, "category_id": 5},
        ]
    ),
    "strange.json": coco(annotations=[{"image_id": 1, "category_id": 9}]),
    "other.json": '{"a": 1}',
    "elsewhere.json": coco(images=[{"id": 1, "file_name": "gone.png"}]),
    "list.txt": "0.png b\n",
    "list.xlsx": "PK",
    # As Excel and others write them.
    "excel.csv": "sep=;\n" + ROWS.format("path", "label", ";"),
    "old-mac.csv": ROWS.format("path", "label", ",").replace("\n", "\r"),
    "pipes.csv": ROWS.format("path", "label", "|"),
    "all-quoted.csv": '\ufeff"path","label"\n"0.png","b"\n"1.png","a"\n',
    "half-quoted.csv": 'path,label\n"0.png,b\n1.png,a\n',
    "no-end.csv": ROWS.format("path", "label", ",").rstrip("\n"),
    "comment.csv": "path,label\n# a note\n0.png,b\n1.png,a\n",
    "no-break-space.csv": "path,label\n0.png,\u00a0b\u00a0\n1.png,a\n",
    "zero-width.csv": "path,label\n0.png,b\u200b\n1.png,b\n",
    "two-classes.csv": "path,label\n0.png,b\n0.png,a\n",
    "twice-named.csv": "path,label,path\n0.png,b,1.png\n",
    "here.csv": "path,label\n./0.png,b\nsub/../1.png,a\n",
    "backslashes.csv": "path,label\n.\\0.png,b\n1.png,a\n",
    "nul.csv": "path,label\n0.png,b\0\n1.png,a\n",
    "tab-in-name.csv": "path,label\n0.png,b\tc\n1.png,a\n",
    "long-name.csv": f"path,label\n0.png,{'b' * 5000}\n1.png,a\n",
    "quoted-tabs.tsv": 'path\tlabel\n"0.png"\t"b"\n1.png\ta\n',
    "mark.jsonl": "\ufeff" + objects({"path": "0.png", "label": "b"}),
    "windows.jsonl": objects({"path": "0.png", "label": "b"}).replace("\n", "\r\n"),
    "blank.jsonl": "\n" + objects({"path": "0.png", "label": "b"}) + "\n  \n",
    "float.jsonl": objects({"path": "0.png", "label": 1.0}, {"path": "1.png", "label": 0.5}),
    "true.jsonl": objects({"path": "0.png", "label": True}, {"path": "1.png", "label": False}),
    "several.jsonl": objects({"path": "0.png", "label": ["b"]}, {"path": "1.png", "label": []}),
    "object.jsonl": objects({"path": "0.png", "label": {"name": "b"}}),
    "twice.jsonl": '{"path": "9.png", "path": "0.png", "label": "b"}\n',
    "not-a-number.jsonl": '{"path": "0.png", "label": NaN}\n',
    "huge.jsonl": '{"path": "0.png", "label": 123456789012345678901234567890}\n',
    "number-path.jsonl": objects({"path": 0, "label": "b"}),
    "mark.json": "\ufeff" + coco(),
    "same-names.json": coco(categories=[{"id": 5, "name": "a"}, {"id": 4, "name": "a"}]),
    "text-ids.json": coco(
        images=[{"id": "x", "file_name": "0.png"}],
        annotations=[{"image_id": "x", "category_id": 4}],
    ),
    "no-categories.json": coco(categories=[]),
    "bare.json": coco(annotations=[{"image_id": 1, "category_id": 4}]),
    # What one of the three once took otherwise than the others.
    "index.csv": ",path,label\n0,0.png,b\n1,1.png,a\n",
    "empty-id.csv": "path,label,id\n0.png,b,\n1.png,a,x\n",
    "empty-path.csv": "path,label\n,b\n1.png,a\n",
    "mark-in-label.csv": "path,label\n0.png,\ufeffb\n1.png,a\n",
    "quote-within.csv": 'path,label\n0.png,b"x"\n1.png,a\n',
    "quote-after-space.csv": 'path,label\n0.png, "b"\n1.png,a\n',
    "after-quote.csv": 'path,label\n"0.png"x,b\n1.png,a\n',
    "escaped-quote.csv": 'path,label\n0.png,"b\\"x"\n1.png,a\n',
    "file-labels.csv": "file,labels\n0.png,e\u0301;b; ;b\n1.png,\u00e9\n",
    "labels-file.csv": "labels,file\nb;a,0.png\n,1.png\n",
    "file-address.csv": "path,label\nfile:///no%20where/0.png,b\n1.png,a\n",
    "data-address.csv": 'path,label\n"data:image/png;base64,iVBORw0KGgo=",b\n1.png,a\n',
    "old-mac.jsonl": objects({"path": "0.png", "label": "b"}).replace("\n", "\r") * 2,
    "number-ids.jsonl": objects(
        {"path": "0.png", "label": "b", "id": 18446744073709551615},
        {"path": "1.png", "label": "a", "id": -3},
    ),
    "empty-id.jsonl": objects({"path": "0.png", "label": "b", "id": ""}),
    "true-id.jsonl": objects({"path": "0.png", "label": "b", "id": True}),
    "float-id.jsonl": objects({"path": "0.png", "label": "b", "id": 1.5}),
    "object-id.jsonl": objects({"path": "0.png", "label": "b", "id": {"a": 1}}),
    "large-id.jsonl": objects({"path": "0.png", "label": "b", "id": 10**22}),
    "object-path.jsonl": objects({"path": {"path": "0.png"}, "label": "b"}),
    "half-pair.jsonl": '{"path": "0.png", "label": "\\ud83d"}\n',
    "pair.jsonl": '{"path": "0.png", "label": "\\ud83d\\ude00 \\\\ud83d"}\n',
    "text-embedding.jsonl": objects({"embedding": ["0.5"], "label": "b"}),
    "nested-embedding.jsonl": objects({"embedding": [[0.5]], "label": "b"}),
    "true-embedding.jsonl": objects({"embedding": [True], "label": "b"}),
    "float-ids.json": coco(
        images=[{"id": 1.0, "file_name": "0.png"}, {"id": 2, "file_name": "1.png"}]
    ),
    "true-ids.json": coco(
        images=[{"id": True, "file_name": "0.png"}, {"id": 2, "file_name": "1.png"}]
    ),
    "same-file.json": coco(
        images=[{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "0.png"}]
    ),
    "same-category.json": coco(categories=[{"id": 4, "name": "a"}, {"id": 4, "name": "b"}]),
    "no-name.json": coco(categories=[{"id": 4}, {"id": 5, "name": "a"}]),
    "null-name.json": coco(categories=[{"id": 4, "name": None}, {"id": 5, "name": "a"}]),
    "number-name.json": coco(categories=[{"id": 4, "name": 7}, {"id": 5, "name": "a"}]),
    "spaces-in-name.json": coco(categories=[{"id": 4, "name": " b "}, {"id": 5, "name": "a"}]),
    "not-a-number.json": coco().replace('"image_id": 1,', '"image_id": 1, "area": NaN,'),
    "wide.json": coco().encode("utf-16"),
    "half-pair.json": coco().replace('"name": "a"', '"name": "\\ud83d"'),
    "twice.json": coco().replace('"0.png"', '"9.png", "file_name": "0.png"'),
    "capitals.json": coco().replace("images", "Images"),
    # Two columns that may be meant, and what looks like another way to write the same.
    "two-pictures.csv": "path,label,Path\n0.png,b,1.png\n",
    "two-labels-of-one-name.csv": "path,label,label\n0.png,b,x\n",
    "two-ids.csv": "path,label,id,ID\n0.png,b,p,q\n",
    "two-notes.csv": "path,label,note,note\n0.png,b,x,y\n",
    "two-labels.jsonl": objects({"path": "0.png", "Label": "x", "label": "b"}),
    "same-image.json": coco(
        images=[{"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}],
        annotations=[{"image_id": 1, "category_id": 4}],
    ),
    "no-file-name.json": coco(images=[{"id": 2, "file_name": "1.png"}, {"id": 1}]),
    "null-file-name.json": coco(
        images=[{"id": 2, "file_name": "1.png"}, {"id": 1, "file_name": None}]
    ),
    "no-image-id.json": coco(images=[{"id": 2, "file_name": "1.png"}, {"file_name": "0.png"}]),
    "no-category-id.json": coco(categories=[{"id": 4, "name": "b"}, {"name": "a"}]),
    "null-images.json": coco(images=None),
    "no-annotations.json": coco(annotations=[]),
    "spaces.jsonl": objects({"path": "0.png", "label": " b "}, {"path": "1.png", "label": "b"}),
    "spaces-in-list.jsonl": objects({"path": "0.png", "label": [" b", "b ", "a"]}),
    "blank-label.jsonl": objects({"path": "0.png", "label": "  "}),
    "ideographic-space.csv": "path,label\n0.png,\u3000b\u2028\n1.png,\x85b\n",
    "unit-separator.csv": "path,label\n0.png,b\x1f\n1.png,b\n",
    "space-in-path.csv": "path,label\n 0.png,b\n1.png,a\n",
    "underscore.csv": "path,label\n0.png,b_c\n1.png,b c\n",
    "return-within.csv": "path,label\r\n0.png,b\rc\r\n1.png,a\r\n",
    "return-in-quotes.csv": 'path,label\r\n"0.png","b\r\nc"\r\n1.png,a\r\n',
    "new-line-in-path.csv": 'path,label\n"0.\npng",b\n1.png,a\n',
    "empty-columns.csv": "path,label,,\n0.png,b,,\n1.png,a,,\n",
    "two-marks.csv": "\ufeff\ufeff" + ROWS.format("path", "label", ","),
    "same-ids.csv": "path,label,id\n0.png,b,x\n1.png,a,x\n",
    "large-address.csv": f'path,label\n"data:image/png;base64,{"iVBO" * 40_000}",b\n1.png,a\n',
    "large-exponent.json": coco().replace('"image_id": 1,', '"image_id": 1, "area": 1e400,'),
    "large-exponent.jsonl": '{"path": "0.png", "label": "b", "note": 1e400}\n',
}


@pytest.mark.parametrize("listed", LISTS)
def test_a_list_is_the_same_to_all(listed, server, go, chance, tmp_path, name):  # noqa: F811
    for picture in ("0.png", "1.png"):
        (tmp_path / picture).write_bytes(png(photo(chance, side=(20, 60))))
    path = tmp_path / listed
    text = LISTS[listed]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def made(who: str, rejected: list[tuple[str, str]]) -> tuple:
        with tipserve.Client(server.address) as client:
            classes = client.version(f"{name}-{who}").classes
        examples = [(e.example_id, e.display_name) for e in server.api.examples(f"{name}-{who}")]
        return [one.display_name for one in classes], examples, rejected

    flags = ["--from", path, "--method", "class-mean", "--allow-empty-classes"]
    document = server.cli("create", f"{name}-cli", *flags, code=None)
    if "error" in document:
        cli = "refused"
        print(document["error"]["message"])
    else:
        cli = made("cli", [(one["id"], one["reason"]) for one in document["rejected"]])

    with tipserve.Client(server.address) as client:
        try:
            version = client.create_cache(
                f"{name}-python", path, method="class_mean", allow_empty_classes=True
            )
        except (tipserve.TipserveError, ValueError) as error:
            python = "refused"
            print(error)
        else:
            python = made("python", [(one.id, one.error.reason) for one in version.rejected])

    command = [go, "-server", server.address, "-cache", f"{name}-go", "-create", "-list", path]
    try:
        rejected = [(one["id"], one["reason"]) for one in lines(command, (0,))]
    except AssertionError as error:
        in_go = "refused"
        print(error)
    else:
        in_go = made("go", rejected)
    assert cli == python == in_go


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_parquet_may_be_compressed(compression, server, chance, tmp_path, name):  # noqa: F811
    """As pyarrow, and with it pandas and `datasets`, writes it. Go's client reads no Parquet."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = [png(photo(chance, side=(20, 60))) for _ in range(20)]
    labels = [f"class {i % 3}" for i in range(20)]
    path = tmp_path / "x.parquet"
    table = arrow.table({"image": pictures, "label": labels, "note": ["much the same"] * 20})
    parquet.write_table(table, path, compression=compression, row_group_size=7)
    with tipserve.Client(server.address) as client:
        client.create_cache(f"{name}-python", path, method="class_mean")

    def made(who: str) -> list[tuple[str, str]]:
        return [(e.example_id, e.display_name) for e in server.api.examples(f"{name}-{who}")]

    flags = ["--from", path, "--method", "class-mean"]
    assert server.cli("create", f"{name}-cli", *flags)["rejected"] == []
    assert made("cli") == made("python") and len(made("cli")) == 20
    query = [wire.encoded(pictures[0])]
    query, again = (server.api.logits(f"{name}-{who}", query) for who in ("python", "cli"))
    np.testing.assert_allclose(query, again, rtol=0, atol=1e-5)


def test_evaluating_goes_beyond_ten_thousand_classes(features, go, chance, tmp_path, name):  # noqa: F811
    """The server sends no confusion then; all the rest is there, for each client."""
    many, asked = 12_345, 300
    names = np.array([f"class {i:05}" for i in range(many)])
    points = chance.normal(size=(many, WIDTH)).astype(np.float32)
    arrays = {"features": points, "labels": np.arange(many), "classes": names}
    np.savez(tmp_path / "train.npz", **arrays)
    flags = ["--from", tmp_path / "train.npz", "--method", "class-mean"]
    features.cli("create", name, *flags)
    labels = chance.integers(0, many, asked)
    # Half of them are asked for under another class's name: those are wrong.
    wrong = np.arange(asked) % 2 == 1
    told = np.where(wrong, (labels + 1) % many, labels)
    rows = [
        {"embedding": points[label].tolist(), "label": str(names[is_])}
        for label, is_ in zip(labels, told, strict=True)
    ]
    path = tmp_path / "asked.jsonl"
    path.write_text(objects(*rows))
    expected = float(np.mean(~wrong))

    document = features.cli("evaluate", name, "--from", path)
    one = document["evaluations"][0]
    assert (document["top1"], document["count"]) == (pytest.approx(expected), asked)
    assert (len(one["classes"]), one["confusion"]) == (many, [])

    with tipserve.Client(features.address) as client:
        done = client.evaluate(name, path)
    assert (done.top1, done.count) == (pytest.approx(expected), asked)
    assert (len(done.classes), len(done.confusion)) == (many, 0)

    command = [go, "-server", features.address, "-cache", name, "-evaluate", "-list", path]
    [said] = lines(command, (0,))
    assert said == {
        "top1": pytest.approx(expected),
        "count": asked,
        "classes": many,
        "confusion": 0,
    }
