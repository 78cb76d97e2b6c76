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


@dataclass(frozen=True)
class Content:
    """A Tip-Adapter cache whose every number follows from a seed."""

    seed: int
    classes: int = CLASSES

    @property
    def description(self) -> str:
        """Stands with the version: whose content it says it is."""
        return f"content {self.seed}"

    def drawn(self):
        """Text weights [N,D], points [M,D], labels [M]."""
        chance = np.random.default_rng(self.seed)
        weights = chance.normal(size=(self.classes, WIDTH)).astype(np.float32)
        labels = np.repeat(np.arange(self.classes), SHOTS)
        points = weights[labels] + chance.normal(size=(len(labels), WIDTH)).astype(np.float32)
        return weights, points, labels

    def examples(self) -> list:
        """Its labelled examples."""
        _, points, labels = self.drawn()
        return wire.examples_of(points, labels)

    def spec(self, cache_id: str, **fields) -> cache.CacheSpec:
        """How to make it."""
        return cache.CacheSpec(
            cache_id=cache_id,
            classes=wire.classes([f"n{i}" for i in range(self.classes)], self.drawn()[0]),
            method=cache.METHOD_TIP_ADAPTER,
            alpha=ALPHA,
            beta=BETA,
            description=self.description,
            **fields,
        )

    def logits(self) -> np.ndarray:
        """The probes' logits, [4,N], by the formula in float64."""
        weights, points, labels = self.drawn()
        return formula.tip_adapter(
            formula.unit(PROBES), formula.unit(points), labels, self.classes,
            alpha=ALPHA, beta=BETA, text=formula.unit(weights),
        )  # fmt: skip

    def make(self, api: wire.Api, cache_id: str, **fields) -> cache.Version:
        """Makes a version of it."""
        made = api.create(self.spec(cache_id, **fields), self.examples()).version
        assert made.description == self.description
        return made

    def serves_at(self, api: wire.Api, reference: str) -> None:
        """Asserts that this is what is served under a name."""
        assert_same(served(api, reference), self.logits(), reference)


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
