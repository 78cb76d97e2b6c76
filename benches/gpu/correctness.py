"""Correct first: each check gives a row whose `ok` is judged, on a CPU too."""

from __future__ import annotations

from processes import Row, Setup

LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
# Of a logit of up to 100, by the keys' format.
LARGEST_ERROR = {"float32": 1e-3, "bfloat16": 2e-2, "float16": 5e-3}


def agreement(setup: Setup) -> list[Row]:
    """The same pictures on the CPU and on the device."""
    pictures = 8 if setup.quick else 64
    found = setup.measure("agreement", "--bundle", setup.bundle, "--pictures", pictures)
    rows = []
    for each in found["formats"]:
        dtype, cosine = each["dtype"], each["least_cosine"]
        goal = LEAST_COSINE[dtype]
        rows.append(
            Row(f"cosine of {dtype} to the CPU's float32", cosine, f">= {goal}", cosine >= goal)
        )
        wrong = each["argmax_wrong"]
        name = f"best classes of {dtype} that differ, outside the margin"
        rows.append(Row(name, wrong, "0", wrong == 0, each))
    return rows + replayed(setup, pictures)


def replayed(setup: Setup, pictures: int) -> list[Row]:
    """The same with CUDA graphs: what is replayed is what is computed."""
    flags = ("--bundle", setup.bundle, "--pictures", pictures, "--cuda-graphs", "auto")
    found = setup.measure("agreement", *flags)
    rows = []
    for each in found["formats"]:
        dtype, cosine, graphs = each["dtype"], each["least_cosine"], each["cuda_graphs"]
        goal = LEAST_COSINE[dtype]
        used = [graph["size"] for graph in graphs if graph["used"]]
        used = used or "none"
        name = f"cosine of {dtype} to the CPU's float32, --cuda-graphs auto (replayed: {used})"
        right = cosine >= goal and each["argmax_wrong"] == 0
        # A graph that gives something else is off, and a defect all the same.
        right = right and not any("being wrong" in graph["verdict"] for graph in graphs)
        rows.append(Row(name, cosine, f">= {goal}", right, each))
    return rows


def head(setup: Setup) -> list[Row]:
    """The head against float64, classes with equally and unequally many keys."""
    rows = []
    sizes = ("--classes", 20, "--keys", 320, "--width", 64) if setup.quick else ()
    for dtype, goal in LARGEST_ERROR.items():
        for uneven in ((), ("--uneven",)):
            found = setup.measure(
                "head", "--keys-dtype", dtype, *uneven, *sizes,
                *("--batch", 16, "--checked", 16, "--rounds", 1, "--round", 0.01),
            )  # fmt: skip
            error = found["largest_error"]
            kind = "unequally" if uneven else "equally"
            name = f"head of {dtype} keys, {kind} many a class: largest error to float64"
            rows.append(Row(name, error, f"<= {goal}", error <= goal))
    return rows + best_classes(setup, sizes)


def best_classes(setup: Setup, sizes: tuple) -> list[Row]:
    """The best classes, chosen on the device and from whole logits."""
    rows = []
    for count in (1, 5, 1000):
        found = setup.measure(
            *("head", *sizes, "--batch", 64, "--checked", 1, "--best", count),
            *("--rounds", 1, "--round", 0.01),
        )["best"]
        differ = found["rows_that_differ"] + (64 if found["fell_back"] else 0)
        name = f"of 64 rows, those whose {count} best classes the device chooses otherwise"
        rows.append(Row(name, differ, "0", differ == 0, found))
    return rows


def finetune(setup: Setup) -> list[Row]:
    """Training on the CPU and on the device: the same examples, order and seed."""
    sizes = ("--classes", 10, "--epochs", 3, "--width", 32) if setup.quick else ()
    found = setup.measure("finetune", *sizes)
    cpu, device = (run["epochs"] for run in found["cpu_then_device"])
    losses = [(a["loss"], b["loss"]) for a, b in zip(cpu, device, strict=True) if a["loss"]]
    apart = max(abs(a - b) / max(abs(a), 1e-3) for a, b in losses)
    accuracy = max(abs(a["accuracy"] - b["accuracy"]) for a, b in zip(cpu, device, strict=True))
    # Two of the validation examples may fall the other way for rounding alone; the CPU itself
    # multiplies in bfloat16 where it has units for it.
    noise = max(2 / found["validation_examples"], 0.01)
    return [
        Row("fine-tuning: largest relative difference of an epoch's loss", apart, "<= 0.02",
            apart <= 0.02, {"cpu_and_device": losses}),
        Row("fine-tuning: largest difference of an epoch's accuracy", accuracy,
            f"<= {noise:.4f}", accuracy <= noise),
    ]  # fmt: skip


def memory(setup: Setup) -> list[Row]:
    """Out of memory survived; nothing grows."""
    batches = 200 if setup.quick else 100_000
    # Less than a full batch of ViT-B/32 needs for its pixels alone, in float32 and float16.
    leave = 192 << 20
    flags = ("--batches", batches, "--leave", leave)
    found = setup.measure("memory", *setup.encoding(), *flags)
    host, allocator = found["host_bytes_grown"], found["allocator_bytes_grown"]
    # An allocator of the host may still take an arena.
    limit = 64 << 20
    rows = [
        Row(f"bytes of the host grown in {batches} batches", host, f"<= {limit}",
            host <= limit, found),
        Row(f"bytes of the device grown in {batches} batches", allocator, f"<= {limit}",
            allocator <= limit),
    ]  # fmt: skip
    shortage = found["out_of_memory"]
    if shortage is None:
        return rows
    cosine = min(shortage["least_cosine_during"], shortage["least_cosine_after"])
    survived = shortage["healthy"] and cosine >= LEAST_COSINE["float16"]
    rows.append(
        Row("out of memory: cosine of the features meanwhile and afterwards", cosine, ">= 0.999",
            survived, shortage)
    )  # fmt: skip
    return rows


CHECKS = {"agreement": agreement, "head": head, "finetune": finetune, "memory": memory}
