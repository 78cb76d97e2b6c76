"""What AUTO makes, written plainly in float64: every left-out example is a fit
of its own, every minimum a search.

See `crates/tip-adapter/src/stack/` for the rules. It shares no code with them.
"""

import math

import torch

DOUBLE = torch.float64
STRENGTH = 5.0
PART_STRENGTH = 20.0


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(labels, classes).to(DOUBLE)


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def entropy(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels).item()


def rounds_of(keys, labels):
    """The round of each key, at most 16; copies share one; -1 for single shots.

    Returns (rounds, whether each is scored).
    """
    first = []
    for i in range(len(labels)):
        same = [j for j in range(i) if labels[j] == labels[i] and keys[j] @ keys[i] > 1 - 1e-5]
        first.append(same[0] if same else i)
    counts = {}
    for i, label in enumerate(labels.tolist()):
        counts[label] = counts.get(label, 0) + (first[i] == i)
    number = min(max(counts.values()), 16)
    ranks, rounds = {}, []
    for i, label in enumerate(labels.tolist()):
        if first[i] != i:
            rounds.append(rounds[first[i]])
        elif counts[label] > 1:
            rounds.append(ranks.get(label, 0) % number)
            ranks[label] = ranks.get(label, 0) + 1
        else:
            rounds.append(-1)
    scored = [first[i] == i and rounds[i] >= 0 for i in range(len(labels))]
    return torch.tensor(rounds), torch.tensor(scored)


def points_of(r, seen):
    """Points [P, D] and the example of each."""
    if r["views"] is None:
        points = unit(r["keys"])
        example = torch.arange(len(points))
    else:
        points = unit(r["views"].reshape(-1, r["views"].shape[2]))
        example = torch.arange(len(r["keys"])).repeat_interleave(r["views"].shape[1])
    return seen(points), example


def centre_absent(means, counts):
    present = counts > 0
    means = means.clone()
    means[~present] = means[present].mean(0)
    return means


def gda_left_out(r, seen, rounds, example, share=1.0):
    """Logits of one example: means without its round, covariance without its
    own class's shots of that round, with a share of the ridge."""
    points, owner = points_of(r, seen)
    labels, classes = r["labels"][owner], r["classes"]
    width = points.shape[1]
    whole = torch.stack([points[labels == c].sum(0) for c in range(classes)])
    counts = torch.bincount(labels, minlength=classes)
    whole = whole / counts.clamp(min=1)[:, None]
    deviations = points - whole[labels]
    ridge = share * (deviations**2).sum() / (len(points) - 1)

    out = (rounds == rounds[example])[owner]
    means = torch.stack([points[(labels == c) & ~out].sum(0) for c in range(classes)])
    remain = torch.stack([((labels == c) & ~out).sum() for c in range(classes)])
    means = centre_absent(means / remain.clamp(min=1)[:, None], counts)

    own = r["labels"][example]
    kept = points[~(out & (labels == own))]
    kept_labels = labels[~(out & (labels == own))]
    middles = whole.clone()
    middles[own] = kept[kept_labels == own].mean(0)
    spread = kept - middles[kept_labels]
    inverse = width * torch.linalg.inv(spread.T @ spread + ridge * torch.eye(width, dtype=DOUBLE))
    weight = means @ inverse
    bias = -0.5 * (weight * means).sum(1) - math.log(classes)
    return seen(r["keys"][example : example + 1])[0] @ weight.T + bias


def gda_as_new(r, seen, example, share=1.0):
    """Logits of one example without it alone, the noise of its class's mean as
    of all shots."""
    logits = gda_left_out(r, seen, torch.arange(len(r["labels"])), example, share)
    points, labels = seen(r["keys"]), r["labels"]
    own = labels[example]
    shots = (labels == own).sum()
    means = {c: points[labels == c].mean(0) for c in labels.unique().tolist()}
    ridge = sum(((points[labels == c] - m) ** 2).sum() for c, m in means.items())
    ridge = share * ridge / (len(points) - 1)
    rest = torch.arange(len(points)) != example
    spread = torch.cat(
        [points[rest & (labels == c)] - points[rest & (labels == c)].mean(0) for c in means]
    )
    width = points.shape[1]
    inverse = width * torch.linalg.inv(spread.T @ spread + ridge * torch.eye(width, dtype=DOUBLE))
    away = points[example] - means[own.item()]
    logits[own] += 0.5 * (away @ inverse @ away) / (shots - 1) ** 2
    return logits


def ridge_as_new(keys, labels, classes, beta, lam, rounds, example):
    """Predictions of one example without it alone, its own class's as far above
    the others' as without its round, times the growth of a class by one shot."""

    def without(rest):
        values = ridge_fit(keys[rest], labels[rest], classes, beta, lam)
        return torch.exp(-beta * (1 - keys[example] @ keys[rest].T)) @ values

    def gap(row):
        return row[own] - (row.sum() - row[own]) / others

    own = labels[example]
    others = max(len(labels.unique()) - 1, 1)
    kernel = torch.exp(-beta * (1 - keys @ keys.T))
    same = labels[:, None] == labels[None, :]
    between = kernel[~same].mean()
    alike = kernel[same & ~torch.eye(len(keys), dtype=torch.bool)].mean() - between
    alike = alike.clamp(min=0)

    def share(n):
        return n / (1 + lam - between + (n - 1) * alike)

    shots = (labels == own).sum()
    growth = share(shots) / share(shots - 1)
    alone = without(torch.arange(len(keys)) != example)
    in_rounds = without(rounds != rounds[example])
    alone[own] += growth * gap(in_rounds) - gap(alone)
    return alone


def gda_fit(r, seen, share=1.0):
    points, owner = points_of(r, seen)
    labels, classes = r["labels"][owner], r["classes"]
    counts = torch.bincount(labels, minlength=classes)
    means = torch.stack([points[labels == c].sum(0) for c in range(classes)])
    means = means / counts.clamp(min=1)[:, None]
    spread = points - means[labels]
    means = centre_absent(means, counts)
    ridge = share * (spread**2).sum() / (len(points) - 1)
    width = points.shape[1]
    inverse = width * torch.linalg.inv(spread.T @ spread + ridge * torch.eye(width, dtype=DOUBLE))
    weight = means @ inverse
    return weight, -0.5 * (weight * means).sum(1) - math.log(classes)


def ridge_fit(keys, labels, classes, beta, lam):
    kernel = torch.exp(-beta * (1 - keys @ keys.T))
    kernel = kernel + lam * torch.eye(len(keys), dtype=DOUBLE)
    return torch.linalg.solve(kernel, one_hot(labels, classes))


def neutral(columns, counts):
    """A class without examples has the mean of the others' columns."""
    columns = columns.clone()
    columns[:, counts == 0] = columns[:, counts > 0].mean(1, keepdim=True)
    return columns


def spread_of(logits, labels, expected=None):
    rows, classes = logits.shape
    squares, observations = 0.0, 0.0
    if classes > 2:
        for row, label in zip(logits, labels.tolist(), strict=True):
            wrong = torch.cat([row[:label], row[label + 1 :]])
            squares += ((wrong - wrong.mean()) ** 2).sum().item()
            observations += classes - 2
    elif expected is None:
        difference = logits[:, 0] - logits[:, 1]
        squares = ((difference - difference.mean()) ** 2).sum().item() / 2
        observations = rows
    if expected is not None:
        squares += expected[1] * expected[0] ** 2
        observations += expected[1]
    return math.sqrt(squares / observations)


def least(loss, low, high):
    """The least of a function over a range, by a grid refined."""
    for _ in range(12):
        points = torch.linspace(low, high, 41, dtype=DOUBLE).tolist()
        values = [loss(p) for p in points]
        at = values.index(min(values))
        step = (high - low) / 40
        low, high = points[at] - step, points[at] + step
    return (low + high) / 2


def temperature_near(logits, labels, near, strength=STRENGTH):
    def loss(log):
        held = strength / len(labels) * log**2
        return entropy(logits / (near * math.exp(log)), labels) + held

    return near * math.exp(least(loss, -8.0, 8.0))


def text_earned(r):
    """The temperature of f·Wᵀ on all shots and its weight where nothing else
    weighs it, or none where it tells them no better than chance."""
    logits, labels = r["keys"] @ r["text"].T, r["labels"]
    margins = logits - logits.gather(1, labels[:, None])
    smoothing = 1 / (len(labels) + 1) if margins.max() <= 0 else 0.0
    scale = margins.abs().max().item()

    def loss(log):
        inverse = math.exp(log)
        smooth = smoothing * inverse * margins.mean().item()
        return torch.logsumexp(margins * inverse, 1).mean().item() - smooth

    log = least(loss, math.log(1e-3 / scale), math.log(1e4 / scale))
    found = math.exp(-log)
    gain = len(labels) * (math.log(r["classes"]) - entropy(logits / found, labels))
    return (found, 1 - 1.92 / gain) if gain > 1.92 else None


def weights_of(parts, labels, shots):
    """By a quasi-Newton search on the whole objective, from equal weights.

    `shots`: those of a class, on average, if heads of one fewer classified the
    examples; else none.
    """
    count, pull = len(parts), PART_STRENGTH / len(labels)
    even = 2.0 / len(labels)
    if shots is not None:
        even += 0.6 / max(shots - 1.0, 1.0) ** 3
    stacked = torch.stack(parts)

    def loss(logs):
        a = torch.logsumexp(logs, 0)
        logits = torch.einsum("k,kqn->qn", torch.exp(logs), stacked)
        off = logs - a + math.log(count)
        data = torch.nn.functional.cross_entropy(logits, labels)
        return data + even * (off**2).sum() + pull * a**2

    logs = torch.full((count,), -math.log(count), dtype=DOUBLE, requires_grad=True)
    search = torch.optim.LBFGS(
        [logs],
        max_iter=500,
        tolerance_grad=1e-11,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure():
        search.zero_grad()
        value = loss(logs)
        value.backward()
        return value

    search.step(closure)
    return torch.exp(logs.detach())


def standardiser(mean, variance):
    scale = (variance + 0.1 * variance.mean()) ** -0.5
    return lambda rows: unit((rows - mean) * scale)


def stack(r):
    """Parts, temperatures, weights, and the logits of the features.

    `standardised`: null, "own" or "bundle" (then `mean` and `variance`).
    """
    classes, labels = r["classes"], r["labels"]
    counts = torch.bincount(labels, minlength=classes)
    told = torch.ones(classes, dtype=torch.bool) if r["text"] is not None else counts > 0
    place = torch.cumsum(told, 0) - 1
    whose = r["standardised"]
    if whose is None:
        seen, beta = (lambda rows: rows), 1.7
        # On plain features GDA keeps a quarter of its ridge, and that of kernel ridge
        # regression falls with the shots.
        share = 0.25
        lam = 0.4 / min(max(len(labels) / (counts > 0).sum().item(), 4), 16)
    else:
        keys = r["keys"]
        mean, variance = keys.mean(0), keys.var(0, unbiased=False)
        if whose == "bundle":
            mean = torch.tensor(r["mean"], dtype=DOUBLE)
            variance = torch.tensor(r["variance"], dtype=DOUBLE)
        seen, beta, share, lam = standardiser(mean, variance), 1.5, 1.0, 0.1
    keys = seen(r["keys"])
    f = seen(r["features"])
    affinity = torch.exp(-beta * (1 - f @ keys.T))
    ridge = neutral(affinity @ ridge_fit(keys, labels, classes, beta, lam), counts)
    earned = None if r["text"] is None else text_earned(r)
    text_t = None if earned is None else earned[0]

    rounds, scored = rounds_of(r["keys"], labels)
    several = torch.bincount(labels[rounds >= 0], minlength=classes) > 0
    if several.sum() < 2 or 2 * several.sum() < (counts > 0).sum():
        alone = []
        for i in range(len(labels)):
            rest = torch.arange(len(labels)) != i
            values = ridge_fit(keys[rest], labels[rest], classes, beta, lam)
            alone.append(torch.exp(-beta * (1 - keys[i : i + 1] @ keys[rest].T)) @ values)
        alone = neutral(torch.cat(alone), counts)[:, told]
        near = 1.1
        parts = {"proker": (near * spread_of(alone, place[labels], (0.07, 10)), 1.0)}
        logits = ridge / parts["proker"][0]
        if text_t is not None:
            parts["zero_shot"] = earned
            logits = logits + earned[1] * (r["features"] @ r["text"].T) / text_t
        logits[:, ~told] = -1e6
        return {"logits": logits.tolist(), "parts": parts}

    which = torch.nonzero(scored)[:, 0].tolist()
    truth = place[labels[which]]
    gda_out, ridge_out = [], []
    for i in which:
        gda_out.append(gda_left_out(r, seen, rounds, i, share))
        rest = rounds != rounds[i]
        values = ridge_fit(keys[rest], labels[rest], classes, beta, lam)
        ridge_out.append(torch.exp(-beta * (1 - keys[i] @ keys[rest].T)) @ values)
    gda_out = torch.stack(gda_out)[:, told]
    ridge_out = neutral(torch.stack(ridge_out), counts)[:, told]
    text_out = None if text_t is None else (text_t, r["keys"][which] @ r["text"].T)
    shots = len(labels) / (counts > 0).sum().item()
    in_rounds = fitted([("gda", gda_out), ("proker", ridge_out)], text_out, truth, shots, shots)
    best, as_new = in_rounds, None
    if r["views"] is None and classes > 1 and scored.sum() == (rounds >= 0).sum():
        gda_new = torch.stack([gda_as_new(r, seen, i, share) for i in which])[:, told]
        ridge_new = [ridge_as_new(keys, labels, classes, beta, lam, rounds, i) for i in which]
        ridge_new = neutral(torch.stack(ridge_new), counts)[:, told]
        best = fitted([("gda", gda_new), ("proker", ridge_new)], text_out, truth, None, shots)
        as_new = widened(best["sum"], told).tolist()

    weight, bias = gda_fit(r, seen, share)
    whole = {"gda": f @ weight.T + bias, "proker": ridge}
    if text_t is not None:
        whole["zero_shot"] = r["features"] @ r["text"].T
    logits = sum(w / t * whole[name] for name, (t, w) in best["parts"].items())
    logits[:, ~told] = -1e6
    return {
        "logits": logits.tolist(),
        "parts": best["parts"],
        "entropies": best["entropies"],
        "accuracy": (best["sum"].argmax(1) == truth).double().mean().item(),
        "cross_entropy": entropy(best["sum"], truth),
        "count": len(which),
        "which": which,
        "left_out": widened(in_rounds["sum"], told).tolist(),
        "as_new": as_new,
    }


def fitted(parts, text, truth, shots, of_class):
    """Temperatures and weights of parts' logits of the left-out examples, and the
    weighted sum; text has its temperature already.

    `shots`: those of a class, on average, if heads of one fewer classified them.
    `of_class`: those of a class, on average.
    """
    scaled, temperatures = [], []
    for name, logits in parts:
        near = 0.8 / math.sqrt(of_class) * spread_of(logits, truth)
        if name == "proker":
            near = spread_of(logits, truth, (0.07, 10))
        temperatures.append(temperature_near(logits, truth, near, PART_STRENGTH))
        scaled.append(logits / temperatures[-1])
    names = [name for name, _ in parts]
    if text is not None:
        names.append("zero_shot")
        temperatures.append(text[0])
        scaled.append(text[1] / text[0])
    weights = weights_of(scaled, truth, shots)
    return {
        "parts": dict(zip(names, zip(temperatures, weights.tolist(), strict=True), strict=True)),
        "entropies": {n: entropy(z, truth) for n, z in zip(names, scaled, strict=True)},
        "sum": sum(w * z for w, z in zip(weights, scaled, strict=True)),
    }


def widened(logits, told):
    """Classes that cannot be told come last."""
    wide = torch.full((len(logits), len(told)), -1e6, dtype=DOUBLE)
    wide[:, told] = logits
    return wide
