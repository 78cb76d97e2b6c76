"""An MCP server: a language model lists, uses, makes and corrects classifiers.

    python -m tipserve.mcp --root ~/pictures

It speaks MCP over standard input and output, as desktop assistants start it, and
talks to the tipserve that TIPSERVE_SERVER (or --server) names. It opens files
below --root alone, and with --read-only changes nothing. Needs tipserve[mcp].
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import os
import sys
import typing
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tipserve._files import picture_files
from tipserve.aio import AsyncClient
from tipserve.errors import InvalidArgument, TipserveError
from tipserve.types import Cache, Result, Version

_INSTRUCTIONS = (
    "Classifies pictures with classifiers made of a few labelled pictures. A classifier is named "
    '"pets" (its newest version), "pets@7" or "pets@stable". Pictures are paths below the '
    "server's root folder. After a wrong answer, `correct` makes a new version that has learned it."
)
_MOST_PICTURES = 256
"""Of one call of `classify`: an answer has to fit into a model's context."""


class Tools:
    """What the tools do, with one client."""

    def __init__(self, client: AsyncClient, root: Path) -> None:
        self._client = client
        self._root = root.resolve()

    async def list_classifiers(self, filter: str = "") -> list[dict[str, Any]]:
        """All classifiers: name, newest version, aliases and classes.

        Args:
            filter: For instance `cache_id = "pet*"`; empty: all.
        """
        return [_cache(one) async for one in self._client.caches(filter=filter)]

    async def describe_classifier(self, classifier: str) -> dict[str, Any]:
        """One version of a classifier: its classes with their numbers of examples, and its method.

        Args:
            classifier: "pets", "pets@7" or "pets@stable".
        """
        return _version(await self._client.version(classifier))

    async def classify(
        self,
        classifier: str,
        pictures: list[str],
        top_k: int = 3,
        reject: bool = False,
        precision: float | None = None,
        coverage: float | None = None,
    ) -> list[dict[str, Any]]:
        """Classifies pictures: for each the best classes with their probabilities, or an error.

        Args:
            classifier: "pets", "pets@7" or "pets@stable".
            pictures: Paths of files or folders below the root folder.
            top_k: How many of the best classes.
            reject: Say of each whether it is of one of the classes at all ("accepted").
            precision: Accept only what is that often right, such as 0.95.
            coverage: Also give the classes that hold the right one that often, such as 0.9.
        """
        files = self._all(pictures)
        if len(files) > _MOST_PICTURES:
            raise InvalidArgument(
                f"{len(files)} pictures are asked for, at most {_MOST_PICTURES} go in one call",
                reason="TOO_MANY_PICTURES",
            )
        results = self._client.classify(
            classifier, files, top_k=top_k, reject=reject, precision=precision, coverage=coverage
        )
        async with contextlib.aclosing(results) as answers:
            return [self._result(one) async for one in answers]

    async def drift(self, classifier: str) -> dict[str, Any]:
        """How the pictures that a classifier is asked of late differ from its examples.

        Args:
            classifier: "pets", "pets@7" or "pets@stable".
        """
        return (await self._client.drift(classifier)).to_dict()

    async def evaluate(self, classifier: str, classes: dict[str, list[str]]) -> dict[str, Any]:
        """How often a classifier is right on labelled pictures that it has not learned from.

        Args:
            classifier: "pets", "pets@7" or "pets@stable".
            classes: For each class's name the paths of its pictures, files or
                folders below the root folder.
        """
        found = await self._client.evaluate(classifier, self._labelled(classes))
        right = {one.display_name: one.accuracy for one in found.classes}
        return {
            "version": found.version,
            "count": found.count,
            "accuracy": found.top1,
            "accuracy_of_class": right,
        }

    async def create_classifier(
        self,
        name: str,
        classes: dict[str, list[str]],
        created_by: str = "",
        unknown: list[str] | None = None,
        unlabelled: list[str] | None = None,
        multi_label: bool = False,
    ) -> dict[str, Any]:
        """Makes a classifier, or a new version of it, of labelled pictures.

        Args:
            name: 1 to 63 of a-z, 0-9, '-', '_' and '.'.
            classes: For each class's name the paths of its pictures, files or
                folders below the root folder. Four to sixteen a class are good.
            created_by: Who makes it; kept with the version.
            unknown: Pictures of none of the classes: rejection becomes sharper.
            unlabelled: Pictures without a label, to learn from where that helps.
            multi_label: A picture may be of several classes at once: list it under
                each of them.
        """
        labelled = self._labelled(classes)
        source: Any = _several(labelled) if multi_label else labelled
        made = await self._client.create_cache(
            name,
            source,
            created_by=created_by,
            multi_label=multi_label,
            unknown=None if unknown is None else self._all(unknown),
            unlabelled=None if unlabelled is None else self._all(unlabelled),
        )
        return _version(made)

    async def correct(
        self, classifier: str, picture: str, right_class: str, created_by: str = ""
    ) -> dict[str, Any]:
        """Adds a picture with its right class: a new version, which the others do not change.

        Args:
            classifier: The classifier whose newest version is to learn it.
            picture: A file's path below the root folder.
            right_class: The class's name; a class that is new is added.
            created_by: Who corrects; kept with the version.
        """
        [file] = self._files(picture)
        made = await self._client.add_examples(
            classifier, [(file, right_class)], created_by=created_by
        )
        return _version(made)

    def _labelled(self, classes: dict[str, list[str]]) -> dict[str, list[str]]:
        return {label: self._all(paths) for label, paths in classes.items()}

    def _all(self, paths: list[str]) -> list[str]:
        return [file for one in paths for file in self._files(one)]

    def _files(self, given: str) -> list[str]:
        """The files at a path, which must lie below the root."""
        path = (self._root / given).resolve()
        if not path.is_relative_to(self._root):
            raise InvalidArgument(f"{given} lies outside of the root folder", reason="PATH_OUTSIDE")
        if path.is_file():
            return [str(path)]
        if not path.is_dir():
            raise InvalidArgument(f"there is no file or folder {given}", reason="FILE_UNREADABLE")
        # Links inside may lead out.
        found = (one for one in picture_files(path) if one.resolve().is_relative_to(self._root))
        return [str(one) for one in found]

    def _result(self, result: Result) -> dict[str, Any]:
        found: dict[str, Any] = {"picture": os.path.relpath(result.id, self._root)}
        if result.error is not None:
            return {**found, "error": str(result.error)}
        classes = [
            {"class": one.display_name, "probability": round(one.probability, 4)}
            for one in result.top
        ]
        found |= {"version": result.version, "classes": classes}
        if result.accepted is not None:
            found["accepted"] = result.accepted
        if result.prediction_set:
            found["prediction_set"] = [one.display_name for one in result.prediction_set]
        if result.labels:
            found["labels"] = [one.display_name for one in result.labels]
        return found


def _several(labelled: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """Each picture once, with all classes that it is listed under."""
    labels: dict[str, list[str]] = {}
    for label, files in labelled.items():
        for file in files:
            labels.setdefault(file, []).append(label)
    return list(labels.items())


def _cache(cache: Cache) -> dict[str, Any]:
    return {
        "name": cache.id,
        "versions": cache.version_count,
        "aliases": dict(cache.aliases),
        "classes": list(cache.latest.class_names) if cache.latest is not None else [],
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "method": str(version.head.method),
        "classes": {one.display_name: one.example_count for one in version.classes},
        "rejected": {one.id: str(one.error) for one in version.rejected},
        "created_by": version.created_by,
        "description": version.description,
    }


def server(client: Callable[[], AsyncClient], root: Path, *, read_only: bool = False) -> Any:
    """The MCP server; it opens its client when it starts.

    Raises ImportError, saying how to install it, where the mcp package is missing.
    """
    try:
        from mcp.server import MCPServer
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise ImportError("this needs mcp 2: pip install 'tipserve[mcp]'") from error

    state: dict[str, Tools] = {}

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with client() as opened:
            state["tools"] = Tools(opened, root)
            yield

    made = MCPServer("tipserve", instructions=_INSTRUCTIONS, lifespan=lifespan)
    reading = ("list_classifiers", "describe_classifier", "classify", "evaluate", "drift")
    writing = () if read_only else ("create_classifier", "correct")
    for name in (*reading, *writing):
        hints = ToolAnnotations(read_only_hint=name in reading, destructive_hint=False)
        made.tool(name=name, annotations=hints)(_bound(name, state))
    return made


def _bound(name: str, state: dict[str, Tools]) -> Any:
    """A tool by its method, with the method's own signature and description."""
    from mcp.server.mcpserver.exceptions import ToolError

    method = getattr(Tools, name)

    @functools.wraps(method)
    async def tool(**arguments: Any) -> Any:
        try:
            return await getattr(state["tools"], name)(**arguments)
        except (TipserveError, ValueError) as error:
            raise ToolError(str(error)) from error

    signature = inspect.signature(method)
    hints = typing.get_type_hints(method)
    parameters = [
        one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for one in signature.parameters.values()
        if one.name != "self"
    ]
    tool.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=hints["return"]
    )
    tool.__annotations__ = {name: hint for name, hint in hints.items()}
    return tool


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="tipserve mcp" if sys.argv[0] == "tipserve mcp" else "python -m tipserve.mcp",
        description="An MCP server for tipserve, over stdio.",
    )
    parser.add_argument("--server", help="host:port of the tipserve; default: TIPSERVE_SERVER")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="where pictures lie")
    parser.add_argument("--read-only", action="store_true", help="classify, and change nothing")
    given = parser.parse_args()
    server(lambda: AsyncClient(given.server), given.root, read_only=given.read_only).run()


if __name__ == "__main__":
    main()
