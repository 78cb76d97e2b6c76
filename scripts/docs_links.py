"""A hook of MkDocs: links out of docs/ lead to the repository.

In the repository `../README.md` is right; on the site there is no such page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

REPOSITORY = "https://github.com/tipserve/tipserve/blob/main/"
_LINK = re.compile(r"(\]\()(\.\./[^)#\s]*)([^)]*\))")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page with those links changed; a link to nothing is an error."""
    root = Path(config.config_file_path).resolve().parent
    folder = Path(page.file.abs_src_path).resolve().parent

    def outside(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if not target.exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {match[2]}, which is not there")
        return f"{match[1]}{REPOSITORY}{target.relative_to(root).as_posix()}{match[3]}"

    return _LINK.sub(outside, markdown)
