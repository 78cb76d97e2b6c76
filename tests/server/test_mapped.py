"""Archives are mapped: their tensors are the file's pages, not copies of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/PID/maps")


def mapped(server, file: Path) -> bool:
    return str(file.resolve()) in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_what_runs_as_it_is_stored_stays_mapped(serve, tiny_bundle):
    # The text encoder: that of pictures may be fused, which lays weights out anew.
    assert mapped(serve(tiny_bundle, "--dtype", "float32"), tiny_bundle / "text.pt")


def test_what_is_converted_gives_the_mapping_back(serve, tiny_bundle):
    server = serve(tiny_bundle, "--dtype", "bfloat16")
    assert not mapped(server, tiny_bundle / "text.pt")
    assert not mapped(server, tiny_bundle / "image.pt")
