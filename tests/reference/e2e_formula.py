"""The formulas of tipserve's heads in NumPy's float64, for the tests of tests/server.

Written from the papers' equations; it shares no code with the server. Shapes: f [B,D] unit rows,
keys [M,D] unit rows, labels [M], text [N,D] unit rows or None.
"""

from __future__ import annotations

import numpy as np


def unit(rows):
    """Rows divided by their lengths."""
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def text_classifier(prompts):
    """W: of each class's raw prompt features, normalise, mean, normalise again."""
    return np.stack([unit(unit(rows).mean(0)) for rows in prompts])


def clip(f, text, classes, scale):
    """CLIP's own logits; zeros without text."""
    return np.zeros((len(f), classes)) if text is None else scale * f @ text.T


def tip_adapter(f, keys, labels, classes, *, alpha, beta, text=None, scale=100.0, mean=False):
    """scale·f·Wᵀ + α·exp(−β(1 − f·Kᵀ))·V (Zhang et al., ECCV 2022)."""
    values = np.eye(classes)[labels]
    if mean:
        shots = values.sum(0)
        average = shots[shots > 0].mean()
        values = values * (average / np.maximum(shots, 1))
    return clip(f, text, classes, scale) + alpha * np.exp(-beta * (1 - f @ keys.T)) @ values


def gda(f, keys, labels, classes, *, alpha, text=None, scale=100.0, ridge=1.0):
    """scale·f·Wᵀ + α(f·w + b) (Wang et al., ICLR 2024), one view an example."""
    count, width = keys.shape
    means = np.stack([keys[labels == c].mean(0) for c in range(classes)])
    centred = keys - means[labels]
    if np.abs(centred).max() < 1e-12:
        inverse = np.eye(width)
    else:
        scatter = centred.T @ centred
        trace = ridge * np.trace(scatter) / (count - 1)
        inverse = width * np.linalg.pinv(scatter + trace * np.eye(width))
    weights = means @ inverse
    bias = -0.5 * np.sum(weights * means, 1) - np.log(classes)
    return clip(f, text, classes, scale) + alpha * (f @ weights.T + bias)


def proker(f, keys, labels, classes, *, alpha, beta, lam, text=None, scale=100.0):
    """scale·(f·Wᵀ + α·k(f,S)(K/λ + I)⁻¹(Y − S·Wᵀ)) (ProKeR, CVPR 2025)."""
    residual = np.eye(classes)[labels]
    if text is not None:
        residual = residual - keys @ text.T
    kernel = np.exp(-beta * (1 - keys @ keys.T))
    values = np.linalg.solve(kernel / lam + np.eye(len(keys)), residual)
    cross = np.exp(-beta * (1 - f @ keys.T))
    return clip(f, text, classes, scale) + scale * alpha * cross @ values


def class_mean(f, keys, labels, classes, *, alpha, text=None, scale=100.0):
    """scale·f·Wᵀ + α·scale·f·μᵀ with unit class means μ."""
    means = unit(np.eye(classes)[labels].T @ keys)
    return clip(f, text, classes, scale) + alpha * scale * f @ means.T


def standardised(rows, keys):
    """unit((f − μ) ⊙ (v + 0.1·mean v)^−½) by the keys' own mean and variance."""
    variance = keys.var(0)
    return unit((rows - keys.mean(0)) / np.sqrt(variance + 0.1 * variance.mean()))


def stack(head, f, keys, labels, classes, text):
    """Σ w·z/T over text, GDA and kernel ridge regression without text; T and w as recorded."""
    seen_f, seen_keys = f, keys
    if head["standardised"] is not None:
        assert head["standardised"] == "own", head["standardised"]
        seen_f, seen_keys = standardised(f, keys), standardised(keys, keys)
    logits = np.zeros((len(f), classes))
    for part in head["selection"]["candidates"]:
        if part["weight"] is None:
            continue
        factor = part["weight"] / part["temperature"]
        if part["method"] == "zero_shot":
            logits += factor * f @ text.T
        elif part["method"] == "gda":
            # On plain features GDA keeps a quarter of its ridge.
            ridge = 0.25 if head["standardised"] is None else 1.0
            logits += gda(seen_f, seen_keys, labels, classes, alpha=factor, ridge=ridge)
        else:
            assert part["method"] == "proker", part["method"]
            numbers = {"alpha": factor / head["lambda"], "beta": head["beta"]}
            numbers["lam"] = head["lambda"]
            logits += proker(seen_f, seen_keys, labels, classes, scale=1.0, **numbers)
    return logits


def of_head(head, f, keys, labels, classes, text=None):
    """The logits of a version's head, given as the command line's JSON gives it."""
    given = {"text": text, "scale": head["logit_scale"]}
    method = head["method"]
    if method == "zero_shot":
        return clip(f, text, classes, head["logit_scale"])
    if method == "stack":
        return stack(head, f, keys, labels, classes, text)
    given["alpha"] = head["alpha"]
    if method == "tip_adapter":
        mean = head["class_balance"] == "mean"
        return tip_adapter(f, keys, labels, classes, beta=head["beta"], mean=mean, **given)
    if method == "gda":
        return gda(f, keys, labels, classes, **given)
    if method == "proker":
        numbers = {"beta": head["beta"], "lam": head["lambda"]}
        return proker(f, keys, labels, classes, **numbers, **given)
    assert method == "class_mean", method
    return class_mean(f, keys, labels, classes, **given)


def top(logits, labels, k=1):
    """Share of rows whose class is among the k largest logits."""
    own = logits[np.arange(len(labels)), labels]
    return float(((logits > own[:, None]).sum(1) < k).mean())


def undecided(logits, k=1, margin=1e-3):
    """Rows where float32 may rightly order the k-th and the next logit either way."""
    if logits.shape[1] <= k:
        return 0
    ordered = np.sort(logits, 1)[:, ::-1]
    return int((ordered[:, k - 1] - ordered[:, k] < margin).sum())
