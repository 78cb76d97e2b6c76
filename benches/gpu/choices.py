"""Rows that decide a setting: shown, never judged. docs/gpu.md says which default each one sets."""

from __future__ import annotations

import statistics
import time

import bundle
import torch
from plain import DTYPES, seconds
from processes import Row, Setup


def rate(setup: Setup, model: torch.nn.Module, pixels: torch.Tensor) -> float:
    """Pictures a second of a forward pass, input on the device."""
    budget = setup.seconds / 4
    with torch.inference_mode():
        return len(pixels) / seconds(setup.torch_device, lambda: model(pixels), budget)


def forward(setup: Setup) -> list[Row]:
    """The encoder's forward pass under torch's settings, over TorchScript as it is served."""
    device, kind = setup.torch_device, DTYPES[setup.dtype]
    model, size, _ = bundle.encoder("tiny" if setup.quick else "ViT-B/32", 1)
    batch = 4 if setup.quick else 256
    pixels = torch.randn(batch, 3, size, size, device=device, dtype=kind)
    script = torch.jit.load(setup.bundle / "image.pt", map_location=device).to(kind).eval()
    served = rate(setup, script, pixels)
    eager = model.to(device, kind)
    ways: dict[str, float] = {"eager PyTorch": rate(setup, eager, pixels)}
    ways["channels-last pixels"] = rate(
        setup, script, pixels.contiguous(memory_format=torch.channels_last)
    )
    failed = {}
    try:
        frozen = torch.jit.freeze(script.eval())
        ways["a frozen archive"] = rate(setup, frozen, pixels)
    except RuntimeError as error:
        failed["a frozen archive"] = str(error).splitlines()[0]
    # Compiling for a CPU needs a compiler, and says nothing about a card.
    if setup.cuda:
        try:
            compiled = torch.compile(eager, mode="max-autotune-no-cudagraphs")
            ways["torch.compile"] = rate(setup, compiled, pixels)
        except Exception as error:  # the compiler's own
            failed["torch.compile"] = str(error).splitlines()[0]
        before = torch.backends.cuda.matmul.allow_tf32
        wide = torch.jit.load(setup.bundle / "image.pt", map_location=device).eval()
        plain = rate(setup, wide, pixels.float())
        torch.backends.cuda.matmul.allow_tf32 = True
        ways["TF32 (over plain float32)"] = served * rate(setup, wide, pixels.float()) / plain
        torch.backends.cuda.matmul.allow_tf32 = before
    return [
        Row(f"forward, {setup.dtype}, batch {batch}: {name}, over TorchScript as served",
            value / served, "shown", None,
            {"pictures_per_second": value, "served_per_second": served, "failed": failed})
        for name, value in ways.items()
    ]  # fmt: skip


def workers(setup: Setup) -> list[Row]:
    """Workers (lanes) of one card: pictures a second through the engine."""
    counts = (1, 2) if setup.quick else (1, 2, 3, 4, 6)
    found = {}
    for count in counts:
        flags = ("--workers", count, "--seconds", setup.seconds / 2)
        run = setup.measure("engine", *setup.encoding(), *flags)
        found[count] = run["pictures_per_second"]
    best = max(found, key=found.__getitem__)
    return [Row("workers a card at which the engine is quickest", best, "shown", None, found)]


def decoding(setup: Setup) -> list[Row]:
    """JPEG decoders: libjpeg-turbo on all cores, with DCT scaling, and nvJPEG where it is."""
    size = (120, 90) if setup.quick else (500, 375)
    folder = setup.pictures("jpeg", 8 if setup.quick else 128, *size)
    where = ("--bundle", setup.bundle, "--pictures", folder, "--seconds", setup.seconds / 2)
    full = setup.measure("decode", *where, device=False)["pictures_per_second"]
    shrunk = setup.measure("decode", *where, "--jpeg-shrink", 2, device=False)
    rows = [
        Row("JPEG decoding with DCT scaling (--jpeg-shrink 2) over whole decoding, all cores",
            shrunk["pictures_per_second"] / full, "shown", None, {"whole_per_second": full})
    ]  # fmt: skip
    if not setup.cuda:
        return rows
    try:
        from torchvision.io import decode_jpeg
    except ImportError:
        return rows
    files = [torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
             for file in sorted(folder.iterdir())]  # fmt: skip
    pixels = decode_jpeg(files, device=setup.torch_device)
    spent = []
    for _ in range(5):
        torch.cuda.synchronize(setup.torch_device)
        started = time.perf_counter()
        pixels = decode_jpeg(files, device=setup.torch_device)
        torch.cuda.synchronize(setup.torch_device)
        spent.append(time.perf_counter() - started)
    apart = [
        (ours.cpu().float() - decode_jpeg(file).float()).abs().max().item()
        for ours, file in zip(pixels, files, strict=True)
    ]
    rows.append(
        Row("JPEG decoding by nvJPEG over all cores", len(files) / statistics.median(spent) / full,
            "shown", None, {"largest_difference_of_a_pixel": max(apart)})
    )  # fmt: skip
    return rows


CHOICES = {"forward": forward, "workers": workers, "decoding": decoding}
