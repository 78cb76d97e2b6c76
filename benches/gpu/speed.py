"""The table: every row as issue and docs/gpu.md define it."""

from __future__ import annotations

from bundle import SHAPES
from plain import bare_encoder, bare_latency, ceilings, head_floor, plain_head
from processes import Row, Setup

ONE = "cache-00000"


def judged(setup: Setup, holds: bool) -> bool | None:
    """A quick run, or one on a CPU, says nothing about a GPU."""
    return bool(holds) if setup.cuda and not setup.quick else None


def beside(quicker: bool, what: str) -> str:
    """The goal of a row that is shown beside another: which of the two is quicker."""
    return f"shown: quicker {'with' if quicker else 'without'} {what}"


def shape(setup: Setup) -> dict:
    """The sizes of the bundle's encoder."""
    return SHAPES["tiny" if setup.quick else "ViT-B/32"]


def bare(setup: Setup) -> dict[int, float]:
    """Pictures a second of the bare encoder, by batch size; measured once."""
    if not hasattr(setup, "_bare"):
        batches = [1, 4] if setup.quick else [1, 8, 32, 64, 128, 256, 512, 1024]
        setup._bare = bare_encoder(
            setup.bundle / "image.pt",
            *(setup.torch_device, setup.dtype, batches, shape(setup)["size"]),
            setup.seconds / 4,
        )
    return setup._bare


def encoder(setup: Setup) -> list[Row]:
    """Raw pixels through the engine over the bare forward at its best batch."""
    rates = bare(setup)
    best = max(rates, key=rates.__getitem__)
    tries = {}
    for batch in sorted({best, 256}) if not setup.quick else [4]:
        flags = ("--max-batch", batch, "--seconds", setup.seconds)
        tries[batch] = setup.measure("engine", *setup.encoding(), *flags)
    devices = len(setup.measure("device")["devices"])
    rate = max(it["pictures_per_second"] for it in tries.values())
    value = rate / (rates[best] * devices)
    batch = max(tries, key=lambda batch: tries[batch]["pictures_per_second"])
    flags = ("--max-batch", batch, "--seconds", setup.seconds, "--cuda-graphs", "auto")
    graphs = setup.measure("engine", *setup.encoding(), *flags)
    return [
        Row(
            "encoder through the engine (raw u8 in) over the bare forward at its best batch",
            *(value, ">= 0.95", judged(setup, value >= 0.95)),
            {"bare_per_second": rates, "engine_by_max_batch": tries, "devices": devices},
        ),
        Row(
            "encoder with CUDA graphs over without: pictures a second",
            graphs["pictures_per_second"] / rate,
            beside(graphs["pictures_per_second"] > rate, "CUDA graphs"),
            None,
            graphs,
        ),
    ]


def whole(setup: Setup) -> list[Row]:
    """JPEG to label over what cores and card allow."""
    size = (120, 90) if setup.quick else (500, 375)
    pictures = setup.pictures("jpeg", 8 if setup.quick else 128, *size)
    where = ("--bundle", setup.bundle, "--pictures", pictures)
    decode = setup.measure("decode", *where, "--seconds", setup.seconds / 2, device=False)
    ceiling = max(bare(setup).values())
    with setup.server() as server:
        server.make_caches([ONE], shape(setup)["out_width"])
        load = server.load(
            *(pictures, "--cache", ONE, "--streams", 8, "--timings"),
            *("--concurrency", 32 if setup.quick else 2048),
            *("--duration", setup.seconds, "--warmup", 0.5 if setup.quick else 2),
        )
    # The load runs on the same cores: what it takes of them, the decoders cannot have.
    cores = decode["cores"]
    decoded = decode["pictures_per_second"]
    beside = 1 / (1 / decoded + (load["client_cpu_seconds_per_item"] or 0) / cores)
    rate = load["answers_per_second"]
    value = rate / min(beside, ceiling)
    return [
        Row(
            "JPEG to label over the lesser of decoders (the load's share of the cores left out) "
            "and encoder",
            *(value, ">= 0.90", judged(setup, value >= 0.9)),
            {
                "answers_per_second": rate,
                "decode_per_second": decoded,
                "decode_per_second_beside_the_load": beside,
                "bare_encoder_per_second": ceiling,
                "over_the_lesser_with_all_cores": rate / min(decoded, ceiling),
                "load": load,
            },
        )
    ]


def heads(setup: Setup) -> list[Row]:
    """The head against the formula in plain PyTorch, and over its floor."""
    found = ceilings(setup.torch_device, setup.quick, setup.seconds / 5)
    sizes = [(1000, 16_000, 512, 256), (1000, 1_000_000, 512, 256)]
    if setup.quick:
        sizes = [(20, 320, 64, 16)]
    rows = []
    for classes, keys, width, batch in sizes:
        for dtype in ("float32", "float16") if setup.cuda else ("float32",):
            arguments = (batch, classes, keys, width)
            try:
                plain = plain_head(setup.torch_device, dtype, *arguments, setup.seconds / 5)
            except RuntimeError as error:  # the one-hot values do not fit this card
                plain = None
                why = str(error).splitlines()[0]
            ours = setup.measure(
                *("head", "--keys-dtype", dtype, "--classes", classes, "--keys", keys),
                *("--width", width, "--batch", batch, "--round", setup.seconds / 50),
                *("--best", 5),
            )
            floor = head_floor(found, dtype, *arguments)
            details = {
                "seconds": ours["seconds"], "plain_seconds": plain, "floor_seconds": floor,
                "ceilings": found, "ours": ours,
            }  # fmt: skip
            if plain is None:
                details["plain_failed"] = why
            name = f"head, N={classes}, M={keys:,}, D={width}, B={batch}, {dtype} keys"
            times = plain / ours["seconds"] if plain else None
            rows.append(
                Row(f"{name}: times as fast as the formula in plain PyTorch", times, ">= 2",
                    judged(setup, times is None or times >= 2), details)
            )  # fmt: skip
            share = floor / ours["seconds"]
            rows.append(
                Row(f"{name}: floor over time", share, ">= 0.7", judged(setup, share >= 0.7))
            )
            there = ours["best"]["seconds_chosen_there"]
            whole = ours["best"]["seconds_whole_logits_and_chosen_by_one_core"]
            rows.append(
                Row(f"{name}: seconds from whole logits over those of the 5 best chosen there",
                    whole / there, beside(there < whole, "choosing there"), None, ours["best"])
            )  # fmt: skip
    return rows


def caches(setup: Setup) -> list[Row]:
    """Many caches at random over one, pictures so small that decoding is no limit."""
    count = 20 if setup.quick else 1000
    side = shape(setup)["size"]
    pictures = setup.pictures("small", 8 if setup.quick else 128, side, side)
    names = [f"cache-{number:05}" for number in range(count)]
    with setup.server() as server:
        server.make_caches(names, shape(setup)["out_width"])
        length = ("--duration", setup.seconds, "--warmup", 0.5 if setup.quick else 2)
        many = 32 if setup.quick else 2048
        rates: dict[str, list[float]] = {"one": [], "many": []}
        for _ in range(1 if setup.quick else 3):
            for which, flags in (
                ("one", ("--cache", ONE, "--streams", 8)),
                ("many", ("--caches", "cache-*")),
            ):
                load = server.load(pictures, *flags, "--concurrency", many, *length)
                rates[which].append(load["answers_per_second"])
    middle = {which: sorted(it)[len(it) // 2] for which, it in rates.items()}
    value = middle["many"] / middle["one"]
    return [
        Row(f"{count} caches at random over one cache", value, ">= 0.95",
            judged(setup, value >= 0.95), rates)
    ]  # fmt: skip


def latency(setup: Setup) -> list[Row]:
    """One raw picture, unary, nothing beside it; with CUDA graphs too."""
    side = shape(setup)["size"]
    pictures = setup.pictures("small", 8 if setup.quick else 128, side, side)
    calls = 20 if setup.quick else 500
    alone = bare_latency(setup.bundle / "image.pt", setup.torch_device, setup.dtype, side, calls)

    def served(*flags) -> tuple[float, dict]:
        with setup.server(*flags) as server:
            server.make_caches([ONE], shape(setup)["out_width"])
            load = server.load(
                *(pictures, "--cache", ONE, "--raw", "--unary", "--concurrency", 1, "--timings"),
                *("--count", calls, "--warmup", 0.5),
            )
        median = load["latency_seconds"]["p50"]
        details = {"p50_seconds": median, "bare_seconds": alone, "stages": load["server_seconds"]}
        return median, details

    median, details = served()
    replayed, with_graphs = served("--cuda-graphs", "auto")
    value = median / alone
    name = "latency of one picture, unary, over the bare forward at batch 1"
    return [
        Row(name, value, "<= 1.3", judged(setup, value <= 1.3), details),
        Row(f"{name}: with CUDA graphs", replayed / alone,
            beside(replayed < median, "CUDA graphs"), None, with_graphs),
    ]  # fmt: skip


def finetuning(setup: Setup) -> list[Row]:
    """Tip-Adapter-F at ImageNet-16's size, features given."""
    sizes = ("--classes", 10, "--epochs", 2, "--width", 32) if setup.quick else ()
    found = setup.measure("finetune-time", *sizes)
    name = "ImageNet-16 Tip-Adapter-F, 20 epochs, D=1024, features given: seconds"
    spent = found["seconds"]
    return [Row(name, spent, "< 5 (the paper: 300)", judged(setup, spent < 5), found)]


def overload(setup: Setup) -> list[Row]:
    """Goodput at three times the capacity, deadline 100 ms."""
    side = shape(setup)["size"]
    pictures = setup.pictures("small", 8 if setup.quick else 128, side, side)
    with setup.server() as server:
        server.make_caches([ONE], shape(setup)["out_width"])
        flags = (pictures, "--cache", ONE, "--streams", 8)
        warmup = ("--warmup", 0.5 if setup.quick else 2)
        closed = server.load(
            *flags, "--concurrency", 32 if setup.quick else 2048, "--duration", setup.seconds,
            *warmup,
        )  # fmt: skip
        capacity = closed["answers_per_second"]
        load = server.load(
            *flags, "--rate", 3 * capacity, "--deadline", 0.1, "--duration", setup.seconds,
            *warmup,
        )  # fmt: skip
    value = load["goodput_per_second"] / capacity
    return [
        Row("goodput at 3 x the capacity, deadline 100 ms, over the capacity", value, ">= 0.95",
            judged(setup, value >= 0.95), {"capacity_per_second": capacity, "load": load})
    ]  # fmt: skip


ROWS = {
    "encoder": encoder,
    "heads": heads,
    "whole": whole,
    "latency": latency,
    "finetuning": finetuning,
    "overload": overload,
    "caches": caches,
}
