"""Commands within sentences and tables, and in the comments that head the files of deploy/."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import PAGES, ROOT
from test_blocks import check_flags, commands

SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
DOCKERFILES = sorted((ROOT / "deploy/docker").glob("Dockerfile.*"))
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def spans(page: Path) -> list[str]:
    """The code within the page's sentences."""
    return SPAN.findall(re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_exist(page, help_of):
    for span in spans(page):
        if re.match(r"tipserve [a-z-]", span):
            for words in commands(span):
                check_flags(words, help_of)
        for target in re.findall(r"(?:^|&& )make ([a-z0-9-]+)", span):
            assert target in TARGETS, span
        for script in re.findall(r"^(?:scripts|deploy)/[\w./-]+", span):
            assert list(ROOT.glob(script)) or "…" in span, span


def header(path: Path) -> list[str]:
    """The commands of the comment at a file's head, each on one line."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        command = re.match(r"#     ( *)(\S.*)", line)
        if command is None:
            continue
        if found and found[-1].endswith("\\"):
            found[-1] = found[-1].removesuffix("\\") + command[2]
        else:
            found.append(command[2])
    return found


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_images_head_says_how_it_is_built_and_started(file):
    """In the words of docs/deploy.md; tests/ops/test_images.py builds and starts it so."""
    kind = file.suffix.removeprefix(".")
    gather, build, start = header(file)
    assert gather.split()[0] == "make" and gather.split()[1] in TARGETS
    words = shlex.split(build)
    assert words[:2] == ["docker", "build"]
    assert ROOT / words[words.index("-f") + 1] == file
    image, context = words[words.index("-t") + 1], words[-1]
    assert context == f"dist/image/{kind}"
    page = (ROOT / "docs/deploy.md").read_text("utf-8")
    assert build in page
    shown = " ".join(start.split())
    if kind == "cuda":
        shown = shown.replace("--gpus 1 ", "").replace("cuda", "cpu")
    assert shown in " ".join(page.replace("\\\n", " ").split())
    words = shlex.split(start)
    assert words[:2] == ["docker", "run"] and words[-1] == image
    assert "--read-only" in words
    mounts = [words[at + 1].split(":") for at, word in enumerate(words) if word == "-v"]
    assert [mount[1] for mount in mounts] == ["/bundle", "/var/lib/tipserve"]
    assert words[words.index("-e") + 1] == "TIPSERVE_INSECURE=true"


def test_composes_head_is_what_the_page_says():
    gather, start = header(ROOT / "deploy/compose/compose.yml")
    page = (ROOT / "docs/deploy.md").read_text("utf-8")
    assert gather.split()[1] in TARGETS
    assert start in page
    words = shlex.split(start)
    assert (ROOT / words[words.index("-f") + 1]).is_file()


def test_haproxys_head_names_what_its_file_reads():
    """tests/ops/test_balancer.py starts it with these variables."""
    file = ROOT / "deploy/haproxy/haproxy.cfg"
    [command] = header(file)
    given = set(re.findall(r"(TIPSERVE_\w+)=", command))
    text = file.read_text("utf-8")
    assert given == set(re.findall(r"\$\{(TIPSERVE_\w+)\}", text))


def test_the_charts_readme_installs_as_the_page_does():
    """tests/ops/test_deploy.py renders and checks it."""
    readme = (ROOT / "deploy/kubernetes/tipserve/README.md").read_text("utf-8")
    [command] = re.findall(r"    helm install (?:.*\\\n)*.*\n    helm test \w+\n", readme)
    assert command in (ROOT / "docs/deploy.md").read_text("utf-8")
