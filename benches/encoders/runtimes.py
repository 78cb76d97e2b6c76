"""One network in several runtimes, each on one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

MOST = 16
"""Pictures in a batch of the server on a CPU (``--max-batch``); more are run as several."""


@dataclass
class Runtime:
    """Features f32 [B, D] of normalised pictures f32 [B, 3, S, S].

    ``lay_out`` puts the pictures into memory as the runtime takes them, which is not measured: the
    server's own come so from its decoder.
    """

    name: str
    run: Callable[[Any], np.ndarray]
    lay_out: Callable[[np.ndarray], Any] = np.ascontiguousarray
    peer: bool = True

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return self.run(self.lay_out(pixels))


def torch_archive(name: str, archive: Path, dtype: torch.dtype) -> Runtime:
    """An archive as the server runs it: channels last, its executor's settings, fused if float."""
    torch.backends.quantized.engine = "onednn"
    torch._C._jit_set_profiling_executor(False)
    torch._C._jit_set_profiling_mode(False)
    module = torch.jit.load(str(archive)).eval()
    if dtype != torch.float32:
        module = torch.jit.optimize_for_inference(torch.jit.freeze(module.to(dtype)))

    def lay_out(pixels: np.ndarray) -> list[torch.Tensor]:
        x = torch.from_numpy(pixels).to(dtype)
        return [it.contiguous(memory_format=torch.channels_last) for it in x.split(MOST)]

    @torch.inference_mode()
    def run(batches: list[torch.Tensor]) -> np.ndarray:
        return torch.cat([module(x).float() for x in batches]).numpy()

    return Runtime(name, run, lay_out, peer=False)


def openvino_int8(archive: Path, calibration: np.ndarray) -> Runtime:
    """NNCF's quantisation for transformers, calibrated, compiled for latency on one thread."""
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    module = torch.jit.load(str(archive)).eval()
    network = openvino.convert_model(module, example_input=torch.from_numpy(calibration[:2]))
    network.reshape({0: [-1, *calibration.shape[1:]]})
    quantised = nncf.quantize(
        network,
        nncf.Dataset([it[None] for it in calibration]),
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(quantised, "CPU", settings)
    request = compiled.create_infer_request()

    def run(pixels: np.ndarray) -> np.ndarray:
        return request.infer({0: pixels})[0].copy()

    return Runtime("OpenVINO int8", run)


def onnx_int8(archive: Path, example: np.ndarray, folder: Path) -> Runtime:
    """ONNX Runtime's dynamic quantisation, a scale for each channel of the weights."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    module = torch.jit.load(str(archive)).eval()
    plain, prepared, int8 = (str(folder / f"{it}.onnx") for it in ("plain", "prepared", "int8"))
    torch.onnx.export(
        module,
        (torch.from_numpy(example),),
        plain,
        input_names=["pixels"],
        output_names=["features"],
        dynamic_axes={"pixels": {0: "batch"}, "features": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, int8, weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])

    def run(pixels: np.ndarray) -> np.ndarray:
        return session.run(None, {"pixels": pixels})[0]

    return Runtime("ONNX Runtime int8", run)
