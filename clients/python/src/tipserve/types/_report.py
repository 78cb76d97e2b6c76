"""An evaluation as one self-contained page: no scripts, nothing fetched."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tipserve.types._html import bars, heat_map, thumbnail

_BINS = 10
_SIDE = 320
_WORST = 36
_PAIRS = 12
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.15rem .5rem;text-align:left}"
    "figure{display:inline-block;vertical-align:top;width:11rem;margin:0 1rem 1rem 0;"
    "font-size:13px}figcaption{overflow-wrap:anywhere}svg text{font-size:12px}"
    ".wide{overflow-x:auto}"
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class MeasuredClass(Protocol):
    """What the page shows of one class; `ClassEvaluation` has it."""

    @property
    def display_name(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def accuracy(self) -> float: ...


class Measured(Protocol):
    """What the page shows of an evaluation; `Evaluation` has it."""

    @property
    def version(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def top1(self) -> float: ...
    @property
    def top5(self) -> float: ...
    @property
    def zero_shot_top1(self) -> float | None: ...
    @property
    def cross_entropy(self) -> float: ...
    @property
    def expected_calibration_error(self) -> float: ...
    @property
    def classes(self) -> Sequence[MeasuredClass]: ...
    @property
    def confusion(self) -> Sequence[Sequence[int]]: ...


class Judged(NamedTuple):
    """What a version said of one labelled picture."""

    id: str
    is_: int
    """The class that it is of."""
    best: int
    confidence: float
    """The probability of `best`."""
    own: float | None
    """That of `is_`, if it is known."""


def page(evaluation: Measured, judged: Sequence[Judged]) -> str:
    """The page; without `judged` there are neither worst pictures nor reliability."""
    title = html.escape(evaluation.version)
    names = [one.display_name for one in evaluation.classes]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{_STYLE}</style><title>{title}</title><h1>{title}</h1>",
        _figures(evaluation),
    ]
    if judged:
        parts.append(
            "<h2>Can its probabilities be believed?</h2><p>Of the answers with a confidence "
            "within a tenth, the share that was right. On the dashed line a probability is what "
            f"it says; below it, it promises too much.</p>{_reliability(judged)}"
        )
    parts.append(f"<h2>What is taken for what?</h2>{_confused(names, judged)}")
    parts.append(f"<div class=wide>{heat_map(names, evaluation.confusion)}</div>")
    if judged:
        parts.append(_worst(names, judged))
    classes = sorted((one for one in evaluation.classes if one.count), key=lambda c: c.accuracy)
    rows = bars((f"{one.display_name} ({one.count})", one.accuracy) for one in classes)
    return "".join([*parts, f"<h2>Class by class</h2>{rows}</html>\n"])


def _figures(evaluation: Measured) -> str:
    rows = [
        ("examples", str(evaluation.count)),
        ("right (top-1)", f"{100 * evaluation.top1:.2f} %"),
        ("among the best five", f"{100 * evaluation.top5:.2f} %"),
        ("cross-entropy", f"{evaluation.cross_entropy:.4f}"),
        ("expected calibration error", f"{100 * evaluation.expected_calibration_error:.2f} %"),
    ]
    if evaluation.zero_shot_top1 is not None:
        rows.insert(2, ("by text alone (zero-shot)", f"{100 * evaluation.zero_shot_top1:.2f} %"))
    return "<table>" + "".join(f"<tr><th>{name}<td>{value}" for name, value in rows) + "</table>"


def _reliability(judged: Sequence[Judged]) -> str:
    """A reliability diagram (Guo et al., ICML 2017)."""
    bins: list[list[Judged]] = [[] for _ in range(_BINS)]
    for one in judged:
        bins[min(int(one.confidence * _BINS), _BINS - 1)].append(one)
    most = max(map(len, bins))
    width = _SIDE / _BINS
    shapes = []
    for at, found in enumerate(bins):
        if not found:
            continue
        accuracy = sum(one.is_ == one.best for one in found) / len(found)
        confidence = sum(one.confidence for one in found) / len(found)
        shapes.append(
            f'<rect x="{at * width + 1:.1f}" y="{_SIDE * (1 - accuracy):.1f}" '
            f'width="{width - 2:.1f}" height="{_SIDE * accuracy:.1f}" fill="#4a7fb5" '
            f'fill-opacity="{0.35 + 0.65 * len(found) / most:.2f}"><title>{len(found)} items; '
            f"{accuracy:.1%} right at a mean confidence of {confidence:.1%}</title></rect>"
        )
    axes = (
        f'<path d="M0 {_SIDE} L{_SIDE} 0" stroke="#b33" stroke-dasharray="4 3" fill="none"/>'
        f'<path d="M0 0 V{_SIDE} H{_SIDE}" stroke="#222" fill="none"/>'
        f'<text x="{_SIDE / 2}" y="{_SIDE + 28}" text-anchor="middle">confidence</text>'
    )
    ticks = "".join(
        f'<text x="{_SIDE * share}" y="{_SIDE + 14}" text-anchor="middle">{share}</text>'
        f'<text x="-6" y="{_SIDE * (1 - share) + 4}" text-anchor="end">{share}</text>'
        for share in (0, 0.5, 1)
    )
    box = f"-34 -8 {_SIDE + 44} {_SIDE + 44}"
    return f'<svg viewBox="{box}" width="{_SIDE + 44}">{"".join(shapes)}{axes}{ticks}</svg>'


def _confused(names: Sequence[str], judged: Sequence[Judged]) -> str:
    pairs = Counter((one.is_, one.best) for one in judged if one.is_ != one.best)
    if not pairs:
        return ""
    rows = "".join(
        f"<tr><td>{_name(names, is_)}<td>{_name(names, best)}<td>{count}"
        for (is_, best), count in pairs.most_common(_PAIRS)
    )
    return f"<table><tr><th>is<th>taken for<th>times{rows}</table>"


def _worst(names: Sequence[str], judged: Sequence[Judged]) -> str:
    wrong = [one for one in judged if one.is_ != one.best]
    wrong.sort(key=lambda one: one.confidence - (one.own or 0.0), reverse=True)
    figures = []
    for one in wrong[:_WORST]:
        own = "" if one.own is None else f" ({one.own:.1%})"
        figures.append(
            f"<figure>{thumbnail(one.id)}<figcaption>{html.escape(one.id)}<br>"
            f"is <b>{_name(names, one.is_)}</b>{own}<br>taken for "
            f"<b>{_name(names, one.best)}</b> ({one.confidence:.1%})</figcaption></figure>"
        )
    return (
        f"<h2>The worst of {len(wrong)} wrong answers</h2><p>Those that were most certain first: "
        "look for wrong labels, for pictures that are of neither class, and for what they have in "
        f"common.</p>{''.join(figures)}"
    )


def _name(names: Sequence[str], index: int) -> str:
    return html.escape(names[index]) if 0 <= index < len(names) else str(index)
