"""The temperature of a named method, written plainly in float64: every left-out
example is a head of its own.

See `crates/tip-adapter/src/methods/calibrate.rs` for the rule. It shares no code
with it.
"""

import math

import torch
from stack_reference import (
    entropy,
    gda_as_new,
    gda_left_out,
    least,
    rounds_of,
    spread_of,
    temperature_near,
)

DOUBLE = torch.float64
# The term's temperature over its spread: with several shots (GDA: times the root of
# their number), with one.
FACTORS = {
    "tip_adapter": (0.6, 0.85),
    "gda": (0.8, 0.65),
    "proker": (1.0, 1.0),
    "class_mean": (0.6, 0.65),
}


def plain(rows):
    return rows


def without(r, kept):
    return {**r, "keys": r["keys"][kept], "labels": r["labels"][kept]}


def term(r, methods, method, numbers, f):
    """The method's logits less the text's."""
    return methods[method](r, f, **numbers) - methods["zero_shot"](r, f)


def fitted(logits, labels):
    """The least cross-entropy's; labels are smoothed if all are right."""
    margins = logits - logits.gather(1, labels[:, None])
    smoothing = 1 / (len(labels) + 1) if margins.max() <= 0 else 0.0
    scale = margins.abs().max().item()

    def loss(log):
        smooth = smoothing * math.exp(log) * margins.mean().item()
        return torch.logsumexp(margins * math.exp(log), 1).mean().item() - smooth

    return math.exp(-least(loss, math.log(1e-3 / scale), math.log(1e4 / scale)))


def left_out(r, methods, method, numbers, rounds, i):
    """The term for a key of a head without its round, on the scale of all shots."""
    kept = rounds != rounds[i]
    own = r["keys"][i : i + 1]
    if method == "gda" and r["views"] is None:
        return numbers["alpha"] * gda_as_new(r, plain, i)[None]
    if method == "gda":
        return numbers["alpha"] * gda_left_out(r, plain, rounds, i)[None]
    value = term(without(r, kept), methods, method, numbers, own)
    if method == "tip_adapter":
        shots = torch.bincount(r["labels"], minlength=r["classes"])
        value = value * shots / torch.bincount(r["labels"][kept], minlength=r["classes"])
    return value


def all_shots(r, methods, method, numbers, i):
    """The term for a key of a head of all shots; without itself if it can be."""
    own = r["keys"][i : i + 1]
    if method in ("tip_adapter", "proker"):
        r = without(r, torch.arange(len(r["labels"])) != i)
    return term(r, methods, method, numbers, own)


def calibration(r, methods):
    """{"temperature": T} of `method` with `numbers`."""
    method, numbers, labels = r["method"], r["numbers"], r["labels"]
    rounds, scored = rounds_of(r["keys"], labels)
    several = bool(scored.any())
    which = torch.nonzero(scored)[:, 0].tolist() if several else range(len(labels))
    truth = labels[list(which)]
    text = methods["zero_shot"](r, r["keys"][list(which)])
    whole = torch.cat([all_shots(r, methods, method, numbers, i) for i in which])
    held = whole
    if several:
        held = torch.cat([left_out(r, methods, method, numbers, rounds, i) for i in which])
    # A part's variance over the wrong classes, and its temperature.
    spread = spread_of(held, truth)
    factor = FACTORS[method][0 if several else 1]
    if method == "gda" and several:
        factor /= math.sqrt(len(labels) / len(labels.unique()))
    parts = [(spread**2, spread * factor)]
    if r["text"] is not None:
        parts.append((spread_of(text, truth) ** 2, fitted(text, truth)))
    total = sum(v for v, _ in parts)
    near = total / sum(v / t for v, t in parts)
    if not several:
        return {"temperature": near}
    found = temperature_near(text + held, truth, near)
    ratio = 1.0
    if method == "tip_adapter":
        ratio = (spread_of(whole, truth) / spread) ** 2
    elif method == "class_mean" or (method == "gda" and r["views"] is not None):
        means = {"alpha": 1.0}
        every = torch.cat([all_shots(r, methods, "class_mean", means, i) for i in which])
        out = [left_out(r, methods, "class_mean", means, rounds, i) for i in which]
        ratio = (spread_of(every, truth) / spread_of(torch.cat(out), truth)) ** 2
    ratio = min(ratio, 1.0) ** (1.5 if method == "gda" else 1.0)
    return {"temperature": found * (total - parts[0][0] * (1 - ratio)) / total}


BETAS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 5.5, 8, 11, 16, 23, 32, 45, 64, 90)


def calm_beta(r):
    """Tip-Adapter's β without text: of those that are not worse by more than one
    standard error of the paired difference, the one of the lowest cross-entropy at a
    temperature held near the spread's, and itself held near the authors'."""
    rounds, scored = rounds_of(r["keys"], r["labels"])
    which = torch.nonzero(scored)[:, 0].tolist()
    truth = r["labels"][which]
    values = torch.eye(r["classes"], dtype=DOUBLE)
    tried = []
    for beta in BETAS:
        rows = []
        for i in which:
            kept = rounds != rounds[i]
            affinities = torch.exp(-beta * (1 - r["keys"][kept] @ r["keys"][i]))
            rows.append(affinities @ values[r["labels"][kept]])
        logits = torch.stack(rows)
        near = FACTORS["tip_adapter"][0] * spread_of(logits, truth)
        cost = entropy(logits / temperature_near(logits, truth, near), truth)
        cost += math.log(beta / 5.5) ** 2 / len(which)
        tried.append((logits.argmax(1) == truth, cost, beta))
    most = max(tried, key=lambda one: int(one[0].sum()))[0]

    def is_near(right):
        return most.sum() - right.sum() <= math.sqrt((most != right).sum().item())

    cost, beta = min((cost, beta) for right, cost, beta in tried if is_near(right))
    return {"beta": beta, "cost": cost, "costs": [cost for _, cost, _ in tried]}
