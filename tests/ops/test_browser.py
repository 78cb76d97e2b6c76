"""A real browser calls the server from a page of another origin: the page of examples/web."""

from __future__ import annotations

import base64
import http.server
import json
import queue
import threading
from pathlib import Path

import numpy as np
import pytest
import wire
from pictures import photo, png
from processes import Process, absent
from server_fixtures import Server
from wire import cache

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/web"
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
PATIENCE = 120

# Calls through the example's module and posts what came of it where it was loaded from.
PAGE = """<!doctype html>
<script type="module">
  import { classify } from "./tipserve.js";
  const { server, calls } = CALLS;
  const outcomes = [];
  for (const { cache, picture } of calls) {
    const bytes = Uint8Array.from(atob(picture), (c) => c.charCodeAt(0));
    try {
      outcomes.push(await classify(server, cache, bytes));
    } catch (error) {
      outcomes.push({ error: error.message, code: error.code ?? null });
    }
  }
  await fetch("/outcomes", { method: "POST", body: JSON.stringify(outcomes) });
</script>
"""


class Pages:
    """A web server for the example, on an origin of its own."""

    def __init__(self) -> None:
        self.outcomes = queue.Queue()
        self.page = ""
        pages = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/tipserve.js":
                    body, kind = (EXAMPLE / "tipserve.js").read_bytes(), "text/javascript"
                elif self.path == "/":
                    body, kind = pages.page.encode(), "text/html"
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(204)
                self.end_headers()
                pages.outcomes.put(json.loads(body))

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def pages():
    made = Pages()
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser(program) -> str:
    """The first browser of Chromium's family that is there."""
    import shutil

    for name in BROWSERS:
        if shutil.which(name):
            return name
    absent("no Chromium is installed (scripts/prerequisites-ops says how)")
    return ""


def visit(browser: str, pages: Pages, server: Server, calls: list, folder: Path) -> list:
    """What a page makes of calls: each an answer or an error."""
    calls = [{"cache": name, "picture": base64.b64encode(data).decode()} for name, data in calls]
    told = json.dumps({"server": f"http://{server.address}", "calls": calls})
    pages.page = PAGE.replace("CALLS", told)
    command = [
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", f"--user-data-dir={folder / 'profile'}", f"{pages.origin}/"),
    ]
    with Process(folder / "browser.log", command, lambda: True) as running:
        try:
            return pages.outcomes.get(timeout=PATIENCE)
        except queue.Empty:
            pytest.fail(running.tail())


def test_a_page_classifies_pictures(browser, pages, tiny_bundle, tmp_path, chance, name):
    server = Server(
        tiny_bundle, tmp_path / "store", "--dtype", "float32", "--web-origins", pages.origin
    )
    try:
        names = ["ash", "oak", "føhre"]
        examples = [wire.example(i % 3, wire.encoded(png(photo(chance, i % 3)))) for i in range(9)]
        spec = cache.CacheSpec(
            cache_id=name, classes=wire.classes(names), method=cache.METHOD_CLASS_MEAN
        )
        server.api.create(spec, examples)
        files = [png(photo(chance, i)) for i in range(3)]
        calls = [*((name, file) for file in files), ("there-is-none", files[0]), (name, b"no")]
        *answers, missing, broken = visit(browser, pages, server, calls, tmp_path)
        for file, answer in zip(files, answers, strict=True):
            expected = server.api.one(name, wire.encoded(file))
            assert answer["version"] == expected.version
            assert [(s["index"], s["name"]) for s in answer["top"]] == [
                (s.index, s.display_name) for s in expected.top
            ]
            np.testing.assert_array_equal(
                np.float32([s["logit"] for s in answer["top"]]),
                np.float32([s.logit for s in expected.top]),
            )
        assert missing["code"] == 5
        assert "there-is-none" in missing["error"]
        assert broken["code"] == 3
    finally:
        server.close()


def test_a_page_that_is_not_allowed_hears_nothing(browser, pages, features_bundle, tmp_path, name):
    server = Server(
        features_bundle, tmp_path / "store", "--web-origins", "https://pages.example.org"
    )
    try:
        before = server.metrics()
        (outcome,) = visit(browser, pages, server, [(name, b"x")], tmp_path)
        # The browser's own word for it; no status, no text of the server's.
        assert outcome == {"error": "Failed to fetch", "code": None}
        after = server.metrics()
        calls = {k for k in after if k.startswith("tipserve_requests_total")}
        assert all(after[k] == before.get(k, 0) for k in calls)
    finally:
        server.close()
