"""The repository's examples, each with the real tool if that is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

import tipserve
from tipserve._proto import cache_pb2, classify_pb2

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def example(path):
    """An example's module, as running it would load it."""
    file = EXAMPLES / path
    if not file.is_file():
        pytest.skip("not in the repository: there are no examples")
    spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pets(fake):
    """A server of one classifier, "pets", of two classes."""
    infos = [cache_pb2.ClassInfo(index=i, display_name=n) for i, n in enumerate(["cat", "dog"])]
    made = cache_pb2.Version(
        name="caches/pets/versions/3", version=3, classes=infos, bundle_name="demo", key_count=8
    )
    made.head.method = cache_pb2.METHOD_PROKER
    fake.unary["GetVersion"] = lambda request, context: made
    fake.unary["ListCaches"] = lambda request, context: cache_pb2.ListCachesResponse(
        caches=[cache_pb2.Cache(name="caches/pets")]
    )
    return fake


def test_mlflow_has_the_version_and_its_evaluation(pets, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    module = example("mlflow/log_version.py")
    classes = [classify_pb2.ClassEvaluation(index=i, accuracy=i, count=2) for i in range(2)]
    evaluation = classify_pb2.Evaluation(
        version="caches/pets/versions/3", count=4, top1=0.5, classes=classes, confusion=range(4)
    )
    pets.unary["Evaluate"] = lambda request, context: classify_pb2.EvaluateResponse(
        evaluations=[evaluation]
    )

    def export(request, context):
        version = cache_pb2.Version(name=request.name)
        yield cache_pb2.ExportVersionResponse(header={"version": version, "size_bytes": 5})
        yield cache_pb2.ExportVersionResponse(chunk=b"bytes")

    pets.export = export
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    mlflow.set_experiment("pets")
    with tipserve.Client(pets.address) as client:
        run_id = module.log_version(client, "pets@stable", [(b"x", "cat")])
    run = mlflow.get_run(run_id)
    assert run.data.tags["tipserve.version"] == "caches/pets/versions/3"
    assert run.data.params["method"] == "proker"
    assert run.data.metrics["top1"] == 0.5
    assert run.data.metrics["accuracy/1"] == 1
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id))
    assert sorted(os.listdir(folder)) == [
        *("evaluation.html", "evaluation.json", "version.json", "version.safetensors"),
    ]
    assert (folder / "version.safetensors").read_bytes() == b"bytes"
    assert json.loads((folder / "evaluation.json").read_text())["count"] == 4


def test_the_playground_classifies_and_corrects(pets, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is not installed")
    gradio_client = pytest.importorskip("gradio_client")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    module = example("playground/app.py")
    added = []

    def add(requests, context):
        added.append(list(requests))
        version = cache_pb2.Version(name="caches/pets/versions/4", version=4, key_count=9)
        yield cache_pb2.AddExamplesResponse(version=version)

    pets.add = add
    Image = pytest.importorskip("PIL.Image")
    path = tmp_path / "x.png"
    Image.new("RGB", (3, 2), (9, 8, 7)).save(path)

    def classify(request, context):
        top = [{"index": 1, "display_name": "dog", "probability": 0.75}]
        made = classify_pb2.Classification(version="caches/pets/versions/3", top=top)
        return classify_pb2.ClassifyResponse(classification=made)

    pets.unary["Classify"] = classify
    with tipserve.Client(pets.address) as client:
        page = module.page(client)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
        try:
            browser = gradio_client.Client(url, verbose=False)
            picture = gradio_client.handle_file(str(path))
            classes, _, said = browser.predict("pets", picture, api_name="/classify")
            assert classes["label"] == "dog"
            assert "caches/pets/versions/3" in said
            learned = browser.predict("pets", picture, "fox", api_name="/correct")
            assert "caches/pets/versions/4" in learned
            missing = browser.predict("pets", None, api_name="/classify")
            assert "picture first" in missing[2]
        finally:
            page.close()
    assert [one.display_name for one in added[0][0].spec.new_classes] == ["fox"]
