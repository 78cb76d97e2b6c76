"""The alternatives and tipserve as processes, each with the way in which it is asked."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from load import Target
from tipserve import Client, Example

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "engine"))
import measure  # noqa: E402


@dataclass(frozen=True)
class Layout:
    """How an alternative uses the machine."""

    workers: int
    threads: int
    max_batch: int = 32
    # How long a request may wait, where the server can be told, and how many may.
    queue_seconds: float = 60
    queue_items: int = 10_000

    def for_deadline(self, seconds: float, per_second: float) -> Layout:
        """As somebody would set it up whose callers wait no longer than this.

        Batches of 4, which take a part of that time, and a queue where nothing waits for more than
        half of it: with all of it, what is answered is always just too late.
        """
        return dataclasses.replace(
            self,
            max_batch=4,
            queue_seconds=seconds / 2,
            queue_items=max(1, int(seconds / 4 * per_second)),
        )

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} threads, batches up to {self.max_batch}"


@dataclass(frozen=True)
class Classified:
    """What every server serves: one bundle's encoder and one cache, in one number format."""

    bundle: Path
    cache: Path
    folder: Path
    pictures: list[bytes]
    device: str
    dtype: str

    def flags(self, layout: Layout, port: int) -> list[str]:
        """The command line of an alternative."""
        told = {
            "bundle": self.bundle,
            "cache": self.cache,
            "device": self.device,
            "dtype": self.dtype,
            "workers": layout.workers,
            "threads": layout.threads,
            "max-batch": layout.max_batch,
            "queue-seconds": layout.queue_seconds,
            "port": port,
        }
        return [f"--{name}={value}" for name, value in told.items()]


@dataclass
class Running:
    """A server that is ready."""

    target: Target
    process: int
    seconds_to_ready: float

    def resident(self) -> int:
        """Bytes of memory of the process and all it has started; shared pages count once."""
        top = psutil.Process(self.process)
        found = [top, *top.children(recursive=True)]
        return sum(one.memory_full_info().pss for one in found)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def started(
    command: list, target: Target, log: Path, env: dict[str, str] | None = None
) -> Iterator[Running]:
    """Runs a command until the block ends; ready once it classifies."""
    begun = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=file,
            stderr=file,
            env=environment,
            cwd=log.parent,
        )
    try:
        while not answers(target):
            if process.poll() is not None or time.monotonic() - begun > 180:
                raise SystemExit(f"{command[1]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield Running(target, process.pid, time.monotonic() - begun)
    finally:
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        # PyTriton's and TorchServe's own children outlive a parent that had to be killed.
        for one in [*family, *((process,) if process.poll() is None else ())]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(60)


def answers(target: Target) -> bool:
    """Does it classify the first picture?"""
    request = urllib.request.Request(target.url, target.bodies[0], target.headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return bool(target.top(response.read()))
    except (OSError, urllib.error.URLError):
        return False


def top_of_json(body: bytes) -> list[tuple[str, float]]:
    """Of the alternatives' own answer."""
    return [(name, logit) for name, logit in json.loads(body)["top"]]


@contextlib.contextmanager
def litserve(of: Classified, layout: Layout) -> Iterator[Running]:
    """LitServe: a form for each picture."""
    port = free_port()
    bound = "alternatives"
    head = (
        f'--{bound}\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    bodies = [head.encode() + file + f"\r\n--{bound}--\r\n".encode() for file in of.pictures]
    kind = {"Content-Type": f"multipart/form-data; boundary={bound}"}
    target = Target(f"http://127.0.0.1:{port}/predict", bodies, kind, top_of_json)
    command = [sys.executable, HERE / "litserve_server.py", *of.flags(layout, port)]
    with started(command, target, of.folder / "litserve.log") as running:
        yield running


@contextlib.contextmanager
def triton(of: Classified, layout: Layout) -> Iterator[Running]:
    """Triton: tensors of BYTES, as its own client writes them."""
    import tritonclient.http as client

    port = free_port()
    bodies, headers = [], {}
    for file in of.pictures:
        tensor = client.InferInput("picture", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[file]], dtype=object))
        output = client.InferRequestedOutput("top", binary_data=False)
        body, length = client.InferenceServerClient.generate_request_body(
            [tensor], outputs=[output]
        )
        # The JSON before the tensor is as long for every picture but for its file's size.
        bodies.append((body, length))
    lengths = {length for _, length in bodies}
    if len(lengths) > 1:
        raise SystemExit("the pictures' files differ in how many digits their sizes have")
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(lengths.pop()),
    }

    def top(body: bytes) -> list[tuple[str, float]]:
        found = json.loads(json.loads(body)["outputs"][0]["data"][0])
        return [(name, logit) for name, logit in found]

    url = f"http://127.0.0.1:{port}/v2/models/tip/infer"
    target = Target(url, [body for body, _ in bodies], headers, top)
    command = [sys.executable, HERE / "triton_server.py", *of.flags(layout, port)]
    # Tensors through shared memory need the very Python that PyTriton was built with: its process
    # brings an interpreter, but takes the standard library of the one that runs.
    env = {"PYTRITON_NO_TENSORSTORE": "1"}
    with started(command, target, of.folder / "triton.log", env) as running:
        yield running


@contextlib.contextmanager
def torchserve(of: Classified, layout: Layout) -> Iterator[Running]:
    """TorchServe: the file is the body."""
    store = of.folder / "torchserve"
    store.mkdir(exist_ok=True)
    settings = store / "model-config.yaml"
    settings.write_text(
        f"minWorkers: {layout.workers}\nmaxWorkers: {layout.workers}\n"
        f"batchSize: {layout.max_batch}\nmaxBatchDelay: 1\nresponseTimeout: 120\n"
    )
    subprocess.run(
        [
            Path(sys.executable).with_name("torch-model-archiver"),
            *("--model-name", "tip", "--version", "1", "--force", "--export-path", store),
            *("--handler", HERE / "torchserve_handler.py", "--config-file", settings),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    ports = {name: free_port() for name in ("inference", "management", "metrics")}
    lines = [f"{name}_address=http://127.0.0.1:{port}" for name, port in ports.items()]
    lines += [f"grpc_{name}_port={free_port()}" for name in ("inference", "management")] + [
        f"job_queue_size={layout.queue_items}",
        "disable_system_metrics=true",
    ]
    config = store / "config.properties"
    config.write_text("\n".join(lines) + "\n")
    target = Target(
        f"http://127.0.0.1:{ports['inference']}/predictions/tip",
        of.pictures,
        {"Content-Type": "application/octet-stream"},
        top_of_json,
    )
    command = [
        *(Path(sys.executable).with_name("torchserve"), "--foreground", "--disable-token-auth"),
        *("--model-store", store, "--models", "tip=tip.mar", "--ts-config", config),
    ]
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ALTERNATIVES": str(HERE),
        "CLASSIFIER": "\n".join(of.flags(layout, 0)),
        "LOG_LOCATION": str(store / "logs"),
        "METRICS_LOCATION": str(store / "logs"),
    }
    with started(command, target, of.folder / "torchserve.log", env) as running:
        yield running


def script(of: Classified, layout: Layout, pictures: Path, seconds: float) -> float:
    """Pictures a second of a script around CLIP."""
    done = subprocess.run(
        [
            *(sys.executable, HERE / "script.py", *of.flags(layout, 0)),
            *(f"--pictures={pictures}", f"--seconds={seconds}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["per_second"]


@contextlib.contextmanager
def tipserve(of: Classified, *flags: str) -> Iterator[Running]:
    """tipserve over HTTP, the file as the body, with default settings but for `flags`."""

    def top(body: bytes) -> list[tuple[str, float]]:
        found = json.loads(body)["classification"]["top"]
        return [(best["displayName"], best["logit"]) for best in found]

    arrays = np.load(of.cache)
    with measure.server(of.bundle, "--device", of.device, *flags) as server:
        with Client(server.address) as client:
            client.create_cache(
                "alternatives",
                [
                    Example(class_=int(label), picture=key, id=str(number))
                    for number, (label, key) in enumerate(
                        zip(arrays["labels"], arrays["keys"], strict=True)
                    )
                ],
                classes=[str(name) for name in arrays["classes"]],
                without_text=True,
                method="tip_adapter",
                alpha=float(arrays["alpha"]),
                beta=float(arrays["beta"]),
            )
        url = f"http://{server.address}/v1/caches/alternatives:classify"
        target = Target(url, of.pictures, {"Content-Type": "image/jpeg"}, top, "Request-Timeout")
        yield Running(target, server.process.pid, server.seconds_to_ready)


def save_cache(of: Classified, classes: int = 10) -> None:
    """Writes the cache. Its keys are the pictures' own features: every answer depends on them."""
    with (
        measure.server(of.bundle, "--device", of.device, "--dtype", of.dtype) as server,
        Client(server.address) as client,
    ):
        keys = client.embed(of.pictures).pictures
    np.savez(
        of.cache,
        keys=keys,
        labels=np.arange(len(keys)) % classes,
        classes=np.array([f"class {number}" for number in range(classes)]),
        alpha=5.0,
        beta=5.5,
    )


SERVERS: dict[str, Callable] = {
    "LitServe": litserve,
    "Triton (PyTriton)": triton,
    "TorchServe": torchserve,
}
