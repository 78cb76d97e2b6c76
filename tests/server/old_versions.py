"""Versions as an older tipserve wrote them: changed on disk, and sealed again."""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save


def age(store: Path, version: str) -> None:
    """Makes a version one from before EXIF orientation and Unicode's forms were looked at.

    Its names are in NFD, as macOS wrote them. The server must not have loaded it yet.
    """
    cache, number = version.split("/")[1::2]
    folder = store / f"caches/{cache}/versions/{int(number):08}"
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"], manifest["exif_orientation"]
    for one in manifest["classes"]:
        one["display_name"] = unicodedata.normalize("NFD", one["display_name"])

    file = folder / manifest["tensors"]["name"]
    tensors = load_file(file)
    offsets, text = tensors["example_ids.offsets"], tensors["example_ids.bytes"].tobytes()
    ids = [text[a:b].decode() for a, b in itertools.pairwise(offsets)]
    ids = [unicodedata.normalize("NFD", one).encode() for one in ids]
    tensors["example_ids.bytes"] = np.frombuffer(b"".join(ids), np.uint8)
    tensors["example_ids.offsets"] = np.cumsum([0, *map(len, ids)]).astype(np.int64)
    data = save(tensors)
    file.write_bytes(data)
    manifest["tensors"] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    body = json.dumps(manifest, indent=2)[: -len("\n}")].encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    (folder / "manifest.json").write_bytes(body + b',\n  "checksum": "' + digest + b'"\n}\n')
