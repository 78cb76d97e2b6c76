"""ClassifyStream when the stream breaks or an item is refused: reconnecting, sending again."""

from __future__ import annotations

import itertools
import threading
import time

import fake_server as fs
import grpc
import pytest
from conftest import FAST

import tipserve
from tipserve.errors import Code


@pytest.mark.parametrize("ordered", [True, False])
def test_a_broken_stream_is_reconnected_and_only_the_unanswered_are_sent_again(fake, call, ordered):
    def dies_after_seven(requests, context):
        items = list(itertools.islice(fs.numbered(requests), 10))
        # Every other one first, so that what is unanswered is no plain tail.
        for sequence, item in (items[::2] + items[1::2])[:7]:
            yield fs.response(fs.answer(item, sequence))
        context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    fake.streams = [dies_after_seven]
    results = call("classify", "pets", fs.pictures(50), ordered=ordered)
    assert sorted(r.position for r in results) == list(range(50))
    assert all(r.best.display_name == f"picture {r.position}" for r in results)
    if ordered:
        assert [r.position for r in results] == list(range(50))
    assert len(fake.received) == 2
    answered_before = {"0", "2", "4", "6", "8", "1", "3"}
    assert not answered_before & set(fake.received[1])
    assert set(fake.received[1]) == {str(i) for i in range(50)} - answered_before


def test_a_stream_that_ends_early_without_an_error_is_reconnected(fake, call):
    def leaves(requests, context):
        sequence, item = next(fs.numbered(requests))
        yield fs.response(fs.answer(item, sequence))

    fake.streams = [leaves, leaves]
    assert fs.class_names(call("classify", "pets", fs.pictures(30))) == [
        f"picture {i}" for i in range(30)
    ]
    assert len(fake.received) == 3


def test_a_server_that_restarts_loses_nothing(fake, call):
    started = threading.Event()

    def hangs(requests, context):
        next(fs.numbered(requests))
        started.set()
        while context.is_active():
            time.sleep(0.01)
        yield from ()

    fake.streams = [hangs]

    def restart():
        started.wait(30)
        fake.stop()
        fake.start()

    thread = threading.Thread(target=restart)
    thread.start()
    patient = tipserve.RetryPolicy(attempts=40, first_delay=0.05, max_delay=0.2)
    results = call("classify", "pets", fs.pictures(20), retry=patient)
    thread.join()
    assert fs.class_names(results) == [f"picture {i}" for i in range(20)]


def test_a_server_that_stays_away_is_reported_after_the_last_attempt(fake, call):
    def away(requests, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "always away")
        yield

    fake.streams = [away] * 100
    with pytest.raises(tipserve.Unavailable, match="always away"):
        call("classify", "pets", fs.pictures(5))
    assert len(fake.received) == FAST.attempts + 1


def full(retry):
    return fs.status(8, "the queue is full", reason="QUEUE_FULL", retry=retry)


def test_an_item_refused_for_now_is_sent_again(fake, call):
    refused = {}

    def busy(requests, context):
        for sequence, item in fs.numbered(requests):
            refused[item.id] = refused.get(item.id, 0) + 1
            if refused[item.id] <= int(item.id) % 3:
                yield fs.response(fs.refusal(item, sequence, full(0.02)))
            else:
                yield fs.response(fs.answer(item, sequence))

    fake.streams = [busy]
    assert fs.class_names(call("classify", "pets", fs.pictures(30))) == [
        f"picture {i}" for i in range(30)
    ]
    assert refused == {str(i): i % 3 + 1 for i in range(30)}


def test_an_item_refused_too_often_keeps_its_error(fake, call):
    def always_full(requests, context):
        for sequence, item in fs.numbered(requests):
            yield fs.response(fs.refusal(item, sequence, full(0.001)))

    fake.streams = [always_full] * 2
    results = call("classify", "pets", fs.pictures(2), resend=2)
    assert [type(r.error) for r in results] == [tipserve.ResourceExhausted] * 2
    assert sorted(fake.received[0]) == ["0"] * 3 + ["1"] * 3
    call("classify", "pets", fs.pictures(1), resend=0)
    assert fake.received[1] == ["0"]


def test_an_item_refused_for_good_is_not_sent_again(fake, call):
    def too_much(requests, context):
        for sequence, item in fs.numbered(requests):
            yield fs.response(fs.refusal(item, sequence, fs.status(8, "over the quota")))

    fake.streams = [too_much]
    [result] = call("classify", "pets", fs.pictures(1))
    assert result.error.code is Code.RESOURCE_EXHAUSTED
    assert fake.received == [["0"]]


def test_time_limits_go_along_and_shrink_on_resending(fake, call):
    seen = []

    def slow(requests, context):
        for sequence, item in fs.numbered(requests):
            seen.append(item.time_limit.ToNanoseconds() / 1e9)
            if len(seen) == 1:
                yield fs.response(fs.refusal(item, sequence, full(0.2)))
            else:
                yield fs.response(fs.answer(item, sequence))

    fake.streams = [slow]
    [result] = call("classify", "pets", [tipserve.Item(b"p", time_limit=30.0)])
    assert result.ok
    assert seen[0] == pytest.approx(30.0)
    assert 0 < seen[1] <= 29.8


def test_an_item_whose_time_is_over_is_not_sent_again(fake, call):
    def busy(requests, context):
        for sequence, item in fs.numbered(requests):
            yield fs.response(fs.refusal(item, sequence, full(0.2)))

    fake.streams = [busy]
    [result] = call("classify", "pets", fs.pictures(1), time_limit=0.1)
    assert isinstance(result.error, tipserve.DeadlineExceeded)
    assert fake.received == [["0"]]
