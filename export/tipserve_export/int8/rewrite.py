"""A TorchScript module's linear layers in 8 bits.

The module is frozen first, so that weights are constants of its graph, whatever it was scripted
or traced from. Each ``aten::linear`` with a constant weight becomes ``quantized::linear_dynamic``:
weights in signed 8 bits with a scale for each output channel, activations in 8 bits with a scale
for each call, products summed in 32 bits. A convolution whose patches do not overlap, such as a
Vision Transformer's first, is the linear layer that it computes. Everything else stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tipserve_export.int8.smooth import STRENGTHS, Smoothing, ranges

ENGINE = "onednn"
"""Whose layout the packed weights are for when they are run; archives hold them unpacked."""

EXACT = "qnnpack"
"""An engine that is slow on x86, but adds its products in 32 bits on every CPU."""

LARGEST = 127


def exact_engine() -> str | None:
    """The engine that computes on this CPU what ``ENGINE`` computes where the archives are run.

    On x86 without VNNI the quick engines add pairs of products in 16 bits, which overflow. None if
    this torch has no other engine either.
    """
    engines = torch.backends.quantized.supported_engines
    if ENGINE in engines and torch.cpu._is_vnni_supported():
        return ENGINE
    return EXACT if EXACT in engines else None


@dataclass(frozen=True)
class Rewritten:
    """A module in 8 bits, and the share of its layers' weights that are."""

    module: torch.jit.ScriptModule
    share: float


def smoothed(module: torch.jit.ScriptModule, batches: list[Tensor]) -> Iterator[Rewritten]:
    """``module`` in 8 bits with its activations smoothed, for each strength; :mod:`.smooth`.

    ``batches`` are inputs that show how large activations become.
    """
    found = ranges(torch.jit.freeze(module.eval()), batches)
    for strength in STRENGTHS:
        yield _rewritten(torch.jit.freeze(module.eval()), Smoothing(found, strength))


def rewrite(module: torch.jit.ScriptModule) -> Rewritten:
    """``module`` in 8 bits; it is itself left as it is."""
    return _rewritten(torch.jit.freeze(module.eval()), None)


def _rewritten(frozen: torch.jit.ScriptModule, smoothing: Smoothing | None) -> Rewritten:
    torch.backends.quantized.engine = ENGINE
    rewriter = _Rewriter(frozen, smoothing)
    found = [n for n in _nodes(frozen.graph) if n.kind() in ("aten::linear", "aten::conv2d")]
    weights = [_constant(node.inputsAt(1)) for node in found]
    total = sum(weight.numel() for weight in weights if isinstance(weight, Tensor))
    rewriter.smooth_norms()
    for node in found:
        if node.kind() == "aten::linear":
            rewriter.linear(node)
        else:
            rewriter.patches(node)
    torch._C._jit_pass_dce(frozen.graph)
    torch._C._jit_pass_lint(frozen.graph)
    return Rewritten(frozen, rewriter.converted / max(total, 1))


def packed(weight: Tensor, bias: Tensor | None) -> torch.ScriptObject:
    """A weight [out, in] in signed 8 bits, a scale for each output."""
    scales = weight.abs().amax(dim=1).double().clamp(min=1e-12) / LARGEST
    zero_points = torch.zeros(len(weight), dtype=torch.int64)
    quantised = torch.quantize_per_channel(
        weight.float().contiguous(), scales, zero_points, 0, torch.qint8
    )
    return torch.ops.quantized.linear_prepack(quantised, bias)


def _nodes(block: Any) -> Iterator[Any]:
    for node in list(block.nodes()):
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


class _Rewriter:
    def __init__(self, module: torch.jit.ScriptModule, smoothing: Smoothing | None) -> None:
        self.module = module
        self.smoothing = smoothing
        self.by_norm: dict[str, Tensor] = {}
        self.graph = module.graph
        self.itself = next(iter(self.graph.inputs()))
        self.count = 0
        self.converted = 0

    def linear(self, node: Any) -> None:
        if (layer := _layer(node)) is None:
            return
        weight, bias = layer
        x = node.inputsAt(0)
        if (factors := self._factors(x, weight)) is not None:
            if x.debugName() not in self.by_norm:
                x = self._divided(node, x, factors)
            weight = weight * factors
        output = self._dynamic(node, x, weight, bias)
        self._replace(node, output)

    def smooth_norms(self) -> None:
        """Divides what layer norms give to linear layers alone, by way of their own weights."""
        for node in list(_nodes(self.graph)):
            if self.smoothing is None or node.kind() != "aten::layer_norm":
                continue
            users = [use.user for use in node.output().uses()]
            layers = [_layer(it) for it in users if it.kind() == "aten::linear"]
            scale, shift = node.inputsAt(2).toIValue(), node.inputsAt(3).toIValue()
            if not users or len(layers) < len(users) or None in layers or scale is None:
                continue
            factors = self.smoothing.factors([weight for weight, _ in layers])
            if factors is None:
                continue
            self.graph.setInsertPoint(node)
            node.replaceInput(2, self.graph.insertConstant(scale / factors))
            if shift is not None:
                node.replaceInput(3, self.graph.insertConstant(shift / factors))
            self.by_norm[node.output().debugName()] = factors

    def _factors(self, x: Any, weight: Tensor) -> Tensor | None:
        if self.smoothing is None:
            return None
        known = self.by_norm.get(x.debugName())
        return self.smoothing.factors([weight]) if known is None else known

    def _divided(self, node: Any, x: Any, factors: Tensor) -> Any:
        """``x`` over its factors, before ``node``."""
        self.graph.setInsertPoint(node)
        inverse = self.graph.insertConstant(1 / factors)
        product = self.graph.create("aten::mul", [x, inverse], 1)
        product.insertBefore(node)
        product.output().setType(torch._C.TensorType.get())
        return product.output()

    def patches(self, node: Any) -> None:
        """[B, C, g·p, h·p] by p × p patches: [B, out, g, h], as the convolution gives it."""
        x, weight_value, bias_value, stride, padding, dilation, groups = node.inputs()
        weight, bias = weight_value.toIValue(), _constant(bias_value)
        if not isinstance(weight, Tensor) or weight.dim() != 4:
            return
        kernel = list(weight.shape[2:])
        plain = (
            _pair(stride) == kernel
            and _pair(padding) == [0, 0]
            and _pair(dilation) == [1, 1]
            and groups.toIValue() == 1
            and kernel[0] == kernel[1] > 1
        )
        if not plain or (bias is None and not bias_value.node().mustBeNone()):
            return
        side = kernel[0]
        rows = self._inline(_patch_rows, node, x, side)
        # A patch's values lie as they do in a picture with channels last.
        flat = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        output = self._dynamic(node, rows, flat, bias)
        self._replace(node, self._inline(_channels_first, node, output, None))

    def _dynamic(self, node: Any, x: Any, weight: Tensor, bias: Tensor | None) -> Any:
        self.converted += weight.numel()
        params = packed(weight, bias)
        name = f"packed_{self.count}"
        self.count += 1
        kind = torch._C._jit_try_infer_type(params).type()
        self.module._c._register_attribute(name, kind, params)
        read = self.graph.create("prim::GetAttr", [self.itself], 1)
        read.s_("name", name)
        read.output().setType(kind)
        read.insertBefore(node)
        # oneDNN and CPUs with VNNI sum in 32 bits: the activations' range needs no spare bit.
        whole = self.graph.create("prim::Constant", [], 1)
        whole.i_("value", 0)
        whole.output().setType(torch._C.BoolType.get())
        whole.insertBefore(node)
        inputs = [x, read.output(), whole.output()]
        product = self.graph.create("quantized::linear_dynamic", inputs, 1)
        product.insertBefore(node)
        product.output().setType(torch._C.TensorType.get())
        return product.output()

    def _inline(self, function: Any, node: Any, x: Any, number: int | None) -> Any:
        """What ``function`` computes, before ``node``."""
        self.graph.setInsertPoint(node)
        inputs = [x] if number is None else [x, self.graph.insertConstant(number)]
        (output,) = self.graph.insertGraph(function.graph, inputs)
        return output

    def _replace(self, node: Any, output: Any) -> None:
        node.output().replaceAllUsesWith(output)
        node.destroy()


def _layer(node: Any) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a linear layer that can be converted."""
    weight, bias = _constant(node.inputsAt(1)), _constant(node.inputsAt(2))
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    if bias is None and not node.inputsAt(2).node().mustBeNone():
        return None
    return weight, bias


@torch.jit.script
def _patch_rows(pixels: Tensor, side: int) -> Tensor:
    """[B, C, g·side, h·side] → [B, g, h, side·side·C]."""
    batch, channels, height, width = pixels.shape
    grid = [batch, channels, height // side, side, width // side, side]
    patches = pixels.reshape(grid).permute(0, 2, 4, 3, 5, 1)
    return patches.reshape(batch, height // side, width // side, side * side * channels)


@torch.jit.script
def _channels_first(rows: Tensor) -> Tensor:
    """[B, g, h, out] → [B, out, g, h]."""
    return rows.permute(0, 3, 1, 2)


def _pair(value: Any) -> list[int]:
    of = value.toIValue()
    return list(of) * 2 if isinstance(of, list) and len(of) == 1 else of


def _constant(value: Any) -> Any:
    """What a value is whenever the graph runs, as far as that can be told; else None.

    Freezing leaves slices of weights by a width that is read off an activation, as where a
    fused projection's queries and keys are computed apart.
    """
    known = value.toIValue()
    if known is not None:
        return known
    node = value.node()
    if node.kind() == "aten::slice":
        base, axis, start, end, step = node.inputs()
        base = _constant(base)
        bounds = [_bound(start), _bound(end)]
        if not isinstance(base, Tensor) or _UNKNOWN in bounds:
            return None
        picked = [slice(None)] * base.dim()
        picked[axis.toIValue()] = slice(bounds[0], bounds[1], step.toIValue())
        return base[tuple(picked)]
    return None


_UNKNOWN = -1 << 62


def _bound(value: Any) -> int | None:
    """A slice's bound; None if it is open, ``_UNKNOWN`` where it cannot be told."""
    known = value.toIValue()
    node = value.node()
    if known is not None or node.mustBeNone():
        return known
    if node.kind() == "prim::ListUnpack" and node.input().node().kind() == "aten::size":
        outputs = [output.debugName() for output in node.outputs()]
        if value.debugName() == outputs[-1]:
            return _last_side(node.input().node().inputsAt(0))
    return _UNKNOWN


def _last_side(value: Any) -> int:
    """The length of a tensor's last dimension."""
    node = value.node()
    if node.kind() == "aten::layer_norm":
        return node.inputsAt(1).toIValue()[-1]
    if node.kind() in ("aten::linear", "quantized::linear_dynamic"):
        weight = node.inputsAt(1).toIValue()
        return weight.shape[0] if isinstance(weight, Tensor) else _UNKNOWN
    if node.kind() in ("aten::add", "aten::gather"):
        return _last_side(node.inputsAt(0))
    return _UNKNOWN
