"""Answers as values: compared, as dicts, as tables, as shown."""

from __future__ import annotations

import copy
import json
import pickle

import fake_server as fs
import pytest

import tipserve
from tipserve._proto import cache_pb2, classify_pb2
from tipserve.errors import from_status

numpy = pytest.importorskip("numpy")


def classification(**more):
    top = [
        classify_pb2.ClassScore(index=1, display_name="<owl>", logit=2, probability=0.75),
        classify_pb2.ClassScore(index=0, display_name="cat", logit=1, probability=0.25),
    ]
    return classify_pb2.Classification(
        version="caches/pets/versions/1", top=top, logits=[1.0, 2.0], **more
    )


def result(id="a.jpg", **more):
    return tipserve.Result._from(id, 0, classification(**more))


def failed():
    error = from_status(fs.status(3, "half of it", reason="PICTURE_TRUNCATED"))
    return tipserve.Result("b.jpg", 1, error=error)


def test_results_are_equal_by_what_they_hold():
    assert result() == result()
    assert hash(result()) == hash(result())
    assert result() == copy.deepcopy(result()) == pickle.loads(pickle.dumps(result()))
    assert result() != result("c.jpg")
    other = classification()
    other.logits[1] = 2.5
    assert result() != tipserve.Result._from("a.jpg", 0, other)
    assert result() != "a.jpg"
    assert failed() == failed() == pickle.loads(pickle.dumps(failed()))
    assert failed() != tipserve.Result("b.jpg", 1, error=tipserve.NotFound("half of it"))
    assert len({result(), result(), failed()}) == 2
    nan = numpy.full((1, 2), numpy.nan, numpy.float32)
    rows = [tipserve.Embeddings(nan.copy(), nan[:0]) for _ in range(2)]
    assert rows[0] == rows[1]
    message = cache_pb2.RejectedExample(example_id="q", code=3, message="bad")
    assert tipserve.Rejected._from(message) == tipserve.Rejected._from(message)
    version = cache_pb2.Version(version=1, labels={"a": "b"})
    rejected = [tipserve.Rejected._from(message)]
    made = [tipserve.Version._from(version, rejected) for _ in range(2)]
    assert made[0] == made[1] != tipserve.Version._from(version)


def test_they_become_dicts_that_json_can_hold():
    found = json.loads(json.dumps(result(embedding={"values": [0.5, 0.5]}).to_dict()))
    assert found["top"][0]["display_name"] == "<owl>"
    assert (found["logits"], found["embedding"]) == ([1.0, 2.0], [0.5, 0.5])
    found = json.loads(json.dumps(failed().to_dict()))
    assert found["error"]["reason"] == "PICTURE_TRUNCATED"
    assert found["error"]["code"] == "INVALID_ARGUMENT"
    version = cache_pb2.Version(version=1, classes=[cache_pb2.ClassInfo(display_name="cat")])
    version.create_time.FromSeconds(86_400)
    version.head.method = cache_pb2.METHOD_PROKER
    found = json.loads(json.dumps(tipserve.Version._from(version).to_dict()))
    assert found["create_time"] == "1970-01-02T00:00:00+00:00"
    assert found["head"]["method"] == "proker"
    assert found["classes"][0]["display_name"] == "cat"


def evaluation(classes=2):
    infos = [
        classify_pb2.ClassEvaluation(index=i, display_name=f"class {i}", count=4, accuracy=0.5)
        for i in range(classes)
    ]
    return tipserve.Evaluation._from(
        classify_pb2.Evaluation(
            version="caches/pets/versions/1",
            count=4 * classes,
            top1=0.5,
            classes=infos,
            confusion=range(classes**2) if classes <= 1000 else (),
        )
    )


def test_they_become_tables():
    pytest.importorskip("pandas")
    table = tipserve.to_pandas([result(), failed()])
    assert table["class"][0] == "<owl>"
    assert list(table["class"].isna()) == [False, True]
    assert list(table["id"]) == ["a.jpg", "b.jpg"]
    assert "PICTURE_TRUNCATED" in table["error"][1]
    assert list(result().to_pandas()["probability"]) == [0.75, 0.25]
    assert list(evaluation().to_pandas()["accuracy"]) == [0.5, 0.5]
    rows = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    assert tipserve.Embeddings(rows, rows[:1]).to_pandas().shape == (3, 3)


def test_an_evaluation_of_many_classes_has_no_confusion(fake, call):
    """Over 1,000 the server sends none; the rest is there, whatever their number."""
    many = 20_000
    classes = [cache_pb2.ClassInfo(index=i, display_name=f"class {i}") for i in range(many)]
    fake.unary["GetVersion"] = lambda request, context: cache_pb2.Version(classes=classes)
    infos = [classify_pb2.ClassEvaluation(index=i, display_name=f"class {i}") for i in range(many)]
    answer = classify_pb2.EvaluateResponse(evaluations=[{"count": 1, "classes": infos}])
    fake.unary["Evaluate"] = lambda request, context: answer
    done = call("evaluate", "pets", [(b"x", f"class {many - 1}")])
    assert (len(done.classes), done.confusion) == (many, ())
    sent = [one for message in fake.calls[-1][1] for one in message.items.items]
    assert [one.class_index for one in sent] == [many - 1]
    assert len(done._repr_html_()) < 100_000


def test_reprs_are_short():
    assert repr(result()) == "<Result 'a.jpg': <owl> 0.750, cat 0.250>"
    assert repr(failed()).startswith("<Result 'b.jpg': InvalidArgument('half of it'")
    assert repr(evaluation()) == (
        "<Evaluation of 'caches/pets/versions/1': top-1 0.5000 of 8>"
    )  # fmt: skip
    infos = [cache_pb2.ClassInfo(display_name=f"class {i}") for i in range(5000)]
    version = tipserve.Version._from(cache_pb2.Version(name="caches/a/versions/2", classes=infos))
    cache = tipserve.Cache._from(cache_pb2.Cache(name="caches/a", aliases={"stable": 2}))
    rows = numpy.zeros((3, 512), numpy.float32)
    for one in (version, cache, tipserve.Embeddings(rows, rows)):
        assert len(repr(one)) < 120
    assert "5000 classes" in repr(version)
    assert "stable -> 2" in repr(cache)


def test_notebooks_show_bars_thumbnails_and_heat(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a&b.png"
    Image.new("RGB", (300, 200), (200, 0, 0)).save(path)
    shown = result(str(path))._repr_html_()
    assert "data:image/jpeg;base64," in shown
    assert "&lt;owl&gt;" in shown and "<owl>" not in shown
    assert "width:75.0%" in shown
    assert "<img" not in result("no such file")._repr_html_()
    assert "half of it" in failed()._repr_html_()
    assert "rgba(" in evaluation()._repr_html_()
    assert "rgba(" not in evaluation(50)._repr_html_()


def test_an_evaluation_is_a_page_that_fetches_nothing(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a&b.png"
    Image.new("RGB", (300, 200), (200, 0, 0)).save(path)
    done = evaluation()
    plain = done.to_html()
    assert "rgba(" in plain and "<figure>" not in plain and "<svg" not in plain
    wrong, right = result(str(path)), result("right.png")
    answers = [(1 - wrong.best.index, wrong), ("class 0", right), (0, failed())]
    page = done.to_html(tmp_path / "page.html", answers=answers)
    assert (tmp_path / "page.html").read_text("utf-8") == page
    assert page.count("<figure>") == sum(
        is_ != one.best.index for is_, one in [(1 - wrong.best.index, wrong), (0, right)]
    )
    assert "data:image/jpeg;base64," in page and "a&amp;b.png" in page
    assert page.count("<title>2 items") == 1  # of one confidence, both
    assert "<script" not in page and "http://" not in page and "https://" not in page
    with pytest.raises(ValueError, match="no class 'none'"):
        done.to_html(answers=[("none", right)])


def test_help_names_every_method():
    import pydoc

    text = pydoc.render_doc(tipserve.Client, renderer=pydoc.plaintext)
    for name in ("classify", "create_cache", "evaluate", "embed", "export", "rollback"):
        assert f"{name}(self" in text
    for word in ("await", "event loop", "Async", "'str'", "'Picture'"):
        assert word not in text
    assert "classify_one(self, cache: str, picture: Picture, *," in text


def test_names_are_those_of_the_protos():
    """The literals that checkers know, and the enumerations on the wire."""
    from typing import get_args

    from tipserve import types
    from tipserve._proto import finetune_pb2

    def names(kind, prefix):
        return {key.removeprefix(prefix).lower() for key in kind.keys()} - {"unspecified"}  # noqa: SIM118

    for literal, kind, prefix in (
        (types.OnRejected, cache_pb2.CacheSpec.OnRejected, "ON_REJECTED_"),
        (types.ClassBalance, cache_pb2.ClassBalance, "CLASS_BALANCE_"),
        (types.KeyDtype, cache_pb2.KeyDtype, "KEY_DTYPE_"),
        (types.GridKind, cache_pb2.SearchGrid.Kind, "KIND_"),
        (types.Schedule, finetune_pb2.FineTuneRequest.Schedule, "SCHEDULE_"),
    ):
        assert set(get_args(literal)) == names(kind, prefix)
    methods = names(cache_pb2.Method, "METHOD_")
    # What `finetune` and `auto` make is not to be asked for.
    assert set(get_args(types.MethodName)) == methods - {"tip_adapter_f", "stack"}
    assert {str(one) for one in tipserve.Method} == methods | {"unknown"}
