"""What does not load was not made: a version is acknowledged once it is known to serve."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from wire import Problem, cache


def test_a_version_that_cannot_be_loaded_fails_its_create_and_is_taken_back(
    serve, features_bundle, chance
):
    """Here it is over the memory that the server may use for versions."""
    server = serve(features_bundle, "--resident-bytes", "200000")
    small = wire.examples_of(chance.normal(size=(8, WIDTH)), np.arange(8) % 2)
    server.api.create(cache.CacheSpec(cache_id="x", classes=wire.classes("ab")), small)
    # 64 wide, two classes: over 1 MB of keys.
    large = wire.examples_of(chance.normal(size=(5000, WIDTH)), np.arange(5000) % 2)
    spec = cache.CacheSpec(cache_id="x", classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN)
    with pytest.raises(grpc.RpcError) as caught:
        server.api.create(spec, large)
    problem = Problem.of_call(caught.value)
    assert problem.code == grpc.StatusCode.RESOURCE_EXHAUSTED, problem
    assert problem.reason == "CACHE_TOO_LARGE" and problem.metadata["limit"] == "resident_bytes"
    # The version before is the latest, and serves.
    found = server.api.caches.GetCache(cache.GetCacheRequest(name="x"), timeout=60)
    assert (found.version_count, found.latest.version) == (1, 1)
    assert server.api.one("x", wire.embedding(np.ones(WIDTH))).top
    # The number is not given again.
    again = server.api.create(spec, small).version
    assert again.version == 3
