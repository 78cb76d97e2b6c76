"""`tipserve demo` with a server of its own, as `make demo` runs it."""

from __future__ import annotations

import subprocess

from conftest import BINARY
from pictures import photo, png


def test_the_demo_ends_by_saying_which_page_to_open(tiny_bundle, tmp_path, chance):
    for kind, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for at in range(8):
            (tmp_path / "data" / name / f"{at}.png").write_bytes(png(photo(chance, kind)))
    flags = ["--bundle", tiny_bundle, "--data", tmp_path / "data", "--shots", "2"]
    command = [BINARY, "demo", *flags, "--pictures", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.rstrip().splitlines()
    assert last.startswith("the same in a browser") and last.endswith(" http://127.0.0.1:50051/")
    assert f"tipserve serve --bundle {tiny_bundle}\n" in done.stdout
    # That is where a server that is told nothing else listens.
    usage = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True)
    assert "127.0.0.1:50051" in usage.stdout
