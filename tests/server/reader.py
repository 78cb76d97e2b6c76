"""Reads a local store as docs/storage.md describes it, with no code of tipserve's."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

END = re.compile(rb',\n  "checksum": "([0-9a-f]{64})"\n}\n\Z')


def unsealed(path: Path) -> dict:
    """A sealed JSON file's object; AssertionError where it is damaged."""
    text = path.read_bytes()
    end = END.search(text)
    assert end, f"{path} does not end in a checksum"
    assert hashlib.sha256(text[: end.start()]).hexdigest() == end[1].decode(), path
    document = json.loads(text)
    assert document["format"] == 1, path
    return document


def state(cache: Path) -> dict:
    """A cache's newest state record."""
    records = sorted((cache / "state").glob("[0-9]*.json"))
    if not records:
        return {"aliases": {}, "deleted": []}
    record = unsealed(records[-1])
    assert record["cache"] == cache.name and f"{record['sequence']:08}" == records[-1].stem
    return record


def versions(cache: Path) -> dict[int, dict]:
    """Manifests of the versions that exist, every byte of their tensors checked."""
    gone = [range(first, last + 1) for first, last in state(cache)["deleted"]]
    found = {}
    for path in sorted(cache.glob("versions/[0-9]*/manifest.json")):
        number = int(path.parent.name)
        if any(number in numbers for numbers in gone):
            continue
        manifest = unsealed(path)
        assert (manifest["cache"], manifest["version"]) == (cache.name, number), path
        record = manifest["tensors"]
        data = (path.parent / record["name"]).read_bytes()
        assert len(data) == record["size"], path
        assert hashlib.sha256(data).hexdigest() == record["sha256"], path
        found[number] = manifest
    return found


def store(folder: Path) -> dict[str, tuple[dict[int, str], dict[str, int]]]:
    """Every cache that exists: descriptions by version, and where its aliases point."""
    found = {}
    for cache in sorted(folder.glob("caches/*")):
        there = versions(cache)
        if there:
            aliases = {name: to["version"] for name, to in state(cache)["aliases"].items()}
            assert set(aliases.values()) <= set(there), cache
            found[cache.name] = ({n: m["description"] for n, m in there.items()}, aliases)
    return found
