"""The heads of tipserve, written plainly in float64 from the papers' formulas.

Reads a JSON request a line on standard input and answers with a line of JSON
on standard output, so that the tests of `tests/tip/` can hold the server's mathematics
against it. It shares no code with the server, and no cleverness: every
left-out example is a fit of its own.

Request: {"what": ..., "keys": [[...]], "labels": [...], "classes": N,
"text": [[...]] or null, "views": [[[...]]] or null, "features": [[...]],
"feature_labels": [...], "scale": s, ...}.
"""

import json
import sys

import analysis_reference
import calibration_reference
import multi_label_reference
import stack_reference
import torch
import unlabelled_reference

torch.set_num_threads(1)
DOUBLE = torch.float64


def tensor(values):
    return None if values is None else torch.tensor(values, dtype=DOUBLE)


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(labels, classes).to(DOUBLE)


def text_logits(r, f):
    if r["text"] is None:
        return torch.zeros(len(f), r["classes"], dtype=DOUBLE)
    return r["scale"] * f @ r["text"].T


def tip_adapter(r, f, alpha, beta, mean=False):
    values = one_hot(r["labels"], r["classes"])
    if mean:
        shots = values.sum(0)
        average = shots[shots > 0].mean()
        values = values * torch.where(shots > 0, average / shots.clamp(min=1), 0.0)
    affinity = torch.exp(-beta * (1 - f @ r["keys"].T))
    return text_logits(r, f) + alpha * affinity @ values


def gda(r, f, alpha):
    points, labels = r["keys"], r["labels"]
    if r["views"] is not None:
        views = r["views"] / r["views"].norm(dim=2, keepdim=True)
        labels = labels.repeat_interleave(views.shape[1])
        points = views.reshape(-1, views.shape[2])
    means = torch.stack([points[labels == c].mean(0) for c in range(r["classes"])])
    centred = points - means[labels]
    count, width = points.shape
    if centred.abs().max() < 1e-12:
        inverse = torch.eye(width, dtype=DOUBLE)
    else:
        covariance = centred.T @ centred / (count - 1)
        inverse = width * torch.linalg.pinv(
            (count - 1) * covariance + torch.trace(covariance) * torch.eye(width, dtype=DOUBLE)
        )
    weight = means @ inverse
    bias = -0.5 * torch.einsum("cd,cd->c", weight, means) - torch.log(
        torch.tensor(float(r["classes"]), dtype=DOUBLE)
    )
    return text_logits(r, f) + alpha * (f @ weight.T + bias)


def proker(r, f, alpha, beta, lam):
    keys = r["keys"]
    kernel = torch.exp(-beta * (1 - keys @ keys.T))
    residual = one_hot(r["labels"], r["classes"])
    if r["text"] is not None:
        residual = residual - keys @ r["text"].T
    system = kernel / lam + torch.eye(len(keys), dtype=DOUBLE)
    values = torch.linalg.solve(system, residual)
    correction = torch.exp(-beta * (1 - f @ keys.T)) @ values
    return text_logits(r, f) + r["scale"] * alpha * correction


def class_mean(r, f, alpha):
    sums = one_hot(r["labels"], r["classes"]).T @ r["keys"]
    means = sums / sums.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return text_logits(r, f) + alpha * r["scale"] * f @ means.T


METHODS = {
    "zero_shot": lambda r, f: text_logits(r, f),
    "tip_adapter": tip_adapter,
    "gda": gda,
    "proker": proker,
    "class_mean": class_mean,
}


def logits(r):
    out = METHODS[r["method"]](r, r["features"], **r["numbers"])
    if r["text"] is None and r["method"] in ("class_mean", "proker"):
        out[:, torch.bincount(r["labels"], minlength=r["classes"]) == 0] = -1e6
    return {"logits": out.tolist()}


def official(beta_scale, alpha_scale):
    betas = [i * (beta_scale - 0.1) / 200 + 0.1 for i in range(200)]
    alphas = [i * (alpha_scale - 0.1) / 20 + 0.1 for i in range(20)]
    return betas, alphas


def search(r):
    """The official search, on validation examples or leaving each key out."""
    leave_one_out = r["features"] is None
    f = r["keys"] if leave_one_out else r["features"]
    labels = r["labels"] if leave_one_out else r["feature_labels"]
    cosines = f @ r["keys"].T
    values = one_hot(r["labels"], r["classes"])
    text = text_logits(r, f)
    best = (-1.0, 0.0, 0.0)
    betas, alphas = official(r["beta_scale"], r["alpha_scale"])
    for beta in betas:
        affinity = torch.exp(-beta * (1 - cosines))
        if leave_one_out:
            affinity = affinity * (1 - torch.eye(len(f), dtype=DOUBLE))
        cache = affinity @ values
        for alpha in alphas:
            right = ((text + alpha * cache).argmax(1) == labels).double().mean().item()
            if right > best[0]:
                best = (right, alpha, beta)
    return {"accuracy": best[0], "alpha": best[1], "beta": best[2]}


def rounds_of(labels):
    """The rank of each example in its class, or -1 in a class of one."""
    seen, ranks = {}, []
    for label in labels.tolist():
        ranks.append(seen.get(label, 0))
        seen[label] = ranks[-1] + 1
    return [
        rank if seen[label] > 1 else -1 for rank, label in zip(ranks, labels.tolist(), strict=False)
    ]


def held_accuracy(r):
    """Every round a fit of its own on the keys of the other rounds; GDA's
    covariance lacks no more than the example's own class's shot."""
    rounds = torch.tensor(rounds_of(r["labels"]))
    right = total = 0
    if r["method"] == "gda":
        for example in range(len(rounds)):
            if rounds[example] < 0:
                continue
            term = stack_reference.gda_left_out(r, lambda rows: rows, rounds, example)
            scores = text_logits(r, r["keys"][example : example + 1])[0]
            scores = scores + r["numbers"]["alpha"] * term
            right += int(scores.argmax() == r["labels"][example])
            total += 1
        return {"accuracy": right / total, "count": total}
    for current in range(int(rounds.max()) + 1):
        out = rounds == current
        left = dict(r, keys=r["keys"][~out], labels=r["labels"][~out])
        if r["views"] is not None:
            left["views"] = r["views"][~out]
        scores = METHODS[r["method"]](left, r["keys"][out], **r["numbers"])
        right += int((scores.argmax(1) == r["labels"][out]).sum())
        total += int(out.sum())
    return {"accuracy": right / total, "count": total}


def temperature(r):
    """The least mean cross-entropy, by a search over log T refined ten times."""
    values, labels = r["features"], r["feature_labels"]

    def loss(log_t):
        return torch.nn.functional.cross_entropy(values / torch.exp(log_t), labels).item()

    low, high = -12.0, 12.0
    for _ in range(10):
        points = torch.linspace(low, high, 41, dtype=DOUBLE)
        losses = [loss(p) for p in points]
        at = losses.index(min(losses))
        step = (high - low) / 40
        low, high = points[at].item() - step, points[at].item() + step
    middle = torch.tensor((low + high) / 2, dtype=DOUBLE)
    return {"temperature": torch.exp(middle).item(), "cross_entropy": loss(middle)}


def evaluate(r):
    """Top-1, top-5, confusion, cross-entropy, calibration over 15 bins."""
    p = torch.softmax(r["features"], 1)
    labels = r["feature_labels"]
    confidence, guess = p.max(1)
    right = (guess == labels).to(DOUBLE)
    error = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            share = inside.double().mean()
            error += (share * (right[inside].mean() - confidence[inside].mean()).abs()).item()
    confusion = torch.zeros(r["classes"], r["classes"], dtype=torch.int64)
    for label, taken in zip(labels.tolist(), guess.tolist(), strict=False):
        confusion[label, taken] += 1
    top5 = (p.topk(min(5, r["classes"]), 1).indices == labels[:, None]).any(1)
    return {
        "top1": right.mean().item(),
        "top5": top5.double().mean().item(),
        "cross_entropy": -torch.log(p[torch.arange(len(p)), labels]).mean().item(),
        "expected_calibration_error": error,
        "confusion": confusion.flatten().tolist(),
    }


ANSWERS = {
    "logits": logits,
    "search": search,
    "held_accuracy": held_accuracy,
    "temperature": temperature,
    "evaluate": evaluate,
    "calm_beta": calibration_reference.calm_beta,
    "calibration": lambda r: calibration_reference.calibration(r, METHODS),
    "stack": stack_reference.stack,
    "left_out": lambda r: analysis_reference.left_out(r, METHODS),
    "analysis": lambda r: analysis_reference.analysis(r, METHODS),
    "near": analysis_reference.near,
    "residual": lambda r: analysis_reference.residual(r, METHODS),
    "typical": analysis_reference.typical,
    "unlabelled": unlabelled_reference.unlabelled,
    "multi_label": multi_label_reference.multi_label,
}


def main():
    for line in sys.stdin:
        r = json.loads(line)
        for name in ("keys", "text", "views", "features"):
            r[name] = tensor(r.get(name))
        for name in ("labels", "feature_labels"):
            if r.get(name) is not None:
                r[name] = torch.tensor(r[name])
        print(json.dumps(ANSWERS[r["what"]](r)), flush=True)


if __name__ == "__main__":
    main()
