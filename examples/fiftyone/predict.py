"""Predictions of a classifier as fields of a FiftyOne dataset, and its corrections back.

    pip install './clients/python[all]' fiftyone
    python examples/fiftyone/predict.py pets@3 pets/test

opens the app on the pictures of `pets/test` (one folder a class): each has the prediction with its
confidence, its nearest examples and its embedding; the confusion is FiftyOne's own evaluation, so
that a cell of the matrix filters the pictures. Samples that are tagged `learn` become examples of
the classifier's next version, of the class that their ground truth names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import fiftyone
import tipserve


def predict(
    client: tipserve.Client,
    cache: str,
    samples: fiftyone.core.collections.SampleCollection,
    *,
    field: str = "prediction",
    neighbours: int = 3,
) -> str:
    """Classifies every sample; returns the name of the version that did.

    Fields of each sample: `field` (a Classification, with the logits), `field`_neighbours
    (Classifications: labels, similarities and ids of the nearest examples), `field`_embedding, and
    `field`_error if there is no answer.

    Args:
        client: Of the server that has the classifier.
        cache: Which: "pets", "pets@3", "pets@stable".
        samples: A dataset or a view.
        field: What the fields' names begin with.
        neighbours: How many of the nearest examples.
    """
    version = client.version(cache)
    ids, paths = samples.values(["id", "filepath"])
    items = (tipserve.Item(path, id=id_) for id_, path in zip(ids, paths, strict=True))
    labels, near, embeddings, errors = {}, {}, {}, {}
    # By its number: an alias may move while this runs.
    for result in client.classify(
        version.name, items, top_k=1, logits=True, neighbours=neighbours, embedding=True
    ):
        if result.error is not None:
            errors[result.id] = str(result.error)
            continue
        labels[result.id] = fiftyone.Classification(
            label=result.best.display_name,
            confidence=result.best.probability,
            logits=result.logits,
        )
        near[result.id] = fiftyone.Classifications(
            classifications=[
                fiftyone.Classification(
                    label=one.display_name, confidence=one.similarity, example_id=one.example_id
                )
                for one in result.neighbours
            ]
        )
        embeddings[result.id] = result.embedding
    samples.set_values(field, labels, key_field="id")
    samples.set_values(f"{field}_neighbours", near, key_field="id")
    samples.set_values(f"{field}_embedding", embeddings, key_field="id")
    if errors:
        samples.set_values(f"{field}_error", errors, key_field="id")
    return version.name


def learn(
    client: tipserve.Client,
    cache: str,
    samples: fiftyone.core.collections.SampleCollection,
    *,
    tag: str = "learn",
    ground_truth: str = "ground_truth",
) -> tipserve.Version | None:
    """Makes the samples of a tag examples of the next version; none where no sample has it."""
    tagged = samples.match_tags(tag)
    ids, paths, labels = tagged.values(["id", "filepath", f"{ground_truth}.label"])
    examples = [
        tipserve.Example(label, path, id=f"fiftyone/{id_}")
        for id_, path, label in zip(ids, paths, labels, strict=True)
        if label is not None
    ]
    return client.add_examples(cache, examples) if examples else None


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", help="for instance pets, pets@3, pets@stable")
    parser.add_argument("folder", type=Path, help="pictures, one folder a class")
    parser.add_argument("--server", help="host:port; default: TIPSERVE_SERVER")
    given = parser.parse_args()
    kind = fiftyone.types.ImageClassificationDirectoryTree
    dataset = fiftyone.Dataset.from_dir(str(given.folder), dataset_type=kind)
    with tipserve.Client(given.server) as client:
        print(predict(client, given.cache, dataset))
        judged = dataset.evaluate_classifications("prediction", gt_field="ground_truth")
        judged.print_report()
        fiftyone.launch_app(dataset).wait()
        made = learn(client, given.cache, dataset)
        print("nothing was tagged `learn`" if made is None else f"learned: {made.name}")


if __name__ == "__main__":
    main()
