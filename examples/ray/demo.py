"""Runs classify.py for real, on a Ray of this machine: `make example-ray`.

Starts a server, makes a cache, classifies the same pictures from a folder and from Parquet with
three workers, and checks what came out: a row for every picture, the same label both ways,
several workers at work, the broken picture reported.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import tipserve

HERE = Path(__file__).resolve().parent
SHOTS, WORKERS, FILES = 16, 3, 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, required=True, help="the server")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="one folder a class")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tipserve-ray-"))
    command = [
        *(chosen.binary, "serve", "--bundle", chosen.bundle, "--store", folder / "store"),
        *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        found = re.match(r"tipserve: serving on (\S+)", line)
        if found is None:
            print(f"the server did not start: {line!r}", file=sys.stderr)
            return 1
        return run(found[1], chosen.data, folder)
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def run(server: str, data: Path, folder: Path) -> int:
    """The example itself, against a server that runs."""
    # pictures/CLASS__NAME.jpg: none of them an example of the cache.
    pictures = folder / "pictures"
    pictures.mkdir()
    train = folder / "train"
    for group in sorted(path for path in data.iterdir() if path.is_dir()):
        files = sorted(path for path in group.iterdir() if path.is_file())
        (train / group.name).mkdir(parents=True)
        for file in files[:SHOTS]:
            shutil.copy(file, train / group.name)
        for file in files[SHOTS : SHOTS + FILES]:
            shutil.copy(file, pictures / f"{group.name}__{file.name}")
    (pictures / "broken.jpg").write_bytes(b"this is no picture")
    names = sorted(path.name for path in pictures.iterdir())

    with tipserve.Client(server) as client:
        version = client.create_cache("textile", train)
        print(f"made {version.name}: {version.head.method}")
    table = pa.table(
        {"id": names, "image": [(pictures / name).read_bytes() for name in names]},
    )
    parquet.write_table(table, folder / "pictures.parquet", row_group_size=32)

    outputs = {}
    for source in (pictures, folder / "pictures.parquet"):
        output = folder / f"labels-{source.suffix or 'folder'}"
        print(f"== {source.name} with {WORKERS} workers", flush=True)
        subprocess.run(
            [
                *(sys.executable, HERE / "classify.py", "--server", server, "--cache", "textile"),
                *("--input", source, "--output", output),
                *("--workers", str(WORKERS), "--batch", "8"),
            ],
            check=True,
            timeout=600,
            # Ray tells its makers nothing about this machine.
            env=os.environ
            | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"},
        )
        outputs[source.name] = parquet.read_table(output).to_pylist()
    return check(outputs, names)


def check(outputs: dict[str, list[dict]], names: list[str]) -> int:
    """Prints what came out; 1 where something is not as it must be."""
    wrong = []
    labels = {}
    for source, rows in outputs.items():
        by_name = {Path(row["id"]).name: row for row in rows}
        if sorted(by_name) != names or len(rows) != len(names):
            wrong.append(f"{source}: {len(rows)} rows for {len(names)} pictures")
        errors = {name: row["error"] for name, row in by_name.items() if row["error"]}
        if set(errors) != {"broken.jpg"}:
            wrong.append(f"{source}: errors {errors}")
        workers = collections.Counter(row["worker"] for row in rows)
        if len(workers) < 2:
            wrong.append(f"{source}: one worker did everything")
        labels[source] = {name: row["label"] for name, row in by_name.items()}
        right = sum(
            str(row["label"]).replace(" ", "_") == name.split("__")[0].replace(" ", "_")
            for name, row in by_name.items()
        )
        print(f"{source}: {len(rows)} rows, {right} right, {len(errors)} error; {dict(workers)}")
        print(f"    broken.jpg: {errors.get('broken.jpg')}")
    first, second = labels.values()
    if first != second:
        wrong.append("folder and Parquet give other labels")
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
