"""How near 8-bit features are to the float ones, in numbers that say what a cache loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_NOISE = 0.01
"""Bar: the most of :attr:`Agreement.noise` that an archive may have to be written.

An 8-bit EfficientNet's queries to caches of its float features lost up to 0.83 points of accuracy
at 0.044 and 4.6 at 0.134, on real pictures: in proportion, 0.2 points are lost at 0.01. Random
errors cost far less (docs/performance.md).
"""

SHARPNESS = 5.5
PSEUDO_CLASSES = 8
ROUNDS = 20
DIGITS = 6


@dataclass(frozen=True)
class Agreement:
    """8-bit features against the float ones of the same inputs, all of unit length.

    ``noise`` is the mean squared difference over the features' own variance: a cosine says
    little of a model whose features all lie close together. ``neighbour`` and ``head`` are
    shares of the inputs: whose nearest float feature among the others stays the same, and whose
    class by a Tip-Adapter cache of float features does.
    """

    count: int
    cosine_least: float
    cosine_mean: float
    noise: float
    neighbour: float
    head: float

    @property
    def is_enough(self) -> bool:
        """Whether the two kinds of features may meet in one cache."""
        return self.noise <= MOST_NOISE


def agreement(
    plain: NDArray[np.float64], int8: NDArray[np.float64], classes: list[str | None]
) -> Agreement:
    """Of unit features [n, D] each; a class for each if it is known."""
    import numpy as np  # noqa: PLC0415

    if not np.isfinite(int8).all():
        return Agreement(len(plain), -1.0, -1.0, float("inf"), 0.0, 0.0)
    cosines = (plain * int8).sum(axis=1)
    spread = ((plain - plain.mean(axis=0)) ** 2).sum(axis=1).mean()
    noise = ((int8 - plain) ** 2).sum(axis=1).mean() / max(spread, 1e-12)
    own, other = plain @ plain.T, int8 @ plain.T
    np.fill_diagonal(own, -np.inf)
    np.fill_diagonal(other, -np.inf)
    labels = _labels(plain, classes)
    votes = [np.exp(SHARPNESS * (cosine - 1)) @ np.eye(labels.max() + 1)[labels]
             for cosine in (own, other)]  # fmt: skip
    return Agreement(
        count=len(plain),
        cosine_least=round(float(cosines.min()), DIGITS),
        cosine_mean=round(float(cosines.mean()), DIGITS),
        noise=round(float(noise), DIGITS),
        neighbour=round(float((own.argmax(1) == other.argmax(1)).mean()), DIGITS),
        head=round(float((votes[0].argmax(1) == votes[1].argmax(1)).mean()), DIGITS),
    )


def _labels(features: NDArray[np.float64], classes: list[str | None]) -> NDArray[np.int64]:
    """The classes given, or clusters of the features (spherical k-means) if there are none."""
    import numpy as np  # noqa: PLC0415

    if None not in classes and len(set(classes)) > 1:
        return np.unique(np.array(classes), return_inverse=True)[1]
    centred = features - features.mean(axis=0)
    centres = centred[:PSEUDO_CLASSES]
    labels = np.zeros(len(features), dtype=np.int64)
    for _ in range(ROUNDS):
        labels = (centred @ centres.T / np.linalg.norm(centres, axis=1)).argmax(axis=1)
        sums = np.eye(len(centres))[labels].T @ centred
        empty = ~sums.any(axis=1)
        centres = np.where(empty[:, None], centres, sums)
    return labels
