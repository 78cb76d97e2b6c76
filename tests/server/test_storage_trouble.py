"""Storage that fails: a clear error, nothing partial, and what is in memory goes on being served.

A full and a read-only disk are real ones (a small tmpfs in a mount namespace of its own). The
bucket is SeaweedFS: killed, frozen, and with its keys changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import contents
import grpc
import numpy as np
import pytest
import wire
from conftest import BINARY, WIDTH, eventually
from contents import Content, aliases_of, listed
from disks import Disk
from seaweed import SeaweedFs
from wire import Problem, cache, finetune

CODE = grpc.StatusCode
# Of requests to a bucket that takes connections and says nothing. The default is object_store's.
IMPATIENT = {"AWS_TIMEOUT": "700ms"}


@pytest.fixture
def disk(tmp_path):
    """Makes small disks."""
    disks = []

    def make(size: str) -> Disk:
        try:
            disks.append(Disk(tmp_path / f"disk-{len(disks)}", size))
        except (PermissionError, FileNotFoundError) as error:
            pytest.skip(f"needs a mount namespace: {error}")
        return disks[-1]

    yield make
    for one in disks:
        one.close()


class Watch:
    """Streams to resident classifiers all the while, by number and by alias."""

    def __init__(self, api: wire.Api, references: dict[str, Content]) -> None:
        self.stopping = threading.Event()
        self.gaps = dict.fromkeys(references, 0.0)
        self.answered = dict.fromkeys(references, 0)
        self.asked = dict.fromkeys(references, 0)
        # A channel of its own: what others wait for does not hold it up.
        self.api = wire.Api(api.address)
        self.pool = ThreadPoolExecutor(len(references))
        self.runs = [self.pool.submit(self._run, r, c) for r, c in references.items()]

    def _run(self, reference: str, content: Content) -> None:
        expected, last = content.logits(), time.monotonic()

        def items():
            while not self.stopping.is_set():
                number = self.asked[reference]
                self.asked[reference] += 1
                yield wire.item(str(number), wire.embedding(contents.PROBES[number % 4]))
                time.sleep(0.01)

        for result in self.api.stream(reference, items(), batch=1, logits=True, timeout=300):
            assert result.WhichOneof("outcome") == "classification", (reference, result)
            row = expected[int(result.id) % 4]
            contents.assert_same(result.classification.logits, row, reference)
            self.answered[reference] += 1
            now = time.monotonic()
            self.gaps[reference], last = max(self.gaps[reference], now - last), now

    def go_on(self) -> None:
        """Waits until each has had answers to what it asked after this call."""
        goal = {reference: asked + 2 for reference, asked in self.asked.items()}
        eventually(lambda: any(run.done() for run in self.runs) or self._reached(goal))
        for run in self.runs:
            assert not run.done(), run.result()

    def _reached(self, goal) -> bool:
        return all(self.answered[reference] >= count for reference, count in goal.items())

    def stop(self) -> None:
        """Every item asked has its answer."""
        self.stopping.set()
        self.pool.shutdown()
        for run in self.runs:
            run.result()
        self.api.close()
        assert self.answered == self.asked
        for reference, gap in self.gaps.items():
            print(f"{reference}: {self.answered[reference]} answers, at most {gap:.1f} s apart")


def fill(api) -> dict[str, Content]:
    """Caches "kept" (served, with an alias), "many" (three versions), "doomed" and "cold"."""
    content = Content.of(1)
    for name in ("kept", "kept", "many", "many", "many", "doomed", "cold"):
        content.make(api, name)
    contents.set_alias(api, "kept", "stable", 2)
    contents.set_alias(api, "kept", "former", 1)
    references = {"kept@1": content, "kept@stable": content}
    for reference in references:
        content.serves_at(api, reference)
    return references


def has(api, method) -> bool:
    """Whether the server has an RPC, called with its first request."""
    try:
        method(api)
    except grpc.RpcError as error:
        return error.code() != CODE.UNIMPLEMENTED
    return True


def changes(api) -> dict:
    """Every call that writes, by name; ready to go, so call it while all is well."""
    found = {
        "create": lambda: Content.of(2).make(api, "kept"),
        "create new": lambda: Content.of(2).make(api, "new"),
        "set alias": lambda: contents.set_alias(api, "kept", "canary", 1),
        "delete alias": lambda: api.caches.DeleteAlias(
            cache.DeleteAliasRequest(cache="kept", alias="former"), timeout=wire.LIMIT
        ),
        "delete": lambda: api.caches.DeleteCache(
            cache.DeleteCacheRequest(name="doomed"), timeout=wire.LIMIT
        ),
        "fine-tune": lambda: fine_tune(api),
    }
    version = cache.DeleteVersionRequest(name="caches/none/versions/1")
    if has(api, lambda api: api.caches.DeleteVersion(version)):
        header, *chunks = api.caches.ExportVersion(cache.ExportVersionRequest(name="kept@1"))
        spec = cache.ImportSpec(cache_id="new", size_bytes=header.header.size_bytes)
        grown = cache.AddExamplesSpec(base="many@3", remove_example_ids=["1-0"])
        found |= {
            "import": lambda: api.caches.ImportVersion(
                iter(
                    [cache.ImportVersionRequest(spec=spec)]
                    + [cache.ImportVersionRequest(chunk=one.chunk) for one in chunks]
                ),
                timeout=wire.LIMIT,
            ),
            "add examples": lambda: list(
                api.caches.AddExamples(
                    iter([cache.AddExamplesRequest(spec=grown)]), timeout=wire.LIMIT
                )
            ),
            "delete version": lambda: api.caches.DeleteVersion(
                cache.DeleteVersionRequest(name="caches/many/versions/2"), timeout=wire.LIMIT
            ),
            "prune": lambda: api.caches.PruneVersions(
                cache.PruneVersionsRequest(name="many", keep=1), timeout=wire.LIMIT
            ),
        }
    return found


def fine_tune(api) -> None:
    request = finetune.FineTuneRequest(cache="kept@1", epochs=2, batch_size=4)
    last = None
    for event in api.tuning.FineTune(request, timeout=wire.LIMIT):
        last = event.run
    assert last.state == finetune.FineTuneRun.STATE_SUCCEEDED, last


def all_fail(attempts, code, reason) -> dict[str, Problem]:
    """Attempts every change at once; each must be refused so."""

    def attempt(call) -> Problem:
        try:
            return Problem(CODE.OK, repr(call()))
        except grpc.RpcError as error:
            return Problem.of_call(error)

    with ThreadPoolExecutor(len(attempts)) as pool:
        problems = dict(zip(attempts, pool.map(attempt, attempts.values()), strict=True))
    wrong = {what: p for what, p in problems.items() if (p.code, p.reason) != (code, reason)}
    assert not wrong, wrong
    return problems


def everything(api) -> dict:
    """What is listed: descriptions and aliases of every cache."""
    found = {}
    for name in api.ids():
        name = name.removeprefix("caches/")
        versions = {n: v.description for n, v in listed(api, name).items()}
        found[name] = versions, aliases_of(api, name)
    return found


def works_again(api) -> None:
    """Every kind of change goes through, and is served."""
    new = Content.of(3)
    last = max(listed(api, "kept"))
    assert new.make(api, "kept").version > last
    new.serves_at(api, "kept")
    for what, call in changes(api).items():
        try:
            call()
        except grpc.RpcError as error:
            raise AssertionError(f"{what}: {Problem.of_call(error)}") from error


# ---- disks -------------------------------------------------------------------


def test_a_full_disk(serve, features_bundle, disk):
    small = disk("2m")
    server = serve(features_bundle, store=small.path, within=small.enter)
    watch = Watch(server.api, fill(server.api))
    before, files, attempts = everything(server.api), small.files(), changes(server.api)
    filler = small.path / "filler"
    small.run("sh", "-c", f"cat /dev/zero > {filler} 2> /dev/null; true")
    problems = all_fail(attempts, CODE.RESOURCE_EXHAUSTED, "STORE_FULL")
    for what, problem in problems.items():
        assert "No space left" in problem.message and re.search("caches/|runs/", problem.message), (
            what
        )
    watch.go_on()
    assert everything(server.api) == before
    assert small.files() == sorted([*files, "filler"])
    Content.of(1).serves_at(server.api, "cold")  # reading goes on, too
    assert server.http("/readyz")[0] == 200
    small.run("rm", filler)
    works_again(server.api)
    watch.stop()


def test_a_disk_that_fills_up_in_mid_write(serve, features_bundle, disk, chance):
    """Writers fill it with versions of all sizes until nothing goes any more."""
    small = disk("3m")
    server = serve(features_bundle, store=small.path, within=small.enter)
    watch = Watch(server.api, fill(server.api))

    def write(own, name):
        made = {}
        while True:
            points = own.normal(size=(int(own.integers(20, 800)), WIDTH)).astype(np.float32)
            spec = cache.CacheSpec(
                cache_id=name, classes=wire.classes("a"), method=cache.METHOD_CLASS_MEAN,
                description=str(len(points)),
            )  # fmt: skip
            try:
                version = server.api.create(spec, wire.examples_of(points, [0] * len(points)))
            except grpc.RpcError as error:
                return made, Problem.of_call(error)
            made[version.version.version] = spec.description

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(write, own, "abc"[n]) for n, own in enumerate(chance.spawn(3))]
        made = {}
        for name, run in zip("abc", runs, strict=True):
            made[name], problem = run.result()
            assert (problem.code, problem.reason) == (CODE.RESOURCE_EXHAUSTED, "STORE_FULL")
    print({name: len(versions) for name, versions in made.items()})
    watch.go_on()
    watch.stop()
    found = everything(server.api)
    assert {name: found.get(name, ({},))[0] for name in "abc"} == made
    # Only what belongs to a version lies there.
    folders = [file.rpartition("/")[0] for file in small.files() if "/versions/" in file]
    assert len(folders) == 2 * len(set(folders)) == 2 * (7 + sum(map(len, made.values())))
    server.kill()
    server.start()
    assert everything(server.api) == found
    for name, versions in made.items():
        for number in versions:
            contents.served(server.api, f"{name}@{number}")
    small.resize("8m")
    works_again(server.api)


def test_a_read_only_disk(serve, features_bundle, disk):
    small = disk("8m")
    server = serve(features_bundle, store=small.path, within=small.enter)
    watch = Watch(server.api, fill(server.api))
    before, files, attempts = everything(server.api), small.files(), changes(server.api)
    small.read_only(True)
    problems = all_fail(attempts, CODE.FAILED_PRECONDITION, "STORE_REFUSED")
    for what, problem in problems.items():
        assert "Read-only" in problem.message and re.search("caches/|runs/", problem.message), what
    watch.go_on()
    assert everything(server.api) == before and small.files() == files
    # A server that only reads may start on it.
    reader = serve(features_bundle, store=small.path, within=small.enter)
    Content.of(1).serves_at(reader.api, "kept@stable")
    Content.of(1).serves_at(reader.api, "cold")
    small.read_only(False)
    works_again(server.api)
    watch.stop()


# ---- buckets -----------------------------------------------------------------


def on_bucket(serve, bundle, s3, **env):
    return serve(bundle, store=s3.url("p"), env=s3.environment | IMPATIENT | env)


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_bucket_that_goes_away(serve, features_bundle, own_s3, how):
    server = on_bucket(serve, features_bundle, own_s3)
    watch = Watch(server.api, fill(server.api))
    before = everything(server.api)
    stop, back = {
        "killed": (own_s3.kill, own_s3.start),
        "frozen": (own_s3.freeze, own_s3.thaw),
    }[how]
    watch.go_on()
    attempts = changes(server.api)
    stop()
    problems = all_fail(attempts, CODE.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert all(problem.retry for problem in problems.values()), problems
    watch.go_on()
    # What is not known to be absent is not said to be.
    problem = problem_of(lambda: contents.served(server.api, "never-seen"))
    assert (problem.code, problem.reason) == (CODE.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert server.http("/readyz")[0] == 200
    watch.go_on()
    back()
    eventually(lambda: problem_of(lambda: everything(server.api)) is None)
    assert everything(server.api) == before
    works_again(server.api)
    watch.stop()


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_bucket_stopped_in_mid_write(serve, features_bundle, own_s3, chance, how):
    """What was acknowledged is there; what was cut off is there whole, or not at all."""
    server = on_bucket(serve, features_bundle, own_s3)
    watch = Watch(server.api, fill(server.api))
    made, lock = {}, threading.Lock()

    def write(own, name):
        while True:
            content = Content.drawn_by(own)
            try:
                version = content.make(server.api, name)
            except grpc.RpcError as error:
                return content, Problem.of_call(error)
            with lock:
                made[name, version.version] = content.description

    names = list("abca")  # two on one id
    with ThreadPoolExecutor(len(names)) as pool:
        runs = [
            pool.submit(write, own, name)
            for own, name in zip(chance.spawn(len(names)), names, strict=True)
        ]
        time.sleep(chance.uniform(0.1, 0.6))
        (own_s3.kill if how == "killed" else own_s3.freeze)()
        cut_off = [run.result() for run in runs]
    for _, problem in cut_off:
        assert (problem.code, problem.reason) == (CODE.UNAVAILABLE, "STORE_UNAVAILABLE")
    watch.go_on()
    (own_s3.start if how == "killed" else own_s3.thaw)()
    eventually(lambda: problem_of(lambda: everything(server.api)) is None)
    pending = {content.description for content, _ in cut_off}
    extra = 0
    for name in set(names):
        there = listed(server.api, name)
        assert sorted(there) == list(range(1, len(there) + 1))
        for number, version in there.items():
            if made.pop((name, number), None) != version.description:
                assert version.description in pending
                pending.remove(version.description)
                extra += 1
            seed = int(version.description.split()[1])
            Content.of(seed).serves_at(server.api, f"{name}@{number}")
    assert not made, "acknowledged and lost"
    print(f"{extra} of {len(cut_off)} that were cut off are there, whole")
    works_again(server.api)
    watch.stop()


def test_a_bucket_that_refuses(serve, features_bundle, chance):
    """Its keys are changed under a running server, and changed back."""
    s3 = SeaweedFs(keys=("first", "secret-1"))
    try:
        server = on_bucket(serve, features_bundle, s3)
        watch = Watch(server.api, fill(server.api))
        attempts = changes(server.api)
        s3.kill()
        s3.keys = ("second", "secret-2")
        s3.start()
        all_fail(attempts, CODE.FAILED_PRECONDITION, "STORE_REFUSED")
        problem = problem_of(server.api.ids)
        assert (problem.code, problem.reason) == (CODE.FAILED_PRECONDITION, "STORE_REFUSED")
        watch.go_on()
        s3.kill()
        s3.keys = ("first", "secret-1")
        s3.start()
        eventually(lambda: problem_of(lambda: everything(server.api)) is None)
        works_again(server.api)
        watch.stop()
    finally:
        s3.close()


def test_a_bucket_that_cannot_be_had_from_the_start(features_bundle):
    s3 = SeaweedFs(keys=("first", "secret-1"))
    env = s3.environment | IMPATIENT

    def refused(said: str, url: str = s3.url("p"), **changed) -> None:
        listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
        done = subprocess.run(
            [BINARY, "serve", "--bundle", features_bundle, "--store", url, *listen],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | env | changed,
        )
        assert done.returncode == 1 and "serving on" not in done.stdout
        assert url in done.stderr and said in done.stderr, done.stderr
        assert "secret-" not in done.stderr and "panicked" not in done.stderr

    try:
        refused("SignatureDoesNotMatch", AWS_SECRET_ACCESS_KEY="secret-2")
        refused("NoSuchBucket", "s3://no-such-bucket/p")
        s3.freeze()
        refused("timed out")
        s3.kill()
        refused("Connection refused")
    finally:
        s3.close()


def problem_of(call) -> Problem | None:
    """The error of a call; None if it succeeds."""
    try:
        call()
    except grpc.RpcError as error:
        return Problem.of_call(error)
    return None
