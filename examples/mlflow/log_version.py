"""Logs a version of a classifier, and how well it does, as a run of MLflow.

    pip install './clients/python[all]' mlflow-skinny
    python examples/mlflow/log_version.py pets@3 pets/test --experiment pets

The run has the head's numbers as parameters, the evaluation as metrics, and as
artifacts the version itself (safetensors: `import_version` serves it again), the
answers of the server as JSON and the confusion as HTML. Tags name the version and
the bundle, so that `mlflow.search_runs` finds what serves.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import tipserve


def parameters(version: tipserve.Version) -> dict[str, Any]:
    """What the head was made with."""
    head = version.head
    return {
        "method": str(head.method),
        "alpha": head.alpha,
        "beta": head.beta,
        "lambda": head.lambda_,
        "temperature": head.temperature,
        "class_balance": head.class_balance,
        "selected_on": head.selection.source,
        "classes": len(version.classes),
        "keys": version.key_count,
        "views": version.views,
    }


def metrics(evaluation: tipserve.Evaluation) -> dict[str, float]:
    """How well it does; a metric for each class's accuracy too."""
    found = {
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "cross_entropy": evaluation.cross_entropy,
        "expected_calibration_error": evaluation.expected_calibration_error,
        "examples": float(evaluation.count),
        "rejected": float(evaluation.rejected_count),
    }
    if evaluation.zero_shot_top1 is not None:
        found["zero_shot_top1"] = evaluation.zero_shot_top1
    # By index: a class's name may hold what MLflow takes in no name.
    found.update({f"accuracy/{one.index}": one.accuracy for one in evaluation.classes})
    return found


def log_version(client: tipserve.Client, name: str, test: Any, *, export: bool = True) -> str:
    """Logs one version into the run that is active; returns the run's id.

    Args:
        client: Of the server that has it.
        name: Which version: "pets@3".
        test: Labelled pictures, in whatever `evaluate` takes.
        export: Log the version itself, too.
    """
    version = client.version(name)
    # By its number: an alias may move while this runs.
    evaluation = client.evaluate(version.name, test)
    with mlflow.start_run(nested=mlflow.active_run() is not None) as run:
        mlflow.set_tags(
            {
                "tipserve.version": version.name,
                "tipserve.bundle": version.bundle_name,
                "tipserve.bundle_fingerprint": version.bundle_fingerprint,
                "tipserve.created_by": version.created_by,
            }
        )
        mlflow.log_params(parameters(version))
        mlflow.log_metrics(metrics(evaluation))
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            for file, record in (("version.json", version), ("evaluation.json", evaluation)):
                (scratch / file).write_text(json.dumps(record.to_dict(), indent=1))
            (scratch / "evaluation.html").write_text(evaluation._repr_html_())
            if export:
                client.export(version.name, scratch / "version.safetensors")
            mlflow.log_artifacts(folder)
        return str(run.info.run_id)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", help="for instance pets@3, pets@stable")
    parser.add_argument("test", help="a folder with one folder a class, or a table of paths")
    parser.add_argument("--server", help="host:port; default: TIPSERVE_SERVER")
    parser.add_argument("--experiment", help="MLflow's; default: its own default")
    given = parser.parse_args()
    if given.experiment:
        mlflow.set_experiment(given.experiment)
    with tipserve.Client(given.server) as client:
        print("run", log_version(client, given.version, given.test))


if __name__ == "__main__":
    main()
