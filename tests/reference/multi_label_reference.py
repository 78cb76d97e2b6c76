"""Independent labels, written plainly in float64: every left-out output is a fit
of its own, every minimum is searched by L-BFGS.

See `crates/tip-adapter/src/multi_label/` for the rules. It shares no code with them.
"""

import math

import torch

DOUBLE = torch.float64
STRENGTH = 5.0


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def outputs(keys, targets, queries, beta):
    """Kernel ridge regression at λ 0.1."""
    kernel = torch.exp(-beta * (1 - keys @ keys.T)) + 0.1 * torch.eye(len(keys), dtype=DOUBLE)
    solved = torch.linalg.solve(kernel, targets)
    return torch.exp(-beta * (1 - queries @ keys.T)) @ solved


def left_out(keys, targets, beta, plain):
    """Each key by a fit on the others; keys with a copy are left out of it."""
    rows, taken = [], []
    for i in range(len(keys)):
        if (plain[i] @ plain.T > 1 - 1e-5).sum() > 1:
            continue
        others = [j for j in range(len(keys)) if j != i]
        rows.append(outputs(keys[others], targets[others], keys[i : i + 1], beta)[0])
        taken.append(i)
    return torch.stack(rows), targets[taken]


def minimise(loss, *start):
    at = [one.clone().requires_grad_() for one in start]
    solver = torch.optim.LBFGS(
        at,
        max_iter=2000,
        tolerance_grad=1e-11,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        solver.zero_grad()
        value = loss(*at)
        value.backward()
        return value

    solver.step(closure)
    return [one.detach() for one in at]


def platt(z, y):
    """Slopes and offsets: a common slope first, then each class's held near it."""
    count, classes = y.shape
    positive = y.sum(0)
    high, low = (positive + 1) / (positive + 2), 1 / (count - positive + 2)
    targets = torch.where(y > 0.5, high, low)

    def losses(log_slope, offset):
        logits = torch.exp(log_slope) * z + offset
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        return entropy(logits, targets, reduction="none").sum(0)

    start = torch.zeros(classes, dtype=DOUBLE) - 1
    common, offset = minimise(
        lambda s, b: losses(s, b).sum(), torch.tensor([math.log(5.0)], dtype=DOUBLE), start
    )
    slopes, offsets = minimise(
        lambda s, b: (losses(s, b) + STRENGTH * (s - common) ** 2).sum(),
        common.repeat(classes),
        offset,
    )
    return torch.exp(slopes), offsets


def best_f1(p, y):
    """The middle of the gap in which the threshold with the highest F1 lies."""
    if y.sum() == 0:
        return None
    distinct = sorted(set(p.tolist()), reverse=True)
    best = (0.0, 0.5)
    for at, threshold in enumerate(distinct):
        taken = p >= threshold
        f1 = (2 * y[taken].sum() / (taken.sum() + y.sum())).item()
        below = distinct[at + 1] if at + 1 < len(distinct) else 0.0
        if f1 > best[0]:
            best = (f1, (threshold + below) / 2)
    return best[1]


def logit(p):
    return math.log(p / (1 - p))


def thresholds(p, y):
    common = best_f1(p.flatten(), y.flatten())
    common = 0.5 if common is None else common
    found = []
    for c in range(p.shape[1]):
        own, positives = best_f1(p[:, c], y[:, c]), y[:, c].sum().item()
        if own is None:
            found.append(common)
            continue
        mean = (positives * logit(own) + STRENGTH * logit(common)) / (positives + STRENGTH)
        found.append(1 / (1 + math.exp(-mean)))
    return found


def multi_label(r):
    """Logits of features, and each class's threshold."""
    plain, targets = r["keys"], torch.tensor(r["targets"], dtype=DOUBLE)
    if r["standardised"]:
        mean, variance = plain.mean(0), plain.var(0, unbiased=False)
        scale = (variance + 0.1 * variance.mean()) ** -0.5
        seen, beta = (lambda f: unit((f - mean) * scale)), 1.0
    else:
        seen, beta = (lambda f: f), 1.7
    keys = seen(plain)
    if r["held"] is None:
        z, y = left_out(keys, targets, beta, plain)
    else:
        features, labels = (torch.tensor(one, dtype=DOUBLE) for one in r["held"])
        z, y = outputs(keys, targets, seen(features), beta), labels
    slope, offset = platt(z, y)
    logits = outputs(keys, targets, seen(r["features"]), beta) * slope + offset
    found = thresholds(torch.sigmoid(z * slope + offset), y)
    return {"logits": logits.tolist(), "thresholds": found}
