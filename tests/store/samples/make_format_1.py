"""Writes the kept sample of format 1 from docs/storage.md alone.

Kept as it was made: a later format gets a sample of its own beside this one.
Run with a Python that has numpy and safetensors.
"""

import hashlib
import json
import pathlib

import numpy as np
from safetensors.numpy import save

HERE = pathlib.Path(__file__).parent / "format-1" / "caches" / "kept"


def seal(path: pathlib.Path, value: dict) -> None:
    body = json.dumps(value, indent=2)[: -len("\n}")].encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body + b',\n  "checksum": "' + digest + b'"\n}\n')


def version(number: int) -> None:
    ids = ["one.jpg", "two.jpg"]
    texts = "".join(ids).encode()
    eye = np.eye(2, dtype=np.float32)
    data = save(
        {
            "keys": eye,
            "labels": np.array([0, 1], dtype=np.int64),
            "views": eye.astype(np.float16)[:, None, :],
            "head.linear": 100 * eye,
            "head.weight": np.full(2, 1.5, dtype=np.float32),
            "example_ids.bytes": np.frombuffer(texts, dtype=np.uint8),
            "example_ids.offsets": np.array([0, 7, 14], dtype=np.int64),
        }
    )
    folder = HERE / "versions" / f"{number:08d}"
    name = f"tensors-{number:032x}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    manifest = {
        "format": 1,
        "cache": "kept",
        "version": number,
        "create_time": "2026-01-02T03:04:05Z",
        "created_by": "make_format_1.py",
        "parent": f"caches/kept/versions/{number - 1}",
        "description": "kept sample",
        "labels": {"kind": "sample"},
        "classes": [
            {"display_name": "one", "example_count": 1},
            {
                "display_name": "two",
                "example_count": 1,
                "validation_count": 0,
                "prompts": ["a two."],
            },
        ],
        "width": 2,
        "key_count": 2,
        "views": 1,
        "bundle_fingerprint": "0" * 64,
        "bundle_name": "sample",
        "head": {
            "method": "tip_adapter",
            "alpha": 1.5,
            "beta": 5.5,
            "lambda": 0.0,
            "logit_scale": 100.0,
            "class_balance": "sum",
            "temperature": 1.0,
            "key_dtype": "f32",
            "selection": {
                "source": "given",
                "example_count": 0,
                "score": "none",
                "grid": "none",
                "candidates": [],
                "reason": "given by the caller",
            },
        },
        "tensors": {
            "name": name,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        },
    }
    seal(folder / "manifest.json", manifest)


def state(sequence: int, change: str, deleted: list, aliases: dict) -> None:
    record = {
        "format": 1,
        "cache": "kept",
        "sequence": sequence,
        "nonce": f"{sequence:032x}",
        "time": "2026-01-02T03:04:06Z",
        "change": change,
        "deleted": deleted,
        "aliases": aliases,
    }
    seal(HERE / "state" / f"{sequence:08d}.json", record)


stable = {"stable": {"version": 2, "changed": 1}}
version(2)
version(3)
state(1, "alias stable set to version 2", [], stable)
state(2, "version 1 deleted", [[1, 1]], stable)
