"""The package's own order: no circle of imports, no file too long."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "tipserve"


def modules():
    """Every hand-written or generated module but the protos', by its dotted name."""
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "_proto" not in parts:
            name = ".".join(parts).removesuffix(".__init__")
            yield name, path


def imports(path, known):
    """The modules of ours that a module names, those for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_circle_of_imports():
    known = dict(modules())
    # A package's __init__ gathers what is in it; nothing inside asks it back.
    graph = {
        name: {one for one in imports(path, known) if one in known and one != "tipserve"}
        for name, path in known.items()
        if name != "tipserve"
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_no_file_is_too_long():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules()}
    assert {name: n for name, n in lengths.items() if n > 450} == {}
