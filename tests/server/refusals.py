"""Calls that must be refused, and servers that must go on after them."""

from __future__ import annotations

import grpc
import pytest
from wire import Problem

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND


def refused(call, *arguments, **named) -> Problem:
    """The problem of a call that must fail; a stream is read to its end."""
    with pytest.raises(grpc.RpcError) as caught:
        made = call(*arguments, timeout=60, **named)
        if hasattr(made, "__next__"):
            list(made)
    problem = Problem.of_call(caught.value)
    print(problem)
    assert problem.reason, f"no ErrorInfo: {problem}"
    return problem


def says(problem, code, reason, *words):
    """The code, the reason, and what the message must name."""
    assert (problem.code, problem.reason) == (code, reason), problem
    for word in words:
        assert str(word) in problem.message, problem


def still_serves(server, cache_id, content) -> None:
    """It answers, says that it is well, and has not panicked."""
    assert server.api.one(cache_id, content).top
    assert server.http("/healthz")[0] == server.http("/readyz")[0] == 200
    log = server.log.read_text()
    assert "panicked" not in log, log
