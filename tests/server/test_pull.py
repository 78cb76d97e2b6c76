"""`tipserve pull` against a real HTTP server that cuts, lies, refuses and is slow."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import BINARY
from disks import Disk

SIZE = 3 << 20


class Web(http.server.ThreadingHTTPServer):
    """Files by path, with ranges; `trouble` may answer instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.trouble = lambda handler, data, start: False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ranges(self, name: str) -> list[str | None]:
        return [header for path, header in self.asked if path.endswith(name)]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        header = self.headers.get("Range")
        self.server.asked.append((self.path, header))
        data = self.server.files.get(self.path)
        if data is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", header)[1]) if header else 0
        if self.server.trouble(self, data, start):
            return None
        if start >= len(data) > 0 and header:
            return self.send_error(416)
        self.begin(data, start)
        self.wfile.write(data[start:])

    def begin(self, data: bytes, start: int) -> None:
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Web]:
    server = Web()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def web():
    with serving() as server:
        yield server


def publish(web: Web, folder: str, chance) -> tuple[str, dict[str, bytes]]:
    """A bundle at a folder of the server: its fingerprint, and its files."""
    files = {"image.pt": chance.bytes(SIZE), "text.pt": chance.bytes(1000)}
    rows = "".join(f'"{n}" = "{hashlib.sha256(d).hexdigest()}"\n' for n, d in files.items())
    files["bundle.toml"] = f'format = 1\nname = "some vit"\nwidth = 4\n[files]\n{rows}'.encode()
    web.files |= {f"{folder}/{name}": data for name, data in files.items()}
    return hashlib.sha256(files["bundle.toml"]).hexdigest(), files


class Pull:
    """The command with a cache of its own."""

    def __init__(self, cache: Path, within=(), **env: str) -> None:
        self.cache, self.within = cache, within
        self.env = os.environ | {"TIPSERVE_CACHE": str(cache), "no_proxy": "*"} | env

    def start(self, *arguments) -> subprocess.Popen:
        command = [*self.within, BINARY, "--json", "pull", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __call__(self, *arguments, code: int = 0):
        running = self.start(*arguments)
        out, err = running.communicate(timeout=120)
        assert running.returncode == code, (running.returncode, out, err)
        document = json.loads(out)
        return document if code == 0 else document["error"]["message"]


@pytest.fixture
def pull(tmp_path) -> Pull:
    return Pull(tmp_path / "cache")


def holds(folder, files) -> bool:
    found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return found == files


def test_a_bundle_is_fetched_once_and_kept_by_its_content(web, pull, chance, tmp_path):
    sha256, files = publish(web, "/m/vit", chance)
    first = pull(f"{web.url}/m/vit")
    assert (first["name"], first["sha256"]) == ("some vit", sha256)
    assert first["size_bytes"] == sum(map(len, files.values()))
    assert first["downloaded_bytes"] == SIZE + 1000 and holds(first["path"], files)
    # By another address it is the same, and its files are here.
    web.files |= {path.replace("/m/", "/n/"): data for path, data in web.files.items()}
    again = pull(f"{web.url}/n/vit/bundle.toml", "--to", tmp_path / "mine")
    assert again["downloaded_bytes"] == 0 and holds(tmp_path / "mine", files)
    assert "name a new folder" in pull(f"{web.url}/m/vit", "--to", tmp_path / "mine", code=1)
    # Pinned and here: no server is asked.
    web.asked.clear()
    pinned = pull(f"{web.url}/m/vit", "--sha256", sha256)
    assert pinned["path"] == first["path"] and web.asked == []


def test_what_was_cut_off_goes_on_where_it_ended(web, pull, chance):
    _, files = publish(web, "/vit", chance)
    cuts = iter([1, 700_000, 2_000_000])

    def cut(handler, data, start):
        at = next(cuts, None) if len(data) == SIZE else None
        if at is None:
            return False
        handler.begin(data, start)
        handler.wfile.write(data[start : start + at])
        handler.wfile.flush()
        handler.connection.close()
        return True

    web.trouble = cut
    made = pull(f"{web.url}/vit")
    assert holds(made["path"], files) and made["downloaded_bytes"] == SIZE + 1000
    ranges = web.ranges("image.pt")
    assert ranges == [None, "bytes=1-", "bytes=700001-", "bytes=2700001-"]


def test_a_killed_pull_goes_on_in_the_next(web, pull, chance):
    _, files = publish(web, "/vit", chance)
    half, go = threading.Event(), threading.Event()

    def stall(handler, data, start):
        if len(data) != SIZE or start:
            return False
        handler.begin(data, 0)
        handler.wfile.write(data[: SIZE // 2])
        handler.wfile.flush()
        half.set()
        go.wait(60)
        return True

    web.trouble = stall
    running = pull.start(f"{web.url}/vit")
    assert half.wait(60)
    part = pull.cache / "files" / (hashlib.sha256(files["image.pt"]).hexdigest() + ".part")
    while part.stat().st_size < SIZE // 2:
        pass
    running.kill()
    running.wait()
    go.set()
    made = pull(f"{web.url}/vit")
    assert holds(made["path"], files) and made["downloaded_bytes"] == SIZE // 2 + 1000
    assert web.ranges("image.pt")[-1] == f"bytes={SIZE // 2}-"


@pytest.mark.parametrize("rest", ["other", "no ranges", "longer"])
def test_a_beginning_of_another_file_is_thrown_away(web, pull, chance, rest):
    _, files = publish(web, "/vit", chance)
    name = hashlib.sha256(files["image.pt"]).hexdigest() + ".part"
    (pull.cache / "files").mkdir(parents=True)
    stale = {"other": 1000, "no ranges": 1000, "longer": SIZE + 5}[rest]
    (pull.cache / "files" / name).write_bytes(chance.bytes(stale))

    def whole(handler, data, start):
        handler.begin(data, 0)
        handler.wfile.write(data)
        return True

    if rest == "no ranges":
        web.trouble = whole
    assert holds(pull(f"{web.url}/vit")["path"], files)


def test_wrong_bytes_are_refused_and_not_kept(web, pull, chance):
    sha256, files = publish(web, "/vit", chance)
    web.files["/vit/text.pt"] = chance.bytes(1000)
    message = pull(f"{web.url}/vit", code=1)
    assert "text.pt has the sha256" in message and "Nothing of it was kept" in message
    assert not list((pull.cache / "bundles").iterdir())
    assert not list((pull.cache / "files").glob("*.part"))
    # Another bundle.toml than the pinned one, too.
    other = "0" * 64
    assert f"not {other}" in pull(f"{web.url}/vit", "--sha256", other, code=1)
    web.files["/vit/text.pt"] = files["text.pt"]
    assert pull(f"{web.url}/vit", "--sha256", sha256)["downloaded_bytes"] == 1000


def test_two_at_once_fetch_it_once(web, pull, chance):
    _, files = publish(web, "/vit", chance)
    arrived, go = threading.Event(), threading.Event()

    def wait(handler, data, start):
        if len(data) == SIZE:
            arrived.set()
            go.wait(60)
        return False

    web.trouble = wait
    both = [pull.start(f"{web.url}/vit") for _ in range(2)]
    assert arrived.wait(60)
    go.set()
    made = [json.loads(one.communicate(timeout=120)[0]) for one in both]
    assert made[0]["path"] == made[1]["path"] and holds(made[0]["path"], files)
    assert sum(one["downloaded_bytes"] for one in made) == SIZE + 1000
    assert len(web.ranges("image.pt")) == 1


def test_a_full_disk_says_so_and_keeps_what_it_has(web, chance, tmp_path):
    publish(web, "/vit", chance)
    try:
        disk = Disk(tmp_path / "disk", "1m")
    except PermissionError as error:
        pytest.skip(str(error))
    pull = Pull(tmp_path / "disk/cache", disk.enter)
    message = pull(f"{web.url}/vit", code=1)
    assert "TIPSERVE_CACHE to a larger disk" in message, message
    assert [name for name in disk.files() if name.endswith(".part")]
    # With room it goes on from there.
    disk.resize("8m")
    made = pull(f"{web.url}/vit")
    assert 0 < made["downloaded_bytes"] < SIZE and disk.run("ls", made["path"])
    disk.close()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_says_which(web, pull, chance, status):
    publish(web, "/vit", chance)
    web.trouble = lambda handler, data, start: handler.send_error(status) or True
    message = pull(f"{web.url}/vit", code=3 if status == 404 else 1)
    assert str(status) in message
    tries = len(web.asked)
    assert tries == (5 if status == 500 else 1)


def test_no_network_says_what_to_do(pull):
    message = pull("http://127.0.0.1:9/vit", code=1)
    assert "cannot reach" in message and "copy the folder" in message


def test_the_hub_is_asked_for_a_revision(web, tmp_path, chance):
    publish(web, "/org/name/resolve/v2/sub", chance)
    pull = Pull(tmp_path / "cache", HF_ENDPOINT=web.url, HF_TOKEN="secret")
    made = pull("hf://org/name/sub@v2")
    assert made["address"] == "hf://org/name/sub@v2"
    assert web.asked[0][0] == "/org/name/resolve/v2/sub/bundle.toml"


def test_names_come_from_an_index(web, tmp_path, pull, chance):
    sha256, files = publish(web, "/vit", chance)
    index = (
        f'[bundles.mine]\naddress = "{web.url}/vit"\nsha256 = "{sha256}"\nlicence = "MIT"\n'
        'accuracy = "50 %"\n[bundles.theirs]\nlicence = "MIT"\naccuracy = "?"\ncommand = "make it"\n'
    )
    (tmp_path / "index.toml").write_text(index)
    web.files["/index.toml"] = index.encode()
    for where in (tmp_path / "index.toml", f"{web.url}/index.toml"):
        assert holds(pull("mine", "--index", where)["path"], files)
        assert "make it" in pull("theirs", "--index", where, code=3)
        assert "it names mine, theirs" in pull("none", "--index", where, code=3)
        assert set(pull("--list", "--index", where)) == {"mine", "theirs"}
    # The program's own names what can be made.
    assert "tipserve_export open-clip" in pull("vit-b-32", code=3)


def test_a_bundle_that_names_files_elsewhere_is_refused(web, pull):
    digest = "ab" * 32
    web.files["/vit/bundle.toml"] = f'name = "x"\n[files]\n"../x" = "{digest}"\n'.encode()
    assert "no name of a file in a bundle" in pull(f"{web.url}/vit", code=1)
    assert "http:// is taken of this machine only" in pull("http://example.org/x", code=2)
