"""`tipserve demo` with a server of its own, as `make demo` runs it."""

from __future__ import annotations

import json
import subprocess

from conftest import BINARY
from pictures import photo, png


def demo(bundle, folder, chance, *flags) -> str:
    """What the demo of two classes prints, with six pictures to classify."""
    for kind, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        for at in range(8):
            (folder / name / f"{at}.png").write_bytes(png(photo(chance, kind)))
    given = ["--bundle", bundle, "--data", folder, "--shots", "2", "--pictures", "6"]
    command = [BINARY, *flags, "demo", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_speed_is_of_pictures_that_the_server_has_not_seen(tiny_bundle, tmp_path, chance):
    """A picture that was just encoded is answered from memory, fifty times as fast."""
    report = json.loads(demo(tiny_bundle, tmp_path, chance, "--json"))
    assert report["test_count"] == 6
    assert [report[how]["pictures"] for how in ("alone", "stream")] == [3, 3]


def test_the_demo_ends_by_saying_which_page_to_open(tiny_bundle, tmp_path, chance):
    printed = demo(tiny_bundle, tmp_path, chance)
    *_, last = printed.rstrip().splitlines()
    assert last.startswith("the same in a browser") and last.endswith(" http://127.0.0.1:50051/")
    assert f"tipserve serve --bundle {tiny_bundle}\n" in printed
    # That is where a server that is told nothing else listens.
    usage = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True)
    assert "127.0.0.1:50051" in usage.stdout
