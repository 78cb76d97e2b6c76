"""What the README shows passes the strictest type checkers, as users run them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What the page has from before its snippets.
PREAMBLE = """\
from __future__ import annotations

from collections.abc import AsyncIterator

import tipserve


def pictures() -> AsyncIterator[bytes]:
    raise NotImplementedError


"""
BLOCKING = "def shown(client: tipserve.Client) -> None:\n"
WITH_ITS_OWN = "async def shown() -> None:\n"

# Ways to call that the page has no room for, and mistakes that a checker must find.
MORE = """\
import contextlib
import io
from pathlib import Path

import numpy as np
import PIL.Image

items: list[tipserve.Picture] = [Path("a.jpg"), b"", io.BytesIO(b""), PIL.Image.new("RGB", (1, 1))]
results = client.classify("pets", items)
with contextlib.closing(results) as answers:
    first: tipserve.Result = next(answers)
one: tipserve.Evaluation = client.evaluate("pets", {"cat": ["a.jpg"], "dog": "dogs/"})
many: list[tipserve.Evaluation] = client.evaluate(["a", "b"], [{"image": b"", "label": "cat"}])
client.create_cache("pets", [tipserve.Example("cat", np.zeros((2, 2, 3), np.uint8))])
client.embed([np.zeros(4, np.float32), [0.5, 0.5]], ["a cat"])
client.add_examples("pets", Path("more"), remove=["x"], on_progress=tipserve.ProgressBar())
with client.finetune("pets", epochs=3) as run:
    for progress in run:
        print(progress.epoch)
"""

WRONG = {
    'client.classify("pets", ["a.jpg"], priority="soon")': "priority",
    'client.classify_one("pets", "a.jpg", color="gbr")': "color",
    'tipserve.Client(resize="maybe")': "resize",
    'client.create_cache("pets", [tipserve.Example("cat")])': "picture",
    'client.evaluate("pets", "x").nothing': "nothing",
    'client.evaluate(["pets"], "x").top1': "top1",
}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A folder with a module of every snippet, and one of mistakes, a line each."""
    folder = tmp_path_factory.mktemp("readme")
    text = (ROOT / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(snippets) > 4
    for number, snippet in enumerate([*snippets, MORE]):
        head = WITH_ITS_OWN if " as client:" in snippet else BLOCKING
        body = PREAMBLE + head + textwrap.indent(snippet, "    ")
        (folder / f"snippet_{number}.py").write_text(body)
    body = (
        PREAMBLE + BLOCKING + textwrap.indent("\n".join(f"print({line})" for line in WRONG), "    ")
    )
    (folder / "wrong.py").write_text(body)
    return folder


def mistakes(found):
    """Problems by file: those of `wrong.py` by line, in the order of WRONG."""
    wrong = sorted({line for file, line, _ in found if file == "wrong.py"})
    first = (PREAMBLE + BLOCKING).count("\n") + 1
    right = [one for one in found if one[0] != "wrong.py"]
    return right, wrong == list(range(first, first + len(WRONG)))


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MYPYPATH": str(ROOT / "src")}


def test_mypy_is_content_with_every_line(code):
    pytest.importorskip("mypy")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"),
            *("--no-error-summary", "--cache-dir", str(code / "cache"), "."),
        ],
        cwd=code,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = re.findall(r"^([\w.]+):(\d+): error: (.*)$", done.stdout, flags=re.MULTILINE)
    right, complete = mistakes([(file, int(line), why) for file, line, why in lines])
    assert right == [], done.stdout + done.stderr
    assert complete, done.stdout + done.stderr


def test_pyright_is_content_with_every_line(code):
    pytest.importorskip("pyright")
    settings = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT / "src")],
        # Of other libraries, installed or not.
        "reportMissingImports": "none",
        "reportMissingModuleSource": "none",
        "reportMissingTypeStubs": "none",
        # Of the page's imports, each snippet needs some.
        "reportUnusedImport": "none",
        "reportUnusedFunction": "none",
        "reportUnusedVariable": "none",
    }
    (code / "pyrightconfig.json").write_text(json.dumps(settings))
    if importlib.util.find_spec("cv2") is None:
        # What the page calls of OpenCV, as OpenCV declares it.
        (code / "cv2.pyi").write_text(
            "import numpy as np\nfrom numpy.typing import NDArray\n\n"
            "def imread(filename: str) -> NDArray[np.uint8] | None: ...\n"
        )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=code,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    try:
        problems = json.loads(done.stdout)["generalDiagnostics"]
    except (ValueError, KeyError):
        pytest.skip(f"pyright does not run here: {(done.stderr or done.stdout)[-300:]}")
    found = [
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"])
        for one in problems
        if one["severity"] == "error"
    ]
    right, complete = mistakes(found)
    assert right == []
    assert complete, found
