"""CUDA graphs without a GPU: torch's own CUDA half over a runtime whose kernels do nothing.

What is computed is not looked at here; that recording, replaying, refusing and freeing leave torch
and the server as they should be, is.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import BINARY, ROOT

HERE = Path(__file__).parent / "fake_cuda"
TORCH = Path(torch.__file__).parent
HEADERS = TORCH.parent / "nvidia/cu13/include"

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available()
    or not (TORCH / "lib/libtorch_cuda.so").exists()
    or not (HEADERS / "driver_types.h").exists(),
    reason="needs a torch with CUDA 13, and no GPU",
)


def build(target: Path, *arguments) -> Path:
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", *map(str, arguments)]
    subprocess.run([*command, "-o", str(target)], check=True, timeout=300)
    return target


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The fake runtime, and the environment of a process over it."""
    folder = tmp_path_factory.mktemp("fake-cuda")
    fake = build(folder / "libfake.so", f"-I{HERE}", "-isystem", HEADERS, HERE / "runtime.cpp")
    # What torch's binding of NVRTC wants of the driver; none of it is called.
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", TORCH / "lib/libcaffe2_nvrtc.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [word for word in listed.split() if word.startswith("cu") and word[2].isupper()]
    driver = folder / "driver.cpp"
    driver.write_text("".join(f'extern "C" int {name}() {{ return 0; }}\n' for name in names))
    build(folder / "libcuda.so.1", "-Wl,-soname,libcuda.so.1", driver)
    paths = f"{folder}:{TORCH / 'lib'}"
    return fake, os.environ | {"LD_PRELOAD": str(fake), "LD_LIBRARY_PATH": paths}


class Picture(torch.nn.Module):
    """A picture's features without a product: the fake has no cuBLAS."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        most = x.amax((2, 3))
        return torch.cat([most, most[:, :1]], 1) * self.weight


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    archive = folder / "image.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Picture().eval().requires_grad_(False)), archive)
    (folder / "bundle.toml").write_text(
        f"""format = 1
name = "largest values"
width = 4
logit_scale = 100.0
templates = ["a photo of a {{}}."]
source = "none"

[image]
file = "image.pt"
size = 8
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
resize = "shortest-side"
resize_to = 8
interpolation = "bicubic"
batch_dynamic = true

[files]
"image.pt" = "{hashlib.sha256(archive.read_bytes()).hexdigest()}"
"""
    )
    return folder


def test_torch_is_as_before_whether_a_recording_ends_well_or_is_refused(runtime, tmp_path):
    fake, environment = runtime
    native = ROOT / "crates/tipserve-clip/native"
    sources = [native / "cuda_graphs.cpp", native / "cuda_streams.cpp"]
    link = (f"-L{TORCH / 'lib'}", "-lc10", "-ldl")
    calls = build(tmp_path / "calls.so", "-isystem", TORCH / "include", *sources, *link)
    done = subprocess.run(
        [sys.executable, HERE / "graphs.py", fake, calls],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(found, indent=1))
    assert found["available"] is None
    for name in ("good", "good again"):
        good = found[name]
        assert good["begun"] is good["ended"] is good["freed"] is None
        assert good["replayed"] == [None, None]
        assert good["launched"] == 2
        # What it writes to stays its own, however much is given back.
        assert good["kept"] >= 8 << 20
    assert "capture" in found["refused"]["ended"]
    for case in ("good", "refused", "good again"):
        assert found[case]["released"] is None
        assert max(found[case]["left"]) <= 0, case
        assert found[case]["random"] is None, case


@pytest.mark.parametrize("refusals", [0, 1, 3])
def test_stream_slots_replay_what_was_recorded_and_go_on_without_if_it_was_refused(
    runtime, bundle, refusals
):
    _, environment = runtime
    flags = ("--device", "cuda", "--bundle", bundle, "--dtype", "float32", "--max-batch", "16")
    done = subprocess.run(
        [BINARY.with_name("tipserve-measure"), "engine", *flags, "--cuda-graphs", "auto", "--seconds", "0.5"],
        env=environment | {"FAKE_CUDA_REFUSALS": str(refusals)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["failed"] == 0
    assert found["pictures_per_second"] > 0
    verdicts = {graph["size"]: graph["verdict"] for graph in found["cuda_graphs"]}
    assert sorted(verdicts) == [1, 2, 4, 8, 16]
    if refusals == 0:
        # Whether a launch of nothing is quicker is for the clock to say.
        assert all("in place of" in verdict for verdict in verdicts.values()), verdicts
    else:
        assert "not used" in verdicts[1]
        assert "capture" in verdicts[1]
        assert all("a batch of 1 was refused" in verdicts[size] for size in (2, 4, 8, 16))
