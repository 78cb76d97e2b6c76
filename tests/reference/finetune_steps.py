"""Reference of Tip-Adapter-F: torch autograd and torch.optim.AdamW, in float64.

Reads the arrays written by tests/tip/reference.rs and, from shapes.json, the
batches that were drawn (rows of `features` and their order), so that only the
mathematics is compared. Writes the keys after all steps and the losses.
"""

import json
import math
import pathlib
import sys

import torch


def answer(folder):
    shapes = json.loads((folder / "shapes.json").read_text())

    def load(name):
        if name not in shapes["arrays"]:
            return None
        entry = shapes["arrays"][name]
        kind = {"f32": torch.float32, "i64": torch.int64}[entry["kind"]]
        raw = bytearray((folder / name).read_bytes())
        return torch.frombuffer(raw, dtype=kind).reshape(entry["shape"])

    features, labels = load("features").double(), load("labels")
    keys = torch.nn.Parameter(load("keys").double())
    classes = shapes["classes"]
    one_hot = torch.nn.functional.one_hot(labels, classes).double()
    linear, bias, factor = load("linear"), load("bias"), load("factor")
    if factor is not None:
        one_hot = one_hot * factor.double()

    optimizer = torch.optim.AdamW(
        [keys], lr=shapes["learning_rate"], eps=1e-4, weight_decay=shapes["weight_decay"]
    )
    batch, epochs = shapes["batch"], shapes["epochs"]
    steps = epochs * math.ceil(len(keys) / batch)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(epochs):
        # Each batch holds every example where the batch is as large as the cache,
        # so that the order drawn does not matter.
        assert batch >= len(keys)
        f = features / features.norm(dim=1, keepdim=True)
        logits = torch.zeros(len(f), classes, dtype=torch.float64)
        if linear is not None:
            logits = logits + f @ linear.double().T
        if bias is not None:
            logits = logits + bias.double()
        affinity = f @ keys.T
        beta, alpha = shapes["beta"], shapes["alpha"]
        logits = logits + alpha * ((-1) * (beta - beta * affinity)).exp() @ one_hot
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    (folder / "keys.f64").write_bytes(keys.detach().flatten().numpy().tobytes())
    (folder / "losses.f64").write_bytes(torch.tensor(losses, dtype=torch.float64).numpy().tobytes())


for name in sys.argv[1:]:
    answer(pathlib.Path(name))
