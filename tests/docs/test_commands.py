"""The commands of the README and the pages, run as they are written, on a folder of pictures.

What is not run has its reason here: a new command needs one of the two.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import BINARY, ROOT, Block, blocks

BUNDLE = ROOT / "bundles/demo"
SHELLS = ("bash", "sh", "console", "indented")

# Words that a page's block holds, and what is to be there before it runs.
RUN: dict[str, list[tuple[str, str]]] = {
    "README.md": [
        ("tipserve.Client(", "nothing"),
        ("curl -F cat=@a.jpg", "nothing"),
        ("tipserve create pets --from", "nothing"),
        ("grpcurl -plaintext 127", "versions"),
    ],
    "docs/cli.md": [
        ("tipserve add pets --from pets/more  ", "versions"),
        ("tipserve caches list --filter", "versions"),
        ("etag=$(tipserve", "versions"),
        ("elsewhere:50051 caches import", "versions"),
        ("tipserve bench --cache pets photos/", "versions"),
    ],
    "docs/cookbook.md": [
        ("tipserve --json classify pets photos/", "versions"),
        ("tipserve add pets@stable --from corrections/", "versions"),
        ("until tipserve info", "versions"),
        ("tipserve classify pets wrong/", "versions"),
        ('pd.read_csv("labels.csv")', "nothing"),
        ('Path("archive")', "versions"),
        ("result.best.probability > 0.9", "versions"),
        ("evaluation.to_html(", "versions"),
        ('[("wrong.jpg", "cat")]', "versions"),
    ],
    "docs/upgrade.md": [("tipserve --version", "versions")],
    "packages/server/README.md": [("tipserve completions bash", "nothing")],
    "crates/tipserve-cli/README.md": [("tipserve-client create pets", "nothing")],
    "docs/http.md": [("curl -F cat=@a.jpg", "nothing"), ("curl -H 'Accept: image/*'", "kept")],
    "docs/inference-protocol.md": [("GRPCInferenceService/ModelMetadata", "versions")],
}

# Commands that no test of this folder runs, and why.
NOT_RUN = {
    r"^(\.venv/bin/)?pip install|^python -m pip": "installs; `make test-wheel` and CI do it",
    r"^make |^scripts/gpu-|docker|^helm ": "targets and deployments have tests of their own (tests/ops)",
    r"tipserve_export|^tipserve-export": "downloads weights; tests/export run it on small ones",
    r"^(target/release/|RUST_LOG=\S+ )?tipserve serve": "serves until it is stopped; tests start it",
    r"^tipserve demo": "tests/packages run it from the wheel",
    r"^tipserve bundles|^TIPSERVE_BUNDLE=": "needs bundles of several models; tests/server/test_bundles.py",
    r"^tipserve pull": "needs what is published; tests/server/test_pull*.py",
    r"^tipserve token new": "tests/server/test_auth_tokens.py",
    r"^export |AWS_": "settings alone",
    r"perf_analyzer|^data|^def tensor|^return|^json\.dump|^import base64|^python3 - a\.jpg|^END":
        "tests/ops/test_perf_analyzer.py runs that program",
    r"benches/|cargo bench": "measures for minutes; `make bench`",
    r"^cd clients/python|^python clients/python/generate|^cargo build": "is what CI runs itself",
    r"^uv pip|^python -m venv ray": "installs",
    r"^target/fuzz/": "continues what `make fuzz` began",
    r"^go get|^go -C|clients/go/testdata": "tests/packages/test_go_module.py; `make lint-go`",
    r"python examples/ray|^--output": "`make example-ray`",
    r"python examples/|^LABEL_STUDIO|^--": "clients/python/tests/test_examples.py and others run them: "
    "`make test-integrations`",
}  # fmt: skip
# Blocks that are formulas, figures of layouts, filters: no commands.
NO_COMMANDS = (
    r"logits = |client ─►|embeddings skip|sorted\(ids|labels\.team|caches/<id>|tombstones/|runs/<run>"
    r"|⏎|bundle\.toml  image|picture = |text    =|white space|underscores|ASCII|`<\|"
)


def of_page(page: str) -> list[Block]:
    return [block for block in blocks() if block.page == ROOT / page]


def found(page: str, words: str) -> Block:
    """The block of a page that holds these words."""
    matching = [block for block in of_page(page) if words in block.text]
    assert len(matching) == 1, (page, words, len(matching))
    return matching[0]


def lines_of(block: Block) -> list[str]:
    joined = block.text.replace("\\\n", " ")
    lines = (line.strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_every_command_is_run_or_has_a_reason_why_not():
    run = {id(found(page, words)) for page, all_ in RUN.items() for words, _ in all_}
    missing = []
    for block in blocks():
        if block.language not in SHELLS or block.run or id(block) in run:
            continue
        for line in lines_of(block):
            reasons = [reason for words, reason in NOT_RUN.items() if re.search(words, line)]
            if not reasons and not re.search(NO_COMMANDS, block.text):
                missing.append(f"{block.page.name}: {line}")
    assert not missing, "\n".join(missing)


@pytest.fixture(scope="session")
def photographs() -> list[list[Path]]:
    """Pictures of two classes."""
    data = pytest.importorskip("conformal_clip_data")
    folders = sorted(Path(data.textile_simulated_root()).iterdir())[:2]
    return [sorted(folder.iterdir())[:40] for folder in folders]


@pytest.fixture
def world(tmp_path, photographs) -> Path:
    """The folders and files that the pages speak of."""
    cats, dogs = photographs
    for at, (name, files) in enumerate((("cat", cats), ("dog", dogs))):
        for part, chosen in (
            ("pets/train", files[:8]), ("pets/test", files[8:14]), ("pets/more", files[14:18]),
            ("corrections", files[18:20]),
        ):  # fmt: skip
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number, file in enumerate(chosen):
                first = "" if part == "pets/train" else f"{folder.parent.name}-"
                shutil.copy(file, folder / f"{first}{number:03}{file.suffix}")
        for part in ("pets/new", "pictures", "photos", "wrong", "archive", "dogs"):
            (tmp_path / part).mkdir(exist_ok=True, parents=True)
            for file in files[20:23]:
                shutil.copy(file, tmp_path / part / f"{name}-{file.stem}.jpg")
        for letter, file in zip(("ab", "cd")[at], files[24:26], strict=True):
            shutil.copy(file, tmp_path / f"{letter}.jpg")
    for letter in ("e", "cat", "wrong"):
        shutil.copy(cats[30], tmp_path / f"{letter}.jpg")
    shutil.copy(cats[31], tmp_path / "pets/train/cat/blurred.jpg")
    shutil.copy(cats[32], tmp_path / "pets/train/cat/017.jpg")
    (tmp_path / "blurred.txt").write_text("cat/000.jpg\ncat/001.jpg\n")
    (tmp_path / "labels.csv").write_text(
        "image,label\na.jpg,cat\nb.jpg,cat\nc.jpg,dog\nd.jpg,dog\n"
    )
    points = np.random.default_rng(1).normal(size=(4, 1664)).astype(np.float32)
    np.savez(tmp_path / "more.npz", features=points, labels=[0, 1, 0, 1], classes=["cat", "dog"])
    (tmp_path / "bin").mkdir()
    # tipserve-client is the same commands.
    for name in ("tipserve", "tipserve-client"):
        (tmp_path / "bin" / name).symlink_to(BINARY)
    return tmp_path


class Server:
    """A server of the demo's bundle, with a store of its own."""

    def __init__(self, folder: Path) -> None:
        command = [BINARY, "serve", "--bundle", BUNDLE, "--store", folder / "store"]
        command += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.address = re.match(r"tipserve: serving on (\S+)", self.process.stdout.readline())[1]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Says which server to use for the next block: a fresh one where the first version of `pets`
    must be there and may have been deleted. Numbers are never given twice."""
    if not (BINARY.is_file() and (BUNDLE / "bundle.toml").is_file()):
        pytest.skip("no program, or no demo bundle: make build bundle")
    running = []

    def serving(fresh: bool) -> Server:
        if fresh and running:
            running.pop().stop()
        if not running:
            running.append(Server(tmp_path_factory.mktemp("server")))
        return running[0]

    yield serving
    for one in running:
        one.stop()


class Person:
    """Somebody in a folder who types what a page says."""

    def __init__(self, world: Path, address: str) -> None:
        self.world, self.address = world, address
        clients = str(ROOT / "clients/python/src")
        paths = [str(world / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]]
        self.env = os.environ | {
            "TIPSERVE_SERVER": address, "PYTHONPATH": clients, "PATH": os.pathsep.join(paths)
        }  # fmt: skip

    def types(self, text: str, language: str = "bash") -> str:
        text = text.replace("https://pictures.example.com:50051", self.address)
        text = re.sub(r"(?<![\w.])(127\.0\.0\.1|localhost|elsewhere):50051", self.address, text)
        program = {"python": [sys.executable, "-c"]}.get(
            language, ["bash", "-eo", "pipefail", "-c"]
        )
        done = subprocess.run(
            [*program, text],
            cwd=self.world,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (text, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    def prepare(self, what: str) -> None:
        """Makes the caches that the block takes for granted."""
        if what == "versions":
            self.types(
                "tipserve create pets --from pets/train --label team=weaving\n"
                "for n in 2 3 4; do tipserve add pets --from pets/more --id-prefix $n/; done\n"
                "tipserve caches alias pets stable 1\n"
            )
        elif what == "kept":
            self.types("curl --fail -sS -F 'spec={\"cacheId\": \"pets\", \"keepPictures\": true,"
                       ' "classes": [{"displayName": "cat"}, {"displayName": "dog"}]}'
                       "' -F cat=@a.jpg -F cat=@b.jpg -F dog=@c.jpg -F dog=@d.jpg"
                       " 127.0.0.1:50051/v1/caches")  # fmt: skip


@pytest.mark.parametrize(
    ("page", "words", "first"),
    [(page, words, first) for page, all_ in RUN.items() for words, first in all_],
)
def test_a_block_works_as_it_is_written(world, servers, page, words, first):
    block = found(page, words)
    if "grpcurl" in block.text and shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not installed")
    person = Person(world, servers(fresh=first == "versions").address)
    person.prepare(first)
    if block.language == "python":
        begin = "from pathlib import Path\nimport tipserve\nclient = tipserve.Client()\n"
        person.types(begin + block.text, "python")
        return
    skipped = ("tipserve pull", "tipserve serve ")
    lines = block.text.splitlines()
    text = "\n".join(line for line in lines if not any(words in line for words in skipped))
    person.types("\n".join(line.removeprefix("    ") for line in text.splitlines()))
