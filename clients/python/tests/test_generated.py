"""The committed generated code says what it is generated from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_generated_code_is_up_to_date():
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    if not (ROOT.parents[1] / "proto").is_dir():
        pytest.skip("not in the repository: there are no protos to compare with")
    done = subprocess.run(
        [sys.executable, str(ROOT / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """generate.py's own modules can be imported."""
    monkeypatch.syspath_prepend(ROOT)


def test_the_blocking_client_is_the_asyncio_one_rewritten(monkeypatch, tmp_path):
    import blocking

    assert blocking.outdated() == [], "run: python clients/python/generate.py --blocking"
    # It sees a change on either side.
    monkeypatch.setattr(blocking, "OUT", tmp_path)
    blocking.write()
    (tmp_path / "client.py").write_text("x = 1\n")
    (tmp_path / "more.py").write_text("")
    assert blocking.outdated() == ["_sync/client.py", "_sync/more.py"]


def test_nothing_of_asyncio_is_left_in_the_blocking_client():
    for path in (ROOT / "src" / "tipserve" / "_sync").glob("*.py"):
        text = path.read_text()
        for word in ("await ", "async ", "Async", "__a", "_tasks"):
            assert word not in text.split("\n", 1)[1].replace("asyncio", ""), (path.name, word)


def test_every_phrase_of_one_client_alone_is_still_there():
    import blocking

    source = "".join(path.read_text() for path in blocking.SOURCE.glob("*.py"))
    assert all(source.count(phrase) == 1 for phrase in blocking.PHRASES)


def test_both_clients_have_the_same_methods():
    """Every public name, with the same parameters and defaults."""
    import inspect

    import tipserve

    def face(kind):
        return {
            name: inspect.signature(member).replace(return_annotation=None)
            if callable(member)
            else None
            for name, member in inspect.getmembers(kind)
            if not name.startswith("_")
        }

    for blocking, awaited in (
        (tipserve.Client, tipserve.AsyncClient),
        (tipserve.FineTune, tipserve.AsyncFineTune),
    ):
        assert face(blocking) == face(awaited)
