"""A store copied by `cp` under running servers is a store, as docs/operations.md says."""

from __future__ import annotations

import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import contents
import reader
from conftest import eventually
from contents import Content

VANISHED = re.compile(r"#\d+': No such file or directory$")


def copy(store, backup) -> None:
    done = subprocess.run(
        ["cp", "-a", f"{store}/.", backup], capture_output=True, text=True, timeout=120
    )
    # A write in progress has its final name by the time that `cp` looks for it.
    complaints = [line for line in done.stderr.splitlines() if not VANISHED.search(line)]
    assert not complaints, done.stderr
    assert done.returncode == (1 if done.stderr else 0)


def test_a_copy_of_a_running_servers_folder(serve, features_bundle, tmp_path, chance):
    server = serve(features_bundle, store=tmp_path / "store")
    made, stop = {}, threading.Event()

    def write(name, own):
        while not stop.is_set():
            content = Content.drawn_by(own)
            version = content.make(server.api, name).version
            contents.set_alias(server.api, name, "stable", version)
            made[name, version] = content

    backup = tmp_path / "backup"
    backup.mkdir()
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, "ab"[n], own) for n, own in enumerate(chance.spawn(2))]
        try:
            eventually(lambda: len(made) > 10)
            before = dict(made)
            copy(server.store, backup)
        finally:
            stop.set()
        for writer in writers:
            writer.result()
    copy(server.store, backup)
    assert reader.store(backup) == reader.store(server.store)
    restored = serve(features_bundle, store=backup)
    assert before.keys() <= made.keys() and len(made) > len(before)
    for (name, version), content in made.items():
        content.serves_at(restored.api, f"{name}@{version}")
    for name in "ab":
        newest = max(version for one, version in made if one == name)
        assert contents.aliases_of(restored.api, name) == {"stable": newest}
        assert Content.drawn_by(chance).make(restored.api, name).version == newest + 1
