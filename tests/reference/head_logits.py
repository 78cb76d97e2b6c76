"""Float64 reference of the head's formula.

Reads folders of raw little-endian arrays written by tests/tip/reference.rs,
writes logits.f64 and cosines.f64 beside them. Written from the formula alone:
logits = f L^T + b + exp(-beta (1 - f K^T)) V.
"""

import json
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
        shape = entry["shape"]
        if not raw:
            return torch.zeros(shape, dtype=kind)
        return torch.frombuffer(raw, dtype=kind).reshape(shape)

    features = load("features").double()
    classes = shapes["classes"]
    logits = torch.zeros(len(features), classes, dtype=torch.float64)
    linear, bias, keys = load("linear"), load("bias"), load("keys")
    if linear is not None:
        logits += features @ linear.double().T
    if bias is not None:
        logits += bias.double()
    if keys is not None:
        keys = keys.double()
        cosines = features @ keys.T
        values = load("values")
        if values is None:
            labels, weight = load("labels"), load("weight").double()
            values = torch.zeros(len(keys), classes, dtype=torch.float64)
            values[torch.arange(len(keys)), labels] = weight[labels]
        logits += torch.exp(-shapes["beta"] * (1 - cosines)) @ values.double()
    else:
        cosines = torch.zeros(len(features), 0, dtype=torch.float64)
    (folder / "cosines.f64").write_bytes(cosines.flatten().numpy().tobytes())
    (folder / "logits.f64").write_bytes(logits.flatten().numpy().tobytes())


for name in sys.argv[1:]:
    answer(pathlib.Path(name))
