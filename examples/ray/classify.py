"""Classifies a folder or a Parquet of pictures with Ray Data and a tipserve.

    python classify.py --server HOST:50051 --cache pets --input pictures/ --output labels/
    python classify.py --server HOST:50051 --cache pets --input 's3://bucket/pets.parquet' \
        --picture-column image --output labels/ --workers 16

Ray reads and writes, spreads the work over its cluster and repeats what a lost node had; the
server does the arithmetic. Each worker holds one connection. The output is Parquet: `id` (the
file's path, or the id column), `label`, `score`, `version`, `error`, `worker`. A picture that
cannot be classified is a row with `error`, not the end of the job.
"""

from __future__ import annotations

import argparse
from typing import Any

import pyarrow as pa
import ray
import tipserve

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("version", pa.int64()),
        ("error", pa.string()),
        ("worker", pa.string()),
    ]
)


class Classify:
    """A Ray actor: one connection, used for block after block."""

    def __init__(self, server: str, cache: str, picture: str, id: str, token: str | None) -> None:
        # Patient: a job of hours outlives a restart of the server.
        retry = tipserve.RetryPolicy(attempts=30, max_delay=30.0)
        self.client = tipserve.Client(server, token=token, retry=retry, wait=60)
        # Pinned: were "pets@stable" moved during the job, the output would be of two classifiers.
        self.version = self.client.version(cache)
        self.picture, self.id = picture, id
        self.worker = ray.get_runtime_context().get_actor_id()

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = [str(id) for id in batch.column(self.id).to_pylist()]
        items = (tipserve.Item(content(one)) for one in batch.column(self.picture).to_pylist())
        rows = [
            self.row(id, result)
            for id, result in zip(
                ids,
                # Bulk work gives way to callers who wait for their answer.
                self.client.classify(self.version.name, items, top_k=1, priority="bulk"),
                strict=True,
            )
        ]
        return pa.Table.from_pylist(rows, SCHEMA)

    def row(self, id: str, result: tipserve.Result) -> dict[str, Any]:
        """A row of the output."""
        known = {"id": id, "version": self.version.version, "worker": self.worker}
        if result.error is not None:
            return known | {"error": f"{result.error.reason}: {result.error.message}"}
        return known | {"label": result.best.display_name, "score": result.best.probability}


def content(cell: Any) -> Any:
    """A picture's bytes: of a binary column, or of Hugging Face's {bytes, path}."""
    if isinstance(cell, dict):
        cell = cell["bytes"] or cell["path"]
    # An absent picture is the server's to refuse, by its reason.
    return b"" if cell is None else cell


def read(path: str, picture: str, id: str) -> tuple[ray.data.Dataset, str, str]:
    """The pictures of a folder or of Parquet files, and the names of their columns."""
    if path.rstrip("/").endswith(".parquet"):
        return ray.data.read_parquet(path, columns=list({picture, id})), picture, id
    return ray.data.read_binary_files(path, include_paths=True), "bytes", "path"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="127.0.0.1:50051", help="host:port")
    parser.add_argument("--token", help="a bearer token")
    parser.add_argument("--cache", required=True, help='"pets", "pets@7" or "pets@stable"')
    parser.add_argument("--input", required=True, help="a folder, or what ends in .parquet")
    parser.add_argument("--output", required=True, help="the folder to write Parquet to")
    parser.add_argument("--picture-column", default="image", help="of a Parquet (default: image)")
    parser.add_argument("--id-column", default="id", help="of a Parquet (default: id)")
    parser.add_argument("--workers", type=int, default=4, help="connections (default: 4)")
    parser.add_argument("--batch", type=int, default=256, help="pictures at a time (default: 256)")
    chosen = parser.parse_args(arguments)

    # Begin with all workers: one that cannot reach the server shows at once.
    ray.data.DataContext.get_current().wait_for_min_actors_s = 600
    pictures, picture, id = read(chosen.input, chosen.picture_column, chosen.id_column)
    pictures.map_batches(
        Classify,
        fn_constructor_args=(chosen.server, chosen.cache, picture, id, chosen.token),
        batch_size=chosen.batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=chosen.workers),
        # The work is the server's: a worker here waits most of the time.
        num_cpus=0.1,
    ).write_parquet(chosen.output)


if __name__ == "__main__":
    main()
