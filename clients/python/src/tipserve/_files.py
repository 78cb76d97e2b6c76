"""Files and folders: which count, how they are named, where they are read from."""

from __future__ import annotations

import base64
import binascii
import glob
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tipserve.errors import InvalidArgument

# What operating systems, archivers and file servers leave in folders.
_SYSTEM_FILES = frozenset(
    (
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("icon\r", "zbthumbnail.info", "pspbrwse.jbf", "sync.ffs_db"),
    )
)
_SYSTEM_FOLDERS = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items"),
        *("$recycle.bin", "system volume information"),
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
        *("lost+found", "__pycache__"),
    )
)
# What lies beside pictures: labels.txt, annotations.xml, an editor's notes (xmp, aae),
# notebooks, checksums, shortcuts.
_TEXTS = (
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml"),
    *(".md", ".html", ".htm", ".log", ".ini", ".xmp", ".aae", ".ipynb", ".py"),
    *(".md5", ".sha256", ".url", ".lnk", ".webloc"),
)

# fsspec's chains, "simplecache::https://...", are addresses too.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:://|::)")
# Those that stand for a path, and those that hold the picture themselves.
_FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,]*,", re.IGNORECASE)
# As much of a name as an error repeats.
_SHOWN = 200


def counts(name: str, is_folder: bool) -> bool:
    """Whether a file or folder of this name is looked at; docs/clients.md has the rule."""
    if name.startswith("."):
        return False
    plain = name.lower()
    if is_folder:
        return plain not in _SYSTEM_FOLDERS
    return plain not in _SYSTEM_FILES and not plain.endswith(_TEXTS)


def readable(name: str) -> str:
    """A name as text: bytes that are not UTF-8 are written as \\xNN.

    So every file has an id, and two files have two.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name


def picture_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """The files under a folder that count, each folder sorted by name.

    What is no picture, the server says. A generator that holds one folder's
    names at a time. Links are followed, but not in circles.
    """
    return _walk(Path(folder), ())


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise _unreadable(folder, error) from error
    for entry in entries:
        is_folder = entry.is_dir()
        if not counts(entry.name, is_folder) or (is_folder and _leads_up(entry, folder)):
            continue
        if is_folder:
            yield from _walk(Path(entry.path), (*above, here))
        elif entry.is_file() or _leads_nowhere(entry):
            yield Path(entry.path)


def _leads_up(entry: os.DirEntry[str], folder: Path) -> bool:
    """Whether it is a link to a folder that holds it, also one above where the walk began."""
    if not entry.is_symlink():
        return False
    target, parent = os.path.realpath(entry.path), os.path.realpath(folder)
    return os.path.commonpath([target, parent]) == target


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """A link to nothing is a file that cannot be read; one to a pipe or a device is no file."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def subfolders(root: Path) -> list[Path]:
    """The folders in a folder that count, sorted by name."""
    try:
        found = [path for path in root.iterdir() if counts(path.name, True) and path.is_dir()]
    except OSError as error:
        raise _unreadable(root, error) from error
    return sorted(found, key=lambda path: os.fsencode(path.name))


def _unreadable(folder: Path, error: OSError) -> InvalidArgument:
    name = shortened(str(folder))
    return InvalidArgument(
        f"cannot read the folder {name}: {error.strerror or error}",
        reason="FOLDER_UNREADABLE",
        metadata={"path": name},
    )


def refuse_empty(path: object) -> None:
    """Refuses the empty path, which would be the folder that the program runs in."""
    if path == "":
        raise FileNotFoundError("an empty path names no file and no folder")


def is_url(text: object) -> bool:
    """Whether it is an address, "s3://bucket/cat.jpg", and not a path."""
    return isinstance(text, str) and _URL.match(text) is not None


def is_data_url(text: object) -> bool:
    """Whether it is a picture itself, "data:image/png;base64,iVBOR..."."""
    return isinstance(text, str) and _DATA_URL.match(text) is not None


def local_path(text: str) -> str:
    """The path that "file:///pets/a%20cat.jpg" stands for; anything else as it is."""
    scheme = _FILE_URL.match(text)
    if scheme is None:
        return text
    path = text[scheme.end() :]
    # Not everybody writes a space as %20.
    return path if os.path.lexists(path) else urllib.request.url2pathname(path)


def shortened(name: str) -> str:
    """A name as errors repeat it: what was taken for a path may be a whole file's content."""
    plain = readable(name)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}... ({len(plain)} characters)"


def exists(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Whether there is a file, or a folder, of this path, which may be no path at all."""
    try:
        return kind(path)
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


def matching(pattern: str) -> list[str] | None:
    """The files that a pattern such as "pets/**/*.jpg" stands for; None if it is none."""
    if (
        is_data_url(pattern)
        or not glob.has_magic(pattern)
        or (not is_url(pattern) and os.path.lexists(pattern))
    ):
        return None
    if is_url(pattern):
        if not _may_be_pattern(pattern):
            return None
        system, path = _filesystem(pattern)
        if system.exists(path):
            return None
        found = sorted(str(system.unstrip_protocol(one)) for one in system.glob(path))
        # As the addresses are written that were found: s3://, memory:///
        start = len(found[0]) - len(found[0].split("://")[1].lstrip("/")) if found else 0
        start += len(_fixed(pattern.split("://")[1].lstrip("/")))
        return [one for one in found if _meant(one[start:])]
    literal = _literal(pattern)
    spelled = glob.escape(literal) + pattern[len(literal) :]
    found = sorted(glob.glob(spelled, recursive=True), key=os.fsencode)
    start = max(len(_fixed(pattern)), len(literal))
    return [one for one in found if _meant(one[start:]) and os.path.isfile(one)]


def _may_be_pattern(url: str) -> bool:
    """Of the web's addresses, a star in the path alone: brackets and ? have other meanings."""
    web = re.match(r"https?://[^/]*/([^?#]*)", url, re.IGNORECASE)
    return "*" in web[1] if web else not url.lower().startswith(("http://", "https://"))


def _literal(pattern: str) -> str:
    """The folders that a pattern begins with and that are called so: "photos [2024]" is one."""
    found = ""
    for place in re.finditer("/", pattern):
        folder = pattern[: place.start()]
        if folder and not os.path.isdir(folder):
            break
        found = folder
    return found


def _fixed(pattern: str) -> str:
    """The folders that a pattern begins with, which count whatever they are called."""
    return re.split(r"[*?[]", pattern, maxsplit=1)[0].rpartition("/")[0]


def _meant(path: str) -> bool:
    *folders, name = path.strip("/").split("/")
    return all(counts(folder, True) for folder in folders) and counts(name, False)


def url_files(url: str) -> list[tuple[str, str]]:
    """The files at an address, each with its path from there: itself, if it is a file."""
    system, path = _filesystem(url)
    try:
        folder = system.isdir(path)
    except Exception:  # of whatever library speaks the protocol: reading it says what is wrong
        folder = False
    if not folder:
        return [(url.rsplit("/", 1)[-1], url)]
    found = []
    for one in sorted(system.find(path)):
        inside = one[len(path) :].strip("/")
        if _meant(inside):
            found.append((inside, str(system.unstrip_protocol(one))))
    return found


def read_file(path: str | os.PathLike[str], limit: int | None) -> bytes:
    """A file's bytes, or an address's; one that is over the limit is not read at all."""
    name = shortened(os.fspath(path))
    try:
        if isinstance(path, str):
            path = local_path(path)
            if is_data_url(path):
                return _of_data_url(path, limit)
            if is_url(path):
                return _read_url(path, limit)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise too_large(size, limit)
            # A pipe tells no size, and a file may grow: never read more than fits.
            data = file.read(-1 if limit is None else limit + 1)
            if limit is not None and len(data) > limit:
                raise too_large(len(data), limit)
            return data
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidArgument(
            f"cannot read {name}: {reason}", reason="FILE_UNREADABLE", metadata={"path": name}
        ) from error
    except ValueError as error:  # a path with a NUL in it
        raise InvalidArgument(f"cannot read {name!r}: {error}", reason="FILE_UNREADABLE") from error


def _of_data_url(url: str, limit: int | None) -> bytes:
    head, text = url.split(",", 1)
    data = urllib.parse.unquote_to_bytes(text)
    if head.lower().endswith(";base64"):
        data = b"".join(data.split())
        try:
            # Not everybody fills it up to four characters.
            data = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
        except binascii.Error as error:
            raise OSError(f"its Base64 is damaged: {error}") from error
    if limit is not None and len(data) > limit:
        raise too_large(len(data), limit)
    return data


# Of one file, where the message does not bound it because it is resized first.
_URL_BYTES = 64 * 1024 * 1024
_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 30.0


def _read_url(url: str, limit: int | None) -> bytes:
    system, path = _filesystem(url)
    most = _URL_BYTES if limit is None else limit
    try:
        with system.open(path, "rb") as file:
            data = bytes(file.read(most + 1))
    except FileNotFoundError as error:
        # fsspec's for whatever went wrong over HTTP; its text is the address again.
        raise OSError(_said(error.__cause__)) from error
    except (OSError, InvalidArgument):
        raise
    except Exception as error:  # of whatever library speaks the protocol
        raise OSError(f"{type(error).__name__}: {error}") from error
    if len(data) > most:
        raise too_large(len(data), most)
    return data


def _said(cause: BaseException | None) -> str:
    if cause is None:
        return "there is no such file"
    # aiohttp's TooManyRedirects has no words of its own.
    return type(cause).__name__ if getattr(cause, "message", None) == "" else str(cause)


def _filesystem(url: str) -> tuple[Any, str]:
    scheme, rest = url.split(":", 1)
    url = f"{scheme.lower()}:{rest}"
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url, **_within_time(url))
    except ImportError as error:
        raise InvalidArgument(
            f"reading {url} needs {error.name or 'fsspec'}: pip install 'tipserve[urls]', and "
            "s3fs or gcsfs for s3:// and gs://",
            reason="URL_UNREADABLE",
            metadata={"url": url},
        ) from error
    except ValueError as error:  # a protocol that fsspec does not know
        raise InvalidArgument(
            f"cannot read {url}: {error}", reason="URL_UNREADABLE", metadata={"url": url}
        ) from error
    return system, str(path)


def _within_time(url: str) -> dict[str, Any]:
    """Options that end a server's silence; fsspec's own bounds are of several minutes."""
    if url.startswith(("s3://", "s3a://")):
        import fsspec

        # s3fs tries five times, and in each of those botocore did so again.
        within = {
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _SILENT_SECONDS / 2,
            "retries": {"max_attempts": 0},
        }
        own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        return {"config_kwargs": {**within, **own}}
    if not url.startswith(("http://", "https://")):
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
    return {"client_kwargs": {"timeout": timeout}}


def too_large(size: int, limit: int) -> InvalidArgument:
    """What to raise for a picture that is over the limit in bytes."""
    return InvalidArgument(
        f"the picture takes {size} bytes, over the limit of {limit} bytes that the server's "
        "largest message leaves; make it smaller, or let the client do it: Client(resize='client')",
        reason="PICTURE_TOO_LARGE",
        metadata={"what": "message bytes", "value": str(size), "limit": str(limit)},
    )
