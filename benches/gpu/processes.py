"""The binaries under test as processes: `tipserve-measure`, servers, loads."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

CLASSES, SHOTS = 10, 16


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass
class Row:
    """A figure beside what it must reach; `ok` is None where it is not judged."""

    row: str
    value: float | None
    goal: str
    ok: bool | None
    details: dict = field(default_factory=dict)


@dataclass
class Setup:
    """What everything is measured with."""

    binary: Path
    device: str
    folder: Path
    quick: bool
    seconds: float

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device != "cpu"

    @property
    def torch_device(self) -> torch.device:
        """The first device, as torch names it."""
        return torch.device(re.sub(r"(,.*|all)$", "", self.device).rstrip(":"))

    @property
    def dtype(self) -> str:
        """The encoders' number format: the device's fastest."""
        return "float16" if self.cuda else "float32"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.folder / "bundle"

    def environment(self) -> dict[str, str]:
        """With this Python's libtorch first: the binary may have been built elsewhere."""
        library = str(Path(torch.__file__).parent / "lib")
        before = os.environ.get("LD_LIBRARY_PATH")
        path = f"{library}:{before}" if before else library
        return os.environ | {"LD_LIBRARY_PATH": path}

    def run(self, program: Path, *arguments, timeout: float = 900) -> dict:
        """Runs a program; gives the JSON document that it prints last."""
        done = subprocess.run(
            [program, *map(str, arguments)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode != 0:
            words = " ".join(map(str, arguments))
            raise RuntimeError(
                f"{program.name} {words} ended with {done.returncode}:\n"
                f"{done.stdout}\n{done.stderr}"
            )
        lines = done.stdout.strip().splitlines()
        return json.loads(lines[-1]) if lines else {}

    def measure(self, part: str, *arguments, device: bool = True) -> dict:
        """`tipserve-measure PART`: the program beside the binary."""
        place = ("--device", self.device) if device else ()
        program = self.binary.with_name("tipserve-measure")
        return self.run(program, part, *place, *arguments)

    def encoding(self) -> tuple:
        """Flags of the parts that encode."""
        return ("--bundle", self.bundle, "--dtype", self.dtype)

    def pictures(self, name: str, count: int, width: int, height: int) -> Path:
        """A folder of JPEG files, made once."""
        folder = self.folder / name
        if not folder.exists():
            size = ("--width", width, "--height", height)
            self.measure("pictures", "--out", folder, "--count", count, *size, device=False)
        return folder

    @contextlib.contextmanager
    def server(self, *flags) -> Iterator[Server]:
        """A server with the bundle, which ends with the block."""
        running = Server(self, *flags)
        try:
            yield running
        finally:
            running.stop()


class Server:
    """A `tipserve serve` process on ports of its own."""

    def __init__(self, setup: Setup, *flags) -> None:
        self.setup = setup
        number = len(list(setup.folder.glob("store-*.log")))
        store = setup.folder / f"store-{number}"
        self.log = setup.folder / f"store-{number}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(str(setup.binary), "serve", "--bundle", str(setup.bundle)),
                    *("--store", str(store), "--device", setup.device, "--dtype", setup.dtype),
                    *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
                    *map(str, flags),
                ],
                env=setup.environment(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self.process.stdout.readline()
        found = re.match(r"tipserve: serving on (\S+)", line)
        if found is None:
            self.process.wait(60)
            raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-3000:]}")
        self.address = found[1]

    def stop(self) -> None:
        """Ends it and waits."""
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()

    def ask(self, *arguments) -> dict:
        """A command of the binary against this server."""
        return self.setup.run(
            self.setup.binary, "--quiet", "--json", "--server", self.address, *arguments
        )

    def load(self, *flags) -> dict:
        """`tipserve bench`."""
        return self.ask("bench", *flags)

    def make_caches(self, names: list[str], width: int) -> None:
        """Caches of CLASSES × SHOTS random embeddings, Tip-Adapter, no text."""

        def make(numbered: tuple[int, str]) -> None:
            number, name = numbered
            rng = np.random.default_rng(number)
            rows = rng.standard_normal((CLASSES, 1, width))
            rows = rows + rng.standard_normal((CLASSES, SHOTS, width))
            file = self.setup.folder / f"{name}.npz"
            np.savez(
                file,
                features=rows.reshape(-1, width).astype(np.float32),
                labels=np.repeat(np.arange(CLASSES), SHOTS),
                classes=np.array([f"class {c}" for c in range(CLASSES)]),
            )
            how = ("--without-text", "--method", "tip-adapter", "--alpha", 1, "--beta", 5.5)
            self.ask("create", name, "--from", file, *how)
            file.unlink()

        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(make, enumerate(names)):
                pass
