"""What a version's examples say of it, and which pictures to label, written
plainly in float64.

See `crates/tip-adapter/src/analysis.rs`, `left_out.rs`, `near.rs` and
`suggest.rs` for the rules. It shares no code with them.
"""

import math

import stack_reference
import torch

DOUBLE = torch.float64


def left_out(r, methods):
    """Log-probabilities (up to a constant) of each example that can be left
    out, by a head made without its round."""
    if r["method"] == "stack":
        found = stack_reference.stack(r)
        return {"logits": found["left_out"], "as_new": found["as_new"], "keys": found["which"]}
    rounds, scored = stack_reference.rounds_of(r["keys"], r["labels"])
    which = torch.nonzero(scored)[:, 0].tolist()
    rows = []
    for example in which:
        query = r["keys"][example : example + 1]
        if r["method"] == "gda":
            term = stack_reference.gda_left_out(r, lambda rows: rows, rounds, example)
            row = methods["zero_shot"](r, query)[0] + r["numbers"]["alpha"] * term
        else:
            out = rounds == rounds[example]
            rest = dict(r, keys=r["keys"][~out], labels=r["labels"][~out], views=None)
            row = methods[r["method"]](rest, query, **r["numbers"])[0]
            if r["method"] == "tip_adapter":
                # Sums as they will be with all shots.
                text = methods["zero_shot"](rest, query)[0]
                all_shots = torch.bincount(r["labels"], minlength=r["classes"])
                seen = torch.bincount(rest["labels"], minlength=r["classes"]).clamp(min=1)
                row = text + (row - text) * all_shots / seen
        rows.append(row / r["temperature"])
    return {"logits": torch.stack(rows).tolist(), "keys": which}


def analysis(r, methods):
    """Accuracy, calibration, confusions and suspects of the left-out answers."""
    found = left_out(r, methods)
    which = found["keys"]
    p = torch.softmax(torch.tensor(found["logits"], dtype=DOUBLE), 1)
    labels = r["labels"][which]
    own = p[torch.arange(len(p)), labels]
    best, taken = p.max(1)
    right = (taken == labels).to(DOUBLE)
    bins, error = [], 0.0
    for k in range(15):
        inside = (best > k / 15) & (best <= (k + 1) / 15)
        if inside.any():
            low = (inside.sum().item(), best[inside].mean().item(), right[inside].mean().item())
            bins.append(low)
            error += low[0] / len(p) * abs(low[2] - low[1])
    confusion = {}
    for a, b in zip(labels.tolist(), taken.tolist(), strict=True):
        confusion[f"{a} {b}"] = confusion.get(f"{a} {b}", 0) + 1
    suspects = [
        (own[i].item(), which[i], taken[i].item())
        for i in range(len(p))
        if taken[i] != labels[i] and best[i] > 9 * own[i]
    ]
    return {
        "count": len(p),
        "accuracy": right.mean().item(),
        "cross_entropy": -torch.log(own).mean().item(),
        "expected_calibration_error": error,
        "bins": bins,
        "confusion": confusion,
        "suspects": sorted(suspects),
    }


def near(r):
    """The near-duplicates among the keys: the similarity from which pairs
    count, and all such pairs."""
    keys = r["keys"]
    cosines = keys @ keys.T
    alone = cosines - 3 * torch.eye(len(keys), dtype=DOUBLE)
    distances = sorted(d for d in (1 - alone.max(1).values).tolist() if d > 1e-5)
    similarity = r.get("similarity")
    if similarity is None:
        similarity = 1 - max(0.2 * distances[len(distances) // 2], 1e-5)
    pairs = [
        (cosines[i, j].item(), i, j)
        for i in range(len(keys))
        for j in range(i + 1, len(keys))
        if cosines[i, j] >= similarity
    ]
    return {"similarity": similarity, "pairs": sorted(pairs, reverse=True)}


def typical(r):
    """TypiClust's order over known clusters: the fewest labels first, then the
    largest; within a cluster the most typical. Clusters under five come last."""
    keys, clusters = r["keys"], r["clusters"]
    labels = list(r["labelled"])
    typicality = [0.0] * len(keys)
    for cluster in range(len(labels)):
        members = [i for i, c in enumerate(clusters) if c == cluster]
        for i in members:
            distances = sorted((keys[i] - keys[j]).norm().item() for j in members if j != i)[:20]
            if distances:
                typicality[i] = 1 / (sum(distances) / len(distances) + 1e-6)
    sizes = [clusters.count(c) for c in range(len(labels))]
    order, left = [], set(range(len(keys)))
    while left and len(order) < r["count"]:
        open_clusters = {clusters[i] for i in left}
        cluster = min(open_clusters, key=lambda c: (labels[c], sizes[c] < 5, -sizes[c]))
        best = max((i for i in left if clusters[i] == cluster), key=lambda i: typicality[i])
        labels[cluster] += 1
        left.remove(best)
        order.append(best)
    most = max(typicality)
    assert not math.isnan(most)
    return {"order": order, "typicality": [typicality[i] / most for i in range(len(keys))]}


def residual(r, methods):
    """What the residual of a strength adds to the features' logits: plain
    multinomial logistic regression on the left-out logits, by torch's own
    L-BFGS."""
    found = left_out(r, methods)
    which = found["keys"]
    offsets = torch.tensor(found["logits"], dtype=DOUBLE)
    keys = r["keys"]
    if r["standardised"] == "own":
        seen = stack_reference.standardiser(keys.mean(0), keys.var(0, unbiased=False))
    else:
        assert r["standardised"] is None

        def seen(rows):
            return rows

    mean = seen(keys).mean(0)
    x, labels = seen(keys)[which] - mean, r["labels"][which]
    scale = (x**2).sum(1).mean()
    delta = torch.zeros(r["classes"], keys.shape[1], dtype=DOUBLE, requires_grad=True)
    search = torch.optim.LBFGS(
        [delta], max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        search.zero_grad()
        value = torch.nn.functional.cross_entropy(offsets + x @ delta.T, labels)
        value = value + r["strength"] * scale / (2 * len(x)) * (delta**2).sum()
        value.backward()
        return value

    search.step(closure)
    added = (seen(r["features"]) - mean) @ delta.detach().T
    return {"logits": (r["temperature"] * added).tolist()}
