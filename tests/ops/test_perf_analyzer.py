"""Triton's own load generator finds a model server: no errors, and its count is the server's."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from models import pictures_cache, points_cache
from pictures import photo, png
from processes import absent
from server_fixtures import Clusters, Server
from tritonclient.grpc import InferenceServerClient

REQUESTS = 60


@dataclass
class PerfAnalyzer:
    """The program, where `make test-ops` put it, or PERF_ANALYZER."""

    program: str
    environment: dict

    def run(
        self,
        server: Server,
        model: str,
        folder: Path,
        *options: str,
        code: int = 0,
        protocol: str = "grpc",
    ) -> str:
        """Runs it against a model; what it said."""
        command = [
            *(self.program, "-m", model, "-u", server.address, "-i", protocol),
            *("--request-count", str(REQUESTS), *options),
        ]
        done = subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        said = done.stdout + done.stderr
        print(said)
        assert done.returncode == code, said
        return said


@pytest.fixture(scope="module")
def analyzer() -> PerfAnalyzer:
    folder = Path(sys.executable).parents[1] / "perf-analyzer"
    program = os.environ.get("PERF_ANALYZER", folder / "bin/perf_analyzer")
    libraries = folder / "nvidia/cuda_runtime/lib"
    path = os.pathsep.join(filter(None, [str(libraries), os.environ.get("LD_LIBRARY_PATH")]))
    made = PerfAnalyzer(str(program), os.environ | {"LD_LIBRARY_PATH": path})
    if not Path(program).is_file():
        absent(f"{program} is not there (make test-ops installs it)")
    linked = subprocess.run(
        ["ldd", program], env=made.environment, capture_output=True, text=True, timeout=60
    ).stdout
    if "not found" in linked:
        absent(f"perf_analyzer lacks a library (scripts/prerequisites-ops):\n{linked}")
    return made


@pytest.fixture(scope="module")
def pictures_server(tiny_bundle, tmp_path_factory):
    """A server of the small CLIP."""
    store = tmp_path_factory.mktemp("analyzed") / "store"
    server = Server(tiny_bundle, store, "--dtype", "float32")
    yield server
    server.close()


@pytest.fixture(scope="module")
def features_server(features_bundle, tmp_path_factory):
    """A server of embeddings."""
    server = Server(features_bundle, tmp_path_factory.mktemp("analyzed") / "store")
    yield server
    server.close()


class Counted:
    """What a server counts between two moments."""

    def __init__(self, server: Server, model: str) -> None:
        self.server, self.model = server, model
        self.before = self.now()

    def now(self) -> dict[str, float]:
        samples = self.server.metrics()
        with InferenceServerClient(self.server.address) as client:
            (stats,) = client.get_inference_statistics(self.model).model_stats
        requests = {
            name: value
            for name, value in samples.items()
            if re.match(r'tipserve_requests_total\{method="Model(Stream)?Infer"', name)
        }
        return requests | {
            "ok": samples['tipserve_items_total{outcome="ok"}'],
            "error": samples['tipserve_items_total{outcome="error"}'],
            "inferences": stats.inference_count,
            "successes": stats.inference_stats.success.count,
            "failures": stats.inference_stats.fail.count,
        }

    def since(self) -> dict[str, float]:
        """How far each has risen, where it has."""
        rises = {key: value - self.before.get(key, 0) for key, value in self.now().items()}
        return {key: rise for key, rise in rises.items() if rise}


def reported(said: str) -> int:
    """Requests that the report counts as answered."""
    return int(re.search(r"Request count: (\d+)", said)[1])


def data_of(folder: Path, elements: list[dict]) -> Path:
    """Input data as perf_analyzer reads it."""
    file = folder / "data.json"
    file.write_text(json.dumps({"data": elements}))
    return file


def agree(counted: Counted, said: str, batch: int, *, stream: bool) -> None:
    """What the analyzer saw is what the server counted, and nothing failed."""
    rises = counted.since()
    requests = rises["successes"]
    assert requests >= REQUESTS
    assert reported(said) == REQUESTS
    assert rises["ok"] == rises["inferences"] == requests * batch
    assert not {"error", "failures"} & rises.keys()
    method = "ModelStreamInfer" if stream else "ModelInfer"
    series = [name for name in rises if name.startswith("tipserve_requests_total")]
    assert all(f'method="{method}"' in name for name in series), rises
    if not stream:
        assert rises[f'tipserve_requests_total{{method="{method}",code="OK"}}'] == requests


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("batch", [1, 4])
def test_real_pictures(analyzer, pictures_server, tmp_path, chance, name, stream, batch):
    pictures_cache(pictures_server, name, chance)
    files = [png(photo(chance, i % 3)) for i in range(8)]
    data = data_of(tmp_path, [{"image": {"b64": encoded(file)}} for file in files])
    counted = Counted(pictures_server, name)
    options = ["--input-data", data, "-b", batch, "--concurrency-range", "3"]
    options += ["--streaming", "--async"] if stream else []
    said = analyzer.run(pictures_server, name, tmp_path, *options)
    agree(counted, said, batch, stream=stream)


def encoded(file: bytes) -> str:
    """A picture as the input data has it: a raw tensor, so with its length before it."""
    return base64.b64encode(struct.pack("<I", len(file)) + file).decode()


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("batch", [1, 16])
def test_embeddings(analyzer, features_server, tmp_path, chance, name, stream, batch):
    points_cache(features_server, name, Clusters(chance, 5))
    counted = Counted(features_server, name)
    options = ["-b", batch, "--concurrency-range", "4"]
    options += ["--streaming", "--async"] if stream else []
    # Without input data it makes numbers up: a server of embeddings asks for nothing else.
    said = analyzer.run(features_server, name, tmp_path, *options)
    agree(counted, said, batch, stream=stream)


@pytest.mark.parametrize("batch", [1, 4])
def test_over_http(analyzer, pictures_server, features_server, tmp_path, chance, name, batch):
    pictures_cache(pictures_server, name, chance)
    files = [png(photo(chance, i % 3)) for i in range(8)]
    data = data_of(tmp_path, [{"image": {"b64": encoded(file)}} for file in files])
    points_cache(features_server, name, Clusters(chance, 5))
    given = ["-b", batch, "--concurrency-range", "3"]
    for server, more in ((pictures_server, ["--input-data", data]), (features_server, [])):
        counted = Counted(server, name)
        said = analyzer.run(server, name, tmp_path, *given, *more, protocol="http")
        agree(counted, said, batch, stream=False)


def test_priorities_and_a_version(analyzer, features_server, tmp_path, chance, name):
    for _ in range(2):
        points_cache(features_server, name, Clusters(chance, 5))
    options = ["-x", "1", "--request-parameter", "priority:2:int", "-b", "2"]
    analyzer.run(features_server, name, tmp_path, *options)
    with InferenceServerClient(features_server.address) as client:
        first, second = client.get_inference_statistics(name).model_stats
    assert first.inference_count >= 2 * REQUESTS
    assert second.inference_count == 0


def test_it_says_why_a_model_cannot_be_analyzed(analyzer, features_server, tmp_path):
    said = analyzer.run(features_server, "there-is-none", tmp_path, code=99)
    assert "there-is-none" in said
