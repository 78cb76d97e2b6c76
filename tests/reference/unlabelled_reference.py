"""What AUTO learns from pictures without labels, written plainly in float64.

See `crates/tip-adapter/src/unlabelled.rs`. It shares no code with it.
"""

import stack_reference as stack
import torch

STEPS = 3


def scattered(points, shares):
    """GDA's classifier of points [P, D] of which shares [P, N] are of each class."""
    counts = shares.sum(0)
    present = counts >= 0.5
    means = (shares.T @ points) / counts.clamp(min=1)[:, None]
    width = points.shape[1]
    spread = torch.zeros(width, width, dtype=torch.float64)
    for c in range(shares.shape[1]):
        off = points - means[c]
        spread += (off * shares[:, c : c + 1]).T @ off
    means[~present] = means[present].mean(0)
    ridge = spread.trace() / (counts.sum() - 1)
    inverse = width * torch.linalg.inv(spread + ridge * torch.eye(width, dtype=torch.float64))
    weight = means @ inverse
    return weight, -0.5 * (weight * means).sum(1) - torch.tensor(shares.shape[1]).double().log()


def unlabelled(r):
    """Logits of the features by the mean of AUTO's head and EM."""
    pool = torch.tensor(r["pool"], dtype=torch.float64)
    of_pool = torch.tensor(stack.stack({**r, "features": pool})["logits"], dtype=torch.float64)
    of_features = torch.tensor(stack.stack(r)["logits"], dtype=torch.float64)
    if r["standardised"] is None:
        seen = lambda rows: rows  # noqa: E731
    else:
        keys = r["keys"]
        seen = stack.standardiser(keys.mean(0), keys.var(0, unbiased=False))
    points, owner = stack.points_of(r, seen)
    labels = torch.nn.functional.one_hot(r["labels"][owner], r["classes"]).double()
    views = len(points) / len(r["keys"])
    present = torch.bincount(r["labels"], minlength=r["classes"]) > 0
    pool = seen(stack.unit(pool))

    told = present.sum().item()
    p = of_pool[:, present].softmax(1)
    for _ in range(STEPS):
        sure = (p.max(1).values - 1 / told) / (1 - 1 / told)
        shares = torch.zeros(len(pool), r["classes"], dtype=torch.float64)
        shares[:, present] = p * sure[:, None] * views
        weight, bias = scattered(torch.cat([points, pool]), torch.cat([labels, shares]))
        z = (pool @ weight.T + bias)[:, present]
        t = 0.35 * stack.spread_of(z, z.argmax(1))
        p = (z / t).softmax(1)
    mixture = (seen(r["features"]) @ weight.T + bias) / t
    logits = (of_features + mixture) / 2
    if r["text"] is None:
        logits[:, ~present] = -1e6
    return {"logits": logits.tolist()}
