"""Bytes that are not those that were written: refused by name, and everything else serves."""

from __future__ import annotations

import os
import re
import urllib.request
from pathlib import Path

import contents
import grpc
import pytest
import wire
from conftest import eventually
from contents import Content, listed
from wire import Problem, cache

FILES = ("manifest", "tensors", "state")
KEPT = Content.of(5)


class Folder:
    """The objects of a store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        return [str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file()]

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """A new file under the name: none is changed in place."""
        there, new = self.root / name, self.root / "new"
        new.write_bytes(data)
        os.replace(new, there)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()


class Bucket:
    """The objects of a store in a bucket that lets everybody in."""

    def __init__(self, s3, prefix: str) -> None:
        self.base, self.prefix = f"{s3.endpoint}/{s3.bucket}", prefix

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.base}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def names(self) -> list[str]:
        page = self._ask("GET", f"?list-type=2&max-keys=1000&prefix={self.prefix}/").decode()
        assert "<IsTruncated>true" not in page
        return re.findall(rf"<Key>{self.prefix}/([^<]+)</Key>", page)

    def read(self, name: str) -> bytes:
        return self._ask("GET", f"/{self.prefix}/{name}")

    def write(self, name: str, data: bytes) -> None:
        self._ask("PUT", f"/{self.prefix}/{name}", data)

    def remove(self, name: str) -> None:
        self._ask("DELETE", f"/{self.prefix}/{name}")


def flips(chance, data: bytes) -> dict[str, bytes]:
    """One bit turned over in every region."""
    size = len(data)
    places = {"first": 0, "eighth": 7, "header": 40, "last": size - 1, "checksum": size - 20}
    places |= {f"place {n}": int(chance.integers(size)) for n in range(4)}
    made = {}
    for what, place in places.items():
        changed = bytearray(data)
        bit = int(chance.integers(8))
        changed[place] ^= 1 << bit
        made[f"bit {bit} of the {what} byte ({place} of {size})"] = bytes(changed)
    return made


def cuts(chance, data: bytes) -> dict[str, bytes | None]:
    """Too short, too long, zeroed, empty, gone."""
    size = len(data)
    half = int(chance.integers(1, size - 1))
    return {
        "one byte short": data[:-1],
        f"cut to {half}": data[:half],
        "its first byte missing": data[1:],
        "one byte long": data + b"\0",
        "a page of zeros": bytes(min(size, 4096)) + data[4096:],
        "empty": b"",
        "gone": None,
    }


def object_of(store, cache_id: str, file: str) -> str:
    """The path of a cache's first version's file, or of its newest state record."""
    pattern = {
        "manifest": r"versions/00000001/manifest\.json",
        "tensors": r"versions/00000001/tensors-\w+\.safetensors",
        "state": r"state/\d+\.json",
    }[file]
    found = [n for n in store.names() if re.fullmatch(f"caches/{cache_id}/{pattern}", n)]
    return max(found)


def problem_of(api, reference) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        contents.served(api, reference)
    return Problem.of_call(caught.value)


def assert_refused(api, cache_id, reference, why) -> Problem:
    problem = problem_of(api, reference)
    assert (problem.code, problem.reason) == (grpc.StatusCode.DATA_LOSS, "DAMAGED"), (why, problem)
    assert f"caches/{cache_id}" in problem.message, (why, problem)
    assert problem.metadata["resource"].startswith(f"caches/{cache_id}"), (why, problem)
    return problem


@pytest.mark.parametrize("where", ["folder", "s3"])
@pytest.mark.parametrize("file", FILES)
def test_every_region_of_every_file(
    request, serve, features_bundle, tmp_path, chance, name, where, file
):
    if where == "folder":
        server = serve(features_bundle, store=tmp_path / "store")
        store = Folder(tmp_path / "store")
    else:
        s3 = request.getfixturevalue("shared_s3")
        server = serve(features_bundle, store=s3.url(name), env=s3.environment)
        store = Bucket(s3, name)
    KEPT.make(server.api, "whole")
    # One cache for each way; all are damaged before a server reads any.
    damages = {}
    for number in range(16 if where == "folder" else 4):
        cache_id = f"c{number}"
        for _ in range(2):
            KEPT.make(server.api, cache_id)
        contents.set_alias(server.api, cache_id, "stable", 1)
        path = object_of(store, cache_id, file)
        data = store.read(path)
        ways = flips(chance, data) | cuts(chance, data)
        if file == "state":
            del ways["gone"]  # then there was no alias, ever: what is not listed is not there
        names = list(ways)
        why = names[number % len(names)] if where == "folder" else str(chance.choice(names))
        damages[cache_id] = why, path, data, ways[why]
    server.kill()
    for _, path, _, damaged in damages.values():
        if damaged is None:
            store.remove(path)
        else:
            store.write(path, damaged)
    server.start()
    api = server.api
    for cache_id, (why, path, data, _) in damages.items():
        print(cache_id, path, why)
        references = [f"{cache_id}@1", f"{cache_id}@stable"]
        references += [cache_id, f"{cache_id}@2"] if file == "state" else []
        for reference in references:
            first = assert_refused(api, cache_id, reference, why)
            again = assert_refused(api, cache_id, reference, why)
            assert first.message == again.message
        if file != "state":
            assert_the_rest_serves(api, cache_id)
        KEPT.serves_at(api, "whole")
        # A whole file put in its place is noticed, with nothing restarted.
        store.write(path, data)
        for reference in (f"{cache_id}@1", f"{cache_id}@stable", cache_id):
            serves_soon(api, reference)
    assert set(api.ids()) >= {"caches/whole"} | {f"caches/{one}" for one in damages}


def assert_the_rest_serves(api, cache_id) -> None:
    """The cache's other version serves, and the cache is listed."""
    KEPT.serves_at(api, f"{cache_id}@2")
    KEPT.serves_at(api, cache_id)
    assert 2 in listed(api, cache_id)
    assert f"caches/{cache_id}" in api.ids()


def serves_soon(api, reference) -> None:
    def serves() -> bool:
        try:
            KEPT.serves_at(api, reference)
        except grpc.RpcError:
            return False
        return True

    eventually(serves, 20)


def test_a_damaged_cache_can_be_deleted_and_made_again(serve, features_bundle, tmp_path, chance):
    server = serve(features_bundle, store=tmp_path / "store")
    store = Folder(tmp_path / "store")
    for file in FILES:
        KEPT.make(server.api, file)
        contents.set_alias(server.api, file, "stable", 1)
    server.kill()
    for file in FILES:
        path = object_of(store, file, file)
        store.write(path, next(iter(flips(chance, store.read(path)).values())))
    server.start()
    for file in FILES:
        assert_refused(server.api, file, f"{file}@stable", file)
        server.api.caches.DeleteCache(cache.DeleteCacheRequest(name=file), timeout=wire.LIMIT)
        assert listed(server.api, file) == {}
        assert KEPT.make(server.api, file).version > 1, "numbers go on"
        KEPT.serves_at(server.api, file)


def test_what_is_resident_goes_on_over_damage(serve, features_bundle, tmp_path, chance):
    server = serve(features_bundle, store=tmp_path / "store")
    store = Folder(tmp_path / "store")
    for name in ("resident", "bystander"):
        KEPT.make(server.api, name)
        KEPT.serves_at(server.api, name)
    path = object_of(store, "resident", "tensors")
    store.write(path, next(iter(flips(chance, store.read(path)).values())))
    for name in ("resident", "bystander"):
        KEPT.serves_at(server.api, name)
    # What reads the file again says so: FineTune trains on what is stored.
    with pytest.raises(grpc.RpcError) as caught:
        list(
            server.api.tuning.FineTune(
                wire.finetune.FineTuneRequest(cache="resident", epochs=1), timeout=wire.LIMIT
            )
        )
    problem = Problem.of_call(caught.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.DATA_LOSS, "DAMAGED")
    KEPT.serves_at(server.api, "resident")
