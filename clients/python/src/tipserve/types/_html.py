"""How answers look in notebooks. All text is escaped; nothing is fetched."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence

_THUMBNAIL_PIXELS = 96
_THUMBNAIL_FILE_BYTES = 32 * 1024 * 1024
_CELLS = 40
"""Of a confusion matrix's side: a larger one is no picture any more."""


def bars(rows: Iterable[tuple[str, float]], unit: str = "") -> str:
    """Names with horizontal bars; a value of 1 is a full one."""
    lines = "".join(
        f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
        f"<td style='width:12em;text-align:left'><div style='background:#4a7fb5;height:.8em;"
        f"width:{100 * min(max(value, 0.0), 1.0):.1f}%'></div></td>"
        f"<td>{value:.3f}{html.escape(unit)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{lines}</table>"


def heat_map(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: rows are the true classes."""
    if not counts or len(names) > _CELLS:
        return ""
    head = "".join(
        f"<th title='{html.escape(name, quote=True)}'>{i}</th>" for i, name in enumerate(names)
    )
    lines = []
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = max(sum(row), 1)
        cells = "".join(
            f"<td style='background:rgba(74,127,181,{count / total:.2f})'>{count or ''}</td>"
            for count in row
        )
        lines.append(f"<tr><th style='text-align:left'>{i} {html.escape(name)}</th>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def heading(text: str) -> str:
    """A line in bold."""
    return f"<div><b>{html.escape(text)}</b></div>"


def thumbnail(path: str) -> str:
    """A small picture of a file, if it is one here and Pillow reads it."""
    try:
        import PIL.Image
        import PIL.ImageOps

        if not os.path.isfile(path) or os.path.getsize(path) > _THUMBNAIL_FILE_BYTES:
            return ""
        with PIL.Image.open(path) as opened:
            opened.draft("RGB", (2 * _THUMBNAIL_PIXELS, 2 * _THUMBNAIL_PIXELS))
            small = PIL.ImageOps.exif_transpose(opened).convert("RGB")
        small.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=80)
    except Exception:  # a notebook's cell must not fail over a picture
        return ""
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img src='data:image/jpeg;base64,{data}' alt=''>"
