"""Draws the DTD examples of docs/accuracy.md from the validation split.

    python tests/reference/tip_draw.py ../shared/data/clip-vitb32/dtd.npz

prints, for 1, 2, 4, 8 and 16 shots, the rows of `val_features` that become
keys. The draw is CoOp's: Python's `random`, seeded with 1, samples each class
in turn. Its outcome, plain row numbers, is kept in dtd_draw.json.
"""

import json
import random
import sys

import numpy as np


def main() -> None:
    labels = np.load(sys.argv[1])["val_labels"]
    draws = {}
    for shots in (1, 2, 4, 8, 16):
        source = random.Random(1)
        rows: list[int] = []
        for label in range(int(labels.max()) + 1):
            of_class = [int(i) for i in np.flatnonzero(labels == label)]
            rows += source.sample(of_class, shots)
        draws[str(shots)] = rows
    json.dump(draws, sys.stdout)
    print()


if __name__ == "__main__":
    main()
