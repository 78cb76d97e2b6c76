"""What `tipserve demo` shows itself with: a bundle and pictures with their classes."""

from pathlib import Path

import conformal_clip_data


def bundle() -> Path:
    """The folder of the demo bundle."""
    return Path(__file__).resolve().with_name("bundle")


def pictures() -> Path:
    """A folder with one folder a class."""
    return Path(conformal_clip_data.textile_simulated_root())
