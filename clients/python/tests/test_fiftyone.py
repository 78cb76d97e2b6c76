"""The example for FiftyOne, with FiftyOne itself and MongoDB."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_server import numbered

import tipserve
from tipserve._proto import cache_pb2, classify_pb2

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/fiftyone/predict.py"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The address of a MongoDB of its own, which ends with the tests."""
    mongod = shutil.which(os.environ.get("MONGOD", "mongod"))
    if mongod is None:
        pytest.skip("FiftyOne needs mongod, which is not installed")
    folder = tmp_path_factory.mktemp("mongodb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--dbpath", folder, "--bind_ip", "127.0.0.1", "--port", str(port)]
    flags += ["--unixSocketPrefix", folder, "--logpath", folder / "log"]
    server = subprocess.Popen([mongod, *flags], stdout=subprocess.DEVNULL)
    yield f"mongodb://127.0.0.1:{port}"
    server.terminate()
    server.wait(60)


@pytest.fixture(scope="module")
def fiftyone(database, tmp_path_factory):
    """FiftyOne with that database."""
    if importlib.util.find_spec("fiftyone") is None:
        pytest.skip("FiftyOne is not installed: pip install fiftyone")
    os.environ["FIFTYONE_DATABASE_URI"] = database
    # It asks for MongoDB 6; what the example uses, 5 has (scripts/mongod).
    os.environ["FIFTYONE_DATABASE_VALIDATION"] = "false"
    os.environ["FIFTYONE_CONFIG_PATH"] = str(tmp_path_factory.mktemp("fiftyone") / "config.json")
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "1"
    import fiftyone

    return fiftyone


@pytest.fixture
def example(fiftyone):
    """The example's module."""
    if not EXAMPLE.is_file():
        pytest.skip("not in the repository: there are no examples")
    spec = importlib.util.spec_from_file_location("example_fiftyone", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pets(fake):
    """A server of "pets", which says "dog" of files that begin with a "d" and knows no "x"."""
    infos = [cache_pb2.ClassInfo(index=i, display_name=n) for i, n in enumerate(["cat", "dog"])]
    version = cache_pb2.Version(
        name="caches/pets/versions/3", version=3, classes=infos, bundle_name="demo", key_count=8
    )
    fake.unary["GetVersion"] = lambda request, context: version

    def behaviour(requests, context):
        for sequence, item in numbered(requests):
            result = classify_pb2.ItemResult(id=item.id, sequence=sequence)
            file = item.input.encoded_image
            if file.startswith(b"x"):
                result.error.code, result.error.message = 3, "this is no picture"
            else:
                dog = file.startswith(b"d")
                name = ["cat", "dog"][dog]
                top = {"index": int(dog), "display_name": name, "probability": 0.75}
                near = {"example_id": "n1", "display_name": "cat", "similarity": 0.5}
                result.classification.CopyFrom(
                    classify_pb2.Classification(
                        version="caches/pets/versions/3",
                        top=[top],
                        logits=[1.0, 2.0],
                        neighbours=[near],
                        embedding={"values": [0.6, 0.8]},
                    )
                )
            yield classify_pb2.ClassifyStreamResponse(results=[result])

    fake.streams = [behaviour]
    return fake


@pytest.fixture
def dataset(fiftyone, tmp_path):
    """Pictures in one folder a class; one of them is none."""
    for label, files in {"cat": ["c1", "d2"], "dog": ["d3", "x4"]}.items():
        (tmp_path / label).mkdir()
        for name in files:
            (tmp_path / label / f"{name}.jpg").write_bytes(name.encode())
    kind = fiftyone.types.ImageClassificationDirectoryTree
    dataset = fiftyone.Dataset.from_dir(str(tmp_path), dataset_type=kind)
    yield dataset
    dataset.delete()


def test_predictions_neighbours_and_confusion_are_fields(example, pets, dataset):
    with tipserve.Client(pets.address) as client:
        assert example.predict(client, "pets", dataset) == "caches/pets/versions/3"
    found = {Path(sample.filepath).stem: sample for sample in dataset}
    first = found["c1"]
    assert (first.prediction.label, first.prediction.confidence) == ("cat", 0.75)
    assert list(first.prediction.logits) == [1.0, 2.0]
    [near] = first.prediction_neighbours.classifications
    assert (near.label, near.confidence, near.example_id) == ("cat", 0.5, "n1")
    assert first.prediction_embedding == pytest.approx([0.6, 0.8])
    assert found["x4"].prediction is None and "no picture" in found["x4"].prediction_error
    judged = dataset.exists("prediction").evaluate_classifications(
        "prediction", gt_field="ground_truth"
    )
    matrix = judged.confusion_matrix(classes=["cat", "dog"])
    assert matrix.tolist() == [[1, 1], [0, 1]]


def test_tagged_samples_become_examples(example, pets, dataset):
    sent = []

    def add(requests, context):
        sent.extend(requests)
        yield cache_pb2.AddExamplesResponse(
            version=cache_pb2.Version(name="caches/pets/versions/4", version=4)
        )

    pets.add = add
    with tipserve.Client(pets.address) as client:
        assert example.learn(client, "pets", dataset) is None
        sample = next(one for one in dataset if Path(one.filepath).stem == "d2")
        sample.tags.append("learn")
        sample.save()
        assert example.learn(client, "pets", dataset).version == 4
    [_, batch] = sent
    [one] = batch.examples.examples
    assert (one.example_id, one.class_index) == (f"fiftyone/{sample.id}", 0)
    assert one.input.encoded_image == b"d2"
