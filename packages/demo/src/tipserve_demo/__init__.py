"""What `tipserve demo` shows itself with: a bundle and pictures with their classes."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def bundle() -> Path:
    """The folder of the demo bundle."""
    return _HERE / "bundle"


def pictures() -> Path:
    """A folder with one folder a class: emoji of animals, faces, food and vehicles."""
    return _HERE / "pictures"
