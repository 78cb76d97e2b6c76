"""Fixtures of the tests that need system packages: Prometheus, HAProxy, helm and so on.

`make test-ops` says what is missing. A test whose program is absent is skipped, or fails where
TIPSERVE_OPS_STRICT is set, as CI and `make test-ops` do.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _server_fixtures():
    """tests/server/conftest.py, under another name: pytest has one `conftest` at a time."""
    path = ROOT / "tests/server/conftest.py"
    spec = importlib.util.spec_from_file_location("server_fixtures", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["server_fixtures"] = module
    spec.loader.exec_module(module)
    return module


server_fixtures = _server_fixtures()

# tests/server/tokens.py takes it from its own conftest.
BINARY = server_fixtures.BINARY

from browser import BROWSERS, DEMO, Page  # noqa: E402
from processes import absent  # noqa: E402
from tokens import TokensFile  # noqa: E402

built = server_fixtures.built
bundles = server_fixtures.bundles
features_bundle = server_fixtures.features_bundle
tiny_bundle = server_fixtures.tiny_bundle
serve = server_fixtures.serve
seed = server_fixtures.seed
chance = server_fixtures.chance
name = server_fixtures.name


@pytest.fixture(scope="session")
def program():
    """Finds a program of another project: `program("haproxy")`; skips or fails without it."""

    def find(what: str) -> str:
        # Debian keeps servers where an ordinary user's path does not lead, and Go its programs.
        go = os.environ.get("GOBIN") or Path(os.environ.get("GOPATH", Path.home() / "go"), "bin")
        places = [os.environ.get("PATH", ""), "/usr/sbin", Path(sys.executable).parent, go]
        path = os.pathsep.join(map(str, places))
        found = shutil.which(what, path=path)
        if found is None:
            absent(f"{what} is not installed (scripts/prerequisites-ops says how)")
        return found

    return find


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, driven by Playwright."""
    found = next((shutil.which(name) for name in BROWSERS if shutil.which(name)), None)
    if found is None:
        absent("no Chromium is installed (scripts/prerequisites-ops says how)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        # A camera that shows a test picture, and nobody who is asked whether it may be used.
        flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = driver.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens tabs, and closes them."""
    opened = []

    def start(server, **rest) -> Page:
        opened.append(Page(chromium, server, **rest))
        return opened[-1]

    yield start
    for page in opened:
        page.close()


@pytest.fixture
def guarded(tiny_bundle, tmp_path):
    """A server with tokens, with the demo's bundle if it was made."""
    file = TokensFile(tmp_path)
    file.add("weaver", "admin")
    file.add("viewer", "classify")
    bundle = DEMO if (DEMO / "bundle.toml").is_file() else tiny_bundle
    server = server_fixtures.Server(
        bundle, tmp_path / "store", "--tokens", str(file.path), "--reload-seconds", "1"
    )
    server.tokens = file
    yield server
    server.close()
