#!/usr/bin/env python3
"""scikit-learn's classifiers on the draws of `make bench-tip`.

Reads target/bench/shots.npz, which the part `shots` of the benchmark writes: for
each set `NAME.keys` [P, D], `NAME.labels`, `NAME.test`, `NAME.test_labels`, and
for each draw `NAME.SHOTS.SEED`, the keys drawn. Writes target/bench/learners.json,
{SET: {SHOTS: {LEARNER: [accuracy in % of each draw]}}}, which the part
`comparison` holds AUTO against. The text of a set is given to none of them.

Strengths are chosen by cross-validation over the shots (five folds, or as many as
there are shots; at one shot, where nothing can be held out, scikit-learn's
defaults for unit features scaled by √D are taken).
"""

import argparse
import json
import pathlib
import time
import warnings
from collections import defaultdict

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "target/bench"
FOLDS = 5


def searched(learner, grid, shots):
    """The learner with the strength that cross-validation finds."""
    if shots < 2:
        return learner
    folds = StratifiedKFold(min(shots, FOLDS), shuffle=True, random_state=0)
    return GridSearchCV(learner, grid, cv=folds)


LEARNERS = {
    "logistic": lambda shots: searched(
        LogisticRegression(C=1.0, max_iter=200), {"C": [0.01, 0.1, 1.0, 10.0]}, shots
    ),
    "ridge": lambda shots: searched(
        RidgeClassifier(alpha=100.0), {"alpha": [1.0, 10.0, 100.0, 1000.0]}, shots
    ),
    # With two shots its shrunk covariance is nearly singular: chance level.
    "LDA": lambda shots: (
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto") if shots > 2 else None
    ),
    "SVM": lambda shots: searched(
        SVC(C=10.0), {"C": [1.0, 10.0, 100.0], "gamma": ["scale", 0.001]}, shots
    ),
}


def measure(file, name, shots, seed):
    """Each learner's accuracy on the test pictures, and its seconds."""
    rows = file[f"{name}.{shots}.{seed}"]
    keys, test = file[f"{name}.keys"], file[f"{name}.test"]
    # Unit rows have entries of about 1/√D, on which default strengths mean little.
    scale = keys.shape[1] ** 0.5
    features, labels = scale * keys[rows].astype(np.float64), file[f"{name}.labels"][rows]
    test, truth = scale * test.astype(np.float64), file[f"{name}.test_labels"]
    for learner, make in LEARNERS.items():
        model = make(shots)
        if model is None:
            continue
        begin = time.process_time()
        model.fit(features, labels)
        seconds = time.process_time() - begin
        yield learner, 100 * float(np.mean(model.predict(test) == truth)), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=pathlib.Path, default=FOLDER / "shots.npz")
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "learners.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of classes of one example, of steps that ran out
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with np.load(arguments.shots) as file:
        draws = [name.rsplit(".", 2) for name in file.files if name.rsplit(".", 1)[1].isdigit()]
        for name, shots, seed in sorted(draws, key=lambda draw: (draw[0], int(draw[1]), draw[2])):
            words = [f"{name:<12}{shots:>3}  draw {seed}"]
            for learner, accuracy, seconds in measure(file, name, int(shots), seed):
                found[name][shots][learner].append(accuracy)
                words.append(f"{learner} {accuracy:.2f} ({seconds:.1f} s)")
            print("  ".join(words), flush=True)
            arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
