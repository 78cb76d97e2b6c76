"""Clients that change caches and remember what was acknowledged, and what must be there later."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

import contents
import grpc
import numpy as np
import wire
from contents import ALPHA, BETA, Content
from wire import cache, finetune

ALIASES = ("stable", "canary")


@dataclass(eq=False)
class Made:
    """A version: whose content, and its logits where they are known by now."""

    content: Content
    description: str
    logits: np.ndarray | None


@dataclass
class Cache:
    """What a cache must hold."""

    versions: dict[int, Made] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    # The highest number ever seen: later ones are higher.
    highest: int = 0

    def shape(self):
        """Descriptions by number, and aliases: what a listing can be held against."""
        return {n: v.description for n, v in self.versions.items()}, self.aliases


@dataclass
class Step:
    """One change: the call, and every state that it may leave if it is cut off."""

    what: str
    cache_id: str
    call: Callable
    # Given a cache, and what the call answered (None where it was cut off), changes the cache.
    outcomes: list[Callable[[Cache, object], None]]


class Client:
    """One caller, the only one to change its own caches; it may add to a shared one."""

    def __init__(self, number: int, seed: int, new_calls: bool) -> None:
        self.chance = np.random.default_rng([seed, number])
        self.caches = {f"own-{number}-{i}": Cache() for i in "ab"}
        self.shared: dict[int, Made] = {}
        self.under_way: Step | None = None
        self.acknowledged = 0
        steps = [
            *(self.create, self.create, self.create, self.add_to_shared, self.fine_tune),
            *(self.set_alias, self.set_alias, self.delete_alias, self.delete_cache),
        ]
        if new_calls:
            steps += [self.add_examples, self.delete_version, self.prune, self.bring_over]
        self.steps = steps

    def run(self, api: wire.Api, dying) -> None:
        """Changes things until the server is gone."""
        while not dying.is_set():
            step = self.chance.choice(self.steps)(api)
            if step is None:
                continue
            self.under_way = step
            try:
                answer = step.call()
            except grpc.RpcError as error:
                if dying.is_set():
                    return
                raise AssertionError(f"{step.what}: {wire.Problem.of_call(error)}") from error
            step.outcomes[-1](self.caches.get(step.cache_id), answer)
            self.under_way = None
            self.acknowledged += 1

    # ---- steps --------------------------------------------------------------

    def seed(self) -> int:
        return int(self.chance.integers(2**40))

    def pick(self, there: bool = True):
        """A cache, with versions if asked for; None if it does not exist."""
        ids = [i for i, c in self.caches.items() if c.versions or not there]
        return str(self.chance.choice(ids)) if ids else None

    def create(self, api) -> Step:
        name, content = self.pick(there=False), Content.of(self.seed())
        made = Made(content, content.description, content.logits())
        return Step("create", name, lambda: content.make(api, name), [nothing, adds(made)])

    def add_to_shared(self, api) -> Step:
        content = Content.of(self.seed())

        def keep(_, version):
            assert version.version not in self.shared
            self.shared[version.version] = Made(content, content.description, content.logits())

        return Step(content.description, "shared", lambda: content.make(api, "shared"), [keep])

    def base(self):
        """A cache with a version of it."""
        name = self.pick()
        if name is None:
            return None, 0, None
        number = int(self.chance.choice(list(self.caches[name].versions)))
        return name, number, self.caches[name].versions[number]

    def fine_tune(self, api) -> Step | None:
        name, number, base = self.base()
        if name is None:
            return None
        alias = str(self.chance.choice(["", *ALIASES]))
        made = Made(base.content, f"tuned {self.seed()}", None)
        request = finetune.FineTuneRequest(
            cache=f"{name}@{number}", epochs=2, batch_size=4, description=made.description,
            move_alias=alias,
        )  # fmt: skip

        def call():
            last = None
            for event in api.tuning.FineTune(request, timeout=wire.LIMIT):
                last = event
            run = last.run
            assert run.state == finetune.FineTuneRun.STATE_SUCCEEDED, run
            return run.version

        def and_moves(state: Cache, version) -> None:
            adds(made)(state, version)
            if alias:
                state.aliases[alias] = max(state.versions)

        # The version first, then the alias.
        return Step("fine-tune", name, call, [nothing, adds(made), and_moves])

    def add_examples(self, api) -> Step | None:
        name, number, base = self.base()
        if name is None:
            return None
        # Of each class one at least stays.
        removed = {i for i in base.content.ids[::2] if self.chance.random() < 0.5}
        content = base.content.grown(self.seed(), removed)
        made = Made(content, content.description, content.logits())
        new = content.examples()[-len(contents.drawn(0, content.weights)[1]) :]
        spec = cache.AddExamplesSpec(
            base=f"{name}@{number}", remove_example_ids=sorted(removed), alpha=ALPHA, beta=BETA,
            method=cache.METHOD_TIP_ADAPTER, description=content.description,
        )  # fmt: skip

        def requests():
            yield cache.AddExamplesRequest(spec=spec)
            yield cache.AddExamplesRequest(examples=cache.ExampleBatch(examples=new))

        def call():
            events = list(api.caches.AddExamples(requests(), timeout=wire.LIMIT))
            return events[-1].version

        return Step("add examples", name, call, [nothing, adds(made)])

    def set_alias(self, api) -> Step | None:
        name, number, _ = self.base()
        if name is None:
            return None
        alias = str(self.chance.choice(ALIASES))

        def moves(state: Cache, _) -> None:
            state.aliases[alias] = number

        return Step(
            "set alias",
            name,
            lambda: contents.set_alias(api, name, alias, number),
            [nothing, moves],
        )

    def delete_alias(self, api) -> Step | None:
        name = self.pick()
        if name is None or not self.caches[name].aliases:
            return None
        alias = str(self.chance.choice(list(self.caches[name].aliases)))
        request = cache.DeleteAliasRequest(cache=name, alias=alias)
        return Step(
            "delete alias",
            name,
            lambda: api.caches.DeleteAlias(request, timeout=wire.LIMIT),
            [nothing, lambda state, _: state.aliases.pop(alias)],
        )

    def delete_cache(self, api) -> Step | None:
        name = self.pick()
        if name is None or self.chance.random() < 0.5:
            return None

        def clears(state: Cache, _) -> None:
            state.versions.clear()
            state.aliases.clear()

        request = cache.DeleteCacheRequest(name=name)
        return Step(
            "delete cache",
            name,
            lambda: api.caches.DeleteCache(request, timeout=wire.LIMIT),
            [nothing, clears],
        )

    def delete_version(self, api) -> Step | None:
        name, number, _ = self.base()
        if name is None or len(self.caches[name].versions) == 1:
            return None
        if number in self.caches[name].aliases.values():
            return None
        request = cache.DeleteVersionRequest(name=f"caches/{name}/versions/{number}")
        return Step(
            "delete version",
            name,
            lambda: api.caches.DeleteVersion(request, timeout=wire.LIMIT),
            [nothing, lambda state, _: state.versions.pop(number)],
        )

    def prune(self, api) -> Step | None:
        name = self.pick()
        if name is None:
            return None
        keep = int(self.chance.integers(1, 4))

        def prunes(state: Cache, answer) -> None:
            newest = sorted(state.versions)[-keep:]
            gone = set(state.versions) - set(newest) - set(state.aliases.values())
            if answer is not None:
                assert list(answer.deleted_versions) == sorted(gone, reverse=True)
            for number in gone:
                del state.versions[number]

        request = cache.PruneVersionsRequest(name=name, keep=keep)
        return Step(
            "prune",
            name,
            lambda: api.caches.PruneVersions(request, timeout=wire.LIMIT),
            [nothing, prunes],
        )

    def bring_over(self, api) -> Step | None:
        """Exports a version and imports it into a cache of its own."""
        name, number, base = self.base()
        if name is None:
            return None
        target = self.pick(there=False)

        def call():
            request = cache.ExportVersionRequest(name=f"{name}@{number}")
            header, *chunks = api.caches.ExportVersion(request, timeout=wire.LIMIT)
            assert sum(len(one.chunk) for one in chunks) == header.header.size_bytes
            spec = cache.ImportSpec(cache_id=target, size_bytes=header.header.size_bytes)
            requests = [cache.ImportVersionRequest(spec=spec)]
            requests += [cache.ImportVersionRequest(chunk=one.chunk) for one in chunks]
            return api.caches.ImportVersion(iter(requests), timeout=wire.LIMIT)

        return Step("import", target, call, [nothing, adds(base)])

    # ---- checks -------------------------------------------------------------

    def check(self, api: wire.Api) -> None:
        """Holds a server that came back against what was acknowledged, and goes on from there."""
        step, self.under_way = self.under_way, None
        for name, before in self.caches.items():
            outcomes = step.outcomes if step and step.cache_id == name else [nothing]
            states = []
            for outcome in outcomes:
                state = deepcopy_of(before)
                outcome(state, None)
                states.append(state)
            there = contents.listed(api, name)
            aliases = contents.aliases_of(api, name) if there else {}
            seen = {n: v.description for n, v in there.items()}, aliases
            fitting = [state for state in states if state.shape() == seen]
            assert fitting, (
                f"{name}: {seen}\nfits none of {[s.shape() for s in states]}"
                f"\nof {step.what if step else 'nothing'} under way"
            )
            after = fitting[0]
            for number, made in after.versions.items():
                check_served(api, f"{name}@{number}", made)
            self.caches[name] = after


def check_served(api: wire.Api, reference: str, made: Made) -> None:
    """It serves whole: the logits known, or any that are remembered from now on."""
    logits = contents.served(api, reference)
    if made.logits is None:
        made.logits = logits
    contents.assert_same(logits, made.logits, f"{reference}: {made.description}")


def check_shared(api: wire.Api, clients: list[Client]) -> None:
    """The cache that all add to: what was acknowledged, and of the rest what is whole."""
    under_way = [c.under_way for c in clients if c.under_way]
    pending = {s.what: s for s in under_way if s.cache_id == "shared"}
    acknowledged = {}
    for client in clients:
        assert not acknowledged.keys() & client.shared.keys(), "a number given twice"
        acknowledged |= client.shared
    there = contents.listed(api, "shared")
    for number, version in there.items():
        made = acknowledged.get(number)
        if made is None:
            assert version.description in pending, f"nobody made {version.description}"
            del pending[version.description]
            content = Content.of(int(version.description.split()[1]))
            made = Made(content, content.description, content.logits())
            clients[0].shared[number] = made
        assert version.description == made.description
        check_served(api, f"shared@{number}", made)
    assert acknowledged.keys() <= there.keys(), "acknowledged and lost"


def deepcopy_of(state: Cache) -> Cache:
    """Its own dictionaries, the same versions."""
    return Cache(dict(state.versions), dict(state.aliases), deepcopy(state.highest))


def nothing(state, answer) -> None:
    """It did not happen."""


def adds(made: Made):
    """It made a version, of the next number."""

    def outcome(state: Cache, version) -> None:
        number = state.highest + 1
        if version is not None:
            assert version.version == number, (version.name, number)
        state.versions[number] = made
        state.highest = number

    return outcome
