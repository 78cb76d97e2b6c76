"""Versions of known content: what a maker sent can be told from what is served."""

from __future__ import annotations

from dataclasses import dataclass

import e2e_formula as formula
import grpc
import numpy as np
import wire
from conftest import WIDTH
from wire import cache

CLASSES, SHOTS, ALPHA, BETA = 3, 2, 1.5, 2.0
PROBES = np.random.default_rng(20).normal(size=(4, WIDTH)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Content:
    """A Tip-Adapter cache with text weights: all that its logits follow from."""

    description: str
    weights: np.ndarray
    ids: tuple[str, ...]
    labels: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, seed: int) -> Content:
        """What a seed gives: CLASSES classes of SHOTS examples."""
        weights = np.random.default_rng(seed).normal(size=(CLASSES, WIDTH)).astype(np.float32)
        return cls(f"content {seed}", *drawn(seed, weights))

    @classmethod
    def drawn_by(cls, chance: np.random.Generator) -> Content:
        """A fresh one."""
        return cls.of(int(chance.integers(2**40)))

    def examples(self) -> list:
        """Its labelled examples."""
        return [
            wire.example(label, wire.embedding(point), name)
            for name, label, point in zip(self.ids, self.labels, self.points, strict=True)
        ]

    def spec(self, cache_id: str, **fields) -> cache.CacheSpec:
        """How to make it."""
        return cache.CacheSpec(
            cache_id=cache_id,
            classes=wire.classes([f"n{i}" for i in range(CLASSES)], self.weights),
            method=cache.METHOD_TIP_ADAPTER,
            alpha=ALPHA,
            beta=BETA,
            description=self.description,
            **fields,
        )

    def logits(self) -> np.ndarray:
        """The probes' logits, [4,N], by the formula in float64."""
        return formula.tip_adapter(
            formula.unit(PROBES), formula.unit(self.points), self.labels, CLASSES,
            alpha=ALPHA, beta=BETA, text=formula.unit(self.weights),
        )  # fmt: skip

    def make(self, api: wire.Api, cache_id: str, **fields) -> cache.Version:
        """Makes a version of it."""
        made = api.create(self.spec(cache_id, **fields), self.examples()).version
        assert made.description == self.description
        return made

    def serves_at(self, api: wire.Api, reference: str) -> None:
        """Asserts that this is what is served under a name."""
        assert_same(served(api, reference), self.logits(), reference)

    def grown(self, seed: int, removed: set[str]) -> Content:
        """Without some examples, and with what the seed gives."""
        _, ids, labels, points = drawn(seed, self.weights)
        stay = [i for i, name in enumerate(self.ids) if name not in removed]
        return Content(
            f"grown {seed}",
            self.weights,
            tuple(self.ids[i] for i in stay) + ids,
            np.concatenate([self.labels[stay], labels]),
            np.concatenate([self.points[stay], points]),
        )


def drawn(seed: int, weights: np.ndarray):
    """Weights, and ids, labels [M] and points [M,D] of SHOTS examples a class around them."""
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    noise = np.random.default_rng([seed, 1]).normal(size=(len(labels), WIDTH))
    points = (weights[labels] + noise).astype(np.float32)
    return weights, tuple(f"{seed}-{i}" for i in range(len(labels))), labels, points


def served(api: wire.Api, reference: str) -> np.ndarray:
    """The probes' logits, [4,N], as served."""
    return api.logits(reference, map(wire.embedding, PROBES))


def assert_same(got: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    """Within what float32 may do to logits of some tens."""
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-3, err_msg=what)


def number_of(api: wire.Api, reference: str) -> int:
    """The version that a name stands for in serving."""
    return int(version_name(api, reference).rpartition("/")[2])


def version_name(api: wire.Api, reference: str) -> str:
    return api.one(reference, wire.embedding(PROBES[0])).version


def listed(api: wire.Api, cache_id: str) -> dict[int, cache.Version]:
    """All versions by number, over pages; none where the cache is not there."""
    found, token = {}, ""
    while True:
        request = cache.ListVersionsRequest(parent=cache_id, page_size=1000, page_token=token)
        try:
            page = api.caches.ListVersions(request, timeout=wire.LIMIT)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        found |= {one.version: one for one in page.versions}
        token = page.next_page_token
        if not token:
            return found


def aliases_of(api: wire.Api, cache_id: str) -> dict[str, int]:
    """Where the aliases point."""
    return dict(api.caches.GetCache(cache.GetCacheRequest(name=cache_id)).aliases)


def set_alias(api: wire.Api, cache_id: str, alias: str, version: int):
    """Points an alias at a version."""
    request = cache.SetAliasRequest(cache=cache_id, alias=alias, version=version)
    return api.caches.SetAlias(request, timeout=wire.LIMIT)
