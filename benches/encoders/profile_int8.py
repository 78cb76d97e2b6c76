"""What an 8-bit encoder's time goes into, operator by operator, and the floor of its products.

    .venv/bin/python benches/encoders/profile_int8.py [--bundle DIR] [--batch 8]

The operators of one call are recorded with their shapes; then each is run alone with inputs of
those shapes, and the products once more on activations that are 8-bit already, so that what
quantising costs is the difference. All by processor time of one thread, the least of several, so
that other work on the machine does not count. The floor is 64 multiply-adds a cycle (a 512-bit VNNI
instruction) at the clock that a chain of dependent additions shows at the same time.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from processor_time import pictures
from runtimes import torch_archive
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from measure import machine
from run import exported

LINEAR = "quantized::linear_dynamic"
Shapes = tuple[tuple[int, ...], ...]
Layers = collections.Counter[tuple[int, int, int]]


def least(run: Callable[[], object], times: int) -> float:
    """Seconds of processor time."""
    run()
    found = float("inf")
    for _ in range(times):
        started = time.process_time()
        run()
        found = min(found, time.process_time() - started)
    return found


def recorded(run: Callable[[], object]) -> collections.Counter[tuple[str, Shapes]]:
    """How often one call runs each operator, by the shapes of its inputs."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as told:
        run()
    return collections.Counter(
        (event.name, tuple(tuple(shape) for shape in event.input_shapes if shape))
        for event in told.events()
        if event.name.startswith(("aten::", "quantized::"))
    )


def linear(rows: int, width: int, out: int, times: int) -> tuple[float, float]:
    """Seconds of a dynamic layer, and of its product alone."""
    x = torch.randn(rows, width)
    weight = torch.quantize_per_channel(
        torch.randn(out, width), torch.full((out,), 0.01), torch.zeros(out).long(), 0, torch.qint8
    )
    bias = torch.randn(out)
    packed = torch.ops.quantized.linear_prepack(weight, bias)
    whole = least(lambda: torch.ops.quantized.linear_dynamic(x, packed, False), times)
    eight = torch.randint(0, 255, (rows, width), dtype=torch.uint8)
    laid_out = torch.ops.onednn.qlinear_prepack(weight.int_repr(), [rows, width])
    scales, zeros = torch.full((out,), 0.01), torch.zeros(out, dtype=torch.int64)
    product = least(
        lambda: torch.ops.onednn.qlinear_pointwise(
            *(eight, 0.02, 128, laid_out, scales, zeros, bias, 1.0, 0),
            *(torch.float32, "none", [], ""),
        ),
        times,
    )
    return whole, product


def others(batch: int) -> dict[str, Callable[[Shapes], Callable[[], object] | None]]:
    """How each operator besides the products is run alone."""

    def attention(shapes: Shapes) -> Callable[[], object]:
        # As the projection leaves them: a token's heads side by side.
        *lead, tokens, width = shapes[0]
        heads = math.prod(lead) // batch
        q, k, v = (torch.randn(batch, tokens, heads, width).transpose(1, 2) for _ in range(3))
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def norm(shapes: Shapes) -> Callable[[], object]:
        x, width = torch.randn(shapes[0]), shapes[0][-1]
        weight = torch.randn(width)
        return lambda: torch.layer_norm(x, [width], weight, weight)

    def add(shapes: Shapes) -> Callable[[], object] | None:
        if len(shapes) < 2:
            return None
        x, y = torch.randn(shapes[0]), torch.randn(shapes[1])
        return lambda: x + y

    return {
        "aten::scaled_dot_product_attention": attention,
        "aten::layer_norm": norm,
        "aten::add": add,
    }


def clock(times: int) -> float:
    """Cycles a second of processor time, by a chain of dependent additions, one a cycle."""
    count = 1 << 22
    adds = " ".join(['"add $1, %0;"'] * 16)
    source = f"""
    void chain(void) {{
      unsigned long x = 1;
      for (long i = 0; i < {count}; i += 16) __asm__ volatile({adds} : "+r"(x));
    }}"""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "chain.so"
        command = ["cc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=source, text=True, check=True)
        return count / least(ctypes.CDLL(str(library)).chain, times)


def layers(bundle: Path, run: Callable[[], object]) -> tuple[Layers, Layers]:
    """The dynamic layers that one call runs, (rows, width, outputs) and how many such; and those of
    them that a GELU follows.

    Widths are the weights': what the profiler tells of TorchScript's inputs is right in the number
    of rows only.
    """
    module = torch.jit.load(str(bundle / "image.int8.pt"))
    nodes = module.graph.findAllNodes(LINEAR)
    weights = [
        torch.ops.quantized.linear_unpack(getattr(module, it.inputsAt(1).node().s("name")))[0]
        for it in nodes
    ]
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as told:
        run()
    inputs = [event.input_shapes[0] for event in told.events() if event.name == LINEAR]
    found = [
        (math.prod(shape[:-1]), weight.shape[1], weight.shape[0])
        for shape, weight in zip(inputs, weights, strict=True)
    ]
    followed = ["aten::gelu" in {use.user.kind() for use in node.output().uses()} for node in nodes]
    return collections.Counter(found), collections.Counter(
        layer for layer, is_followed in zip(found, followed, strict=True) if is_followed
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, help="default: ViT-B/32's shape, random weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--times", type=int, default=15)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    bundle, batch, times = arguments.bundle or exported(), arguments.batch, arguments.times
    side = int((bundle / "bundle.toml").read_text().split("\nsize = ")[1].split("\n")[0])
    encoder = torch_archive("int8", bundle / "image.int8.pt", torch.float32)
    x = encoder.lay_out(pictures(batch, side, 3))
    rows: list[tuple[str, int, float]] = []
    quantising = products = multiplications = 0.0
    with torch.inference_mode():
        whole = least(lambda: encoder.run(x), times)
        known = others(batch)
        for (name, shapes), count in recorded(lambda: encoder.run(x)).items():
            if name in known and (run := known[name](shapes)) is not None:
                what = f"{name.split('::')[1]} {list(shapes[0])}"
                rows.append((what, count, count * least(run, times)))
        linear_layers, before_gelu = layers(bundle, lambda: encoder.run(x))
        for (height, _, width), count in before_gelu.items():
            hidden = torch.randn(height, width)
            took = least(lambda h=hidden: torch.nn.functional.gelu(h), times)
            rows.append((f"gelu {[height, width]}", count, count * took))
        for (height, width, out), count in linear_layers.items():
            both, product = linear(height, width, out, times)
            rate = 2 * height * width * out / product / 1e9
            what = f"product {height} x {width} x {out}: {rate:.0f} GOP/s"
            rows.append((what, count, count * product))
            products += count * product
            quantising += count * (both - product)
            multiplications += count * height * width * out
    rows.append(("ranges and 8-bit activations for the products", 0, quantising))
    rows.append(("everything else", 0, whole - sum(seconds for *_, seconds in rows)))
    hertz = clock(times)
    print(f"machine: {machine()}; load: {os.getloadavg()[0]:.1f}; {time.strftime('%Y-%m-%d')}")
    print(f"bundle:  {bundle.name}, batch {batch}; milliseconds of a core a picture\n")
    for what, count, seconds in sorted(rows, key=lambda row: -row[2]):
        calls = f"x {count}" if count else ""
        print(f"{what:<52} {calls:<6} {1e3 * seconds / batch:6.2f}  {seconds / whole:5.1%}")
    print(f"{'the encoder':<59} {1e3 * whole / batch:6.2f}")
    floor = 1e3 * multiplications / 64 / hertz / batch
    print(
        f"\nfloor: {2 * multiplications / batch / 1e9:.2f} GOP a picture at "
        f"{128 * hertz / 1e9:.0f} GOP/s ({hertz / 1e9:.2f} GHz): {floor:.2f} ms; "
        f"the products reach {2 * multiplications / products / 1e9:.0f} GOP/s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
