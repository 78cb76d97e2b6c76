"""Uploads a bundle to where `tipserve pull` fetches it from, and prints its entry in the index."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import tomli_w

from tipserve_export.bundle import MANIFEST
from tipserve_export.errors import MissingPackageError, OutputError, SourceError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIGNATURE = f"{MANIFEST}.minisig"
_PART = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_HUB = re.compile(rf"hf://({_PART}/{_PART})((?:/{_PART})*)(?:@({_PART}(?:/{_PART})*))?")


def publish(
    bundle: Path, destination: str, *, name: str | None, accuracy: str, public_key: str | None
) -> str:
    """Uploads it; the files first, then ``bundle.toml``, which names them.

    Returns:
        Its entry in an index, as TOML.

    Raises:
        SourceError: it is no bundle, or a file is not the one that ``bundle.toml`` names.
        OutputError: another bundle is there, or it cannot be uploaded.
        MissingPackageError: what speaks to such a place is not installed.

    """
    content, files = checked(bundle)
    signature = bundle / SIGNATURE
    if public_key is not None and not signature.is_file():
        raise SourceError(f"{signature} is missing: minisign -S -m {bundle / MANIFEST}")
    if signature.is_file():
        files.append(signature)
    files.append(bundle / MANIFEST)
    upload = _to_hub if destination.startswith("hf://") else _to_store
    try:
        upload(files, destination.rstrip("/"), str(content.get("name", bundle.name)))
    except OSError as error:
        raise OutputError(f"{destination}: {error}") from error
    entry = {
        "address": destination,
        "sha256": hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest(),
        "public_key": public_key,
        "size_bytes": sum(file.stat().st_size for file in files if file != signature),
        "licence": str(content.get("licence", "unknown")),
        "accuracy": accuracy,
    }
    known = {key: value for key, value in entry.items() if value is not None}
    return tomli_w.dumps({"bundles": {name or bundle.resolve().name: known}})


def checked(bundle: Path) -> tuple[dict[str, Any], list[Path]]:
    """What ``bundle.toml`` says, and the files that it names, whose bytes are the right ones."""
    try:
        content = tomllib.loads((bundle / MANIFEST).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SourceError(f"{bundle} is no bundle: {error}") from error
    named = dict(content.get("files", {})) | dict(content.get("int8", {}).get("files", {}))
    for file, expected in named.items():
        path = bundle / file
        # As `tipserve pull` takes them.
        if not re.fullmatch(_PART, file):
            raise SourceError(f"{file!r} cannot be published: it is no plain file name")
        if not path.is_file():
            raise SourceError(f"{path} is missing, and {MANIFEST} names it")
        with path.open("rb") as opened:
            found = _sha256(opened)
        if found != expected:
            raise SourceError(f"{path} has the sha256 {found}, {MANIFEST} has {expected}")
    return content, [bundle / file for file in named]


def _sha256(opened: Any) -> str:
    digest = hashlib.sha256()
    while chunk := opened.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _package(module: str, package: str, needed_for: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(package, needed_for) from error


def _to_hub(files: list[Path], destination: str, name: str) -> None:
    """In one commit, so that nobody sees a part of it."""
    place = _HUB.fullmatch(destination)
    if place is None:
        raise OutputError(f"{destination} is not of the form hf://ORG/NAME[/FOLDER][@REVISION]")
    hub = _package("huggingface_hub", "huggingface_hub", "publishing to a hub")
    repository, folder, revision = place[1], place[2].strip("/"), place[3]
    try:
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        api.create_repo(repository, exist_ok=True)
        api.create_commit(
            repository,
            operations=[
                hub.CommitOperationAdd(
                    path_in_repo=f"{folder}/{file.name}".lstrip("/"), path_or_fileobj=str(file)
                )
                for file in files
            ],
            commit_message=f"tipserve bundle {name}",
            revision=revision,
        )
    except hub.errors.HfHubHTTPError as error:
        raise OutputError(f"{destination}: {error}") from error


def _to_store(files: list[Path], destination: str, _name: str) -> None:
    """To a bucket, a folder, or whatever fsspec writes to; never over another bundle."""
    fsspec = _package("fsspec", "fsspec", "publishing")
    options: dict[str, Any] = {}
    if destination.startswith("s3://"):
        _package("s3fs", "s3fs", "publishing to a bucket")
        # botocore reads the AWS_… variables, but this one of the store's has another name there.
        endpoint = os.environ.get("AWS_ENDPOINT")
        options = {"endpoint_url": endpoint} if endpoint else {}
    try:
        system, folder = fsspec.core.url_to_fs(destination, **options)
    except (ValueError, ImportError) as error:
        raise OutputError(f"{destination}: {error}") from error
    there, here = f"{folder}/{MANIFEST}", files[-1].read_bytes()
    if system.exists(there) and system.cat_file(there) != here:
        raise OutputError(
            f"{destination} holds another bundle, which somebody may have pinned: take a new folder"
        )
    system.makedirs(folder, exist_ok=True)
    for file in files:
        system.put_file(str(file), f"{folder}/{file.name}")
        print(f"  {file.name}", file=sys.stderr)
