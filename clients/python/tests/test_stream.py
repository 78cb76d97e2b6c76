"""ClassifyStream: each item is answered once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time

import fake_server as fs
import grpc
import pytest
from conftest import FAST

import tipserve
from tipserve._proto import classify_pb2
from tipserve.errors import Code


def pictures(count):
    return [f"picture {i}".encode() for i in range(count)]


def names(results):
    return [result.best.display_name for result in results]


def response(*results):
    return classify_pb2.ClassifyStreamResponse(results=results)


def test_every_item_gets_its_own_answer_in_order(fake, call):
    assert names(call("classify", "pets", pictures(1000))) == [f"picture {i}" for i in range(1000)]
    assert fake.configs[0].cache == "pets"


def test_answers_out_of_order_are_put_in_order(fake, call):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)

    def shuffled(requests, context):
        waiting = []
        for sequence, item in fs.numbered(requests):
            waiting.append(fs.answer(item, sequence))
            if len(waiting) == 20:
                chance.shuffle(waiting)
                yield response(*waiting)
                waiting = []
        yield response(*waiting)

    fake.streams = [shuffled] * 2
    expected = [f"picture {i}" for i in range(100)]
    assert names(call("classify", "pets", pictures(100), ordered=True)) == expected
    unordered = names(call("classify", "pets", pictures(100), ordered=False))
    assert unordered != expected
    assert sorted(unordered) == sorted(expected)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_broken_stream_is_reconnected_and_only_the_unanswered_are_sent_again(fake, call, ordered):
    def dies_after_seven(requests, context):
        items = list(itertools.islice(fs.numbered(requests), 10))
        # Every other one first, so that what is unanswered is no plain tail.
        for sequence, item in (items[::2] + items[1::2])[:7]:
            yield response(fs.answer(item, sequence))
        context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    fake.streams = [dies_after_seven]
    results = call("classify", "pets", pictures(50), ordered=ordered)
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
        yield response(fs.answer(item, sequence))

    fake.streams = [leaves, leaves]
    assert names(call("classify", "pets", pictures(30))) == [f"picture {i}" for i in range(30)]
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
    results = call("classify", "pets", pictures(20), retry=patient)
    thread.join()
    assert names(results) == [f"picture {i}" for i in range(20)]


def test_a_server_that_stays_away_is_reported_after_the_last_attempt(fake, call):
    def away(requests, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "always away")
        yield

    fake.streams = [away] * 100
    with pytest.raises(tipserve.Unavailable, match="always away"):
        call("classify", "pets", pictures(5))
    assert len(fake.received) == FAST.attempts + 1


def test_what_is_wrong_with_the_whole_stream_raises_at_once(fake, call):
    def unknown(requests, context):
        fs.abort(context, fs.status(5, "no cache 'dogs'", reason="CACHE_NOT_FOUND", cache="dogs"))
        yield

    fake.streams = [unknown] * 2
    for items in (pictures(5), []):
        with pytest.raises(tipserve.NotFound) as caught:
            call("classify", "dogs", items)
        assert caught.value.reason == "CACHE_NOT_FOUND"
        assert caught.value.metadata == {"cache": "dogs"}
    assert len(fake.received) == 2


def test_an_item_that_fails_is_a_result(fake, call):
    def picky(requests, context):
        for sequence, item in fs.numbered(requests):
            if sequence == 3:
                why = fs.status(3, "not a picture", reason="PICTURE_UNDECODABLE")
                yield response(fs.refusal(item, sequence, why))
            else:
                yield response(fs.answer(item, sequence))

    fake.streams = [picky]
    results = call("classify", "pets", pictures(6))
    assert [r.ok for r in results] == [True, True, True, False, True, True]
    assert isinstance(results[3].error, tipserve.InvalidArgument)
    assert results[3].error.reason == "PICTURE_UNDECODABLE"
    with pytest.raises(tipserve.InvalidArgument):
        _ = results[3].best


def full(retry):
    return fs.status(8, "the queue is full", reason="QUEUE_FULL", retry=retry)


def test_an_item_refused_for_now_is_sent_again(fake, call):
    refused = {}

    def busy(requests, context):
        for sequence, item in fs.numbered(requests):
            refused[item.id] = refused.get(item.id, 0) + 1
            if refused[item.id] <= int(item.id) % 3:
                yield response(fs.refusal(item, sequence, full(0.02)))
            else:
                yield response(fs.answer(item, sequence))

    fake.streams = [busy]
    assert names(call("classify", "pets", pictures(30))) == [f"picture {i}" for i in range(30)]
    assert refused == {str(i): i % 3 + 1 for i in range(30)}


def test_an_item_refused_too_often_keeps_its_error(fake, call):
    def always_full(requests, context):
        for sequence, item in fs.numbered(requests):
            yield response(fs.refusal(item, sequence, full(0.001)))

    fake.streams = [always_full] * 2
    results = call("classify", "pets", pictures(2), resend=2)
    assert [type(r.error) for r in results] == [tipserve.ResourceExhausted] * 2
    assert sorted(fake.received[0]) == ["0"] * 3 + ["1"] * 3
    call("classify", "pets", pictures(1), resend=0)
    assert fake.received[1] == ["0"]


def test_an_item_refused_for_good_is_not_sent_again(fake, call):
    def too_much(requests, context):
        for sequence, item in fs.numbered(requests):
            yield response(fs.refusal(item, sequence, fs.status(8, "over the quota")))

    fake.streams = [too_much]
    [result] = call("classify", "pets", pictures(1))
    assert result.error.code is Code.RESOURCE_EXHAUSTED
    assert fake.received == [["0"]]


def test_a_second_answer_to_one_item_is_ignored(fake, call):
    def twice(requests, context):
        for sequence, item in fs.numbered(requests):
            yield response(fs.answer(item, sequence), fs.answer(item, sequence))

    fake.streams = [twice]
    assert names(call("classify", "pets", pictures(10))) == [f"picture {i}" for i in range(10)]


def test_reading_ahead_stays_within_the_window(fake):
    read = []

    def source():
        for i in itertools.count():
            read.append(i)
            yield b"x"

    with tipserve.Client(fake.address, retry=FAST) as client:
        results = client.classify("pets", source(), window=10)
        for taken in range(1, 200):
            next(results)
            assert len(read) <= taken + 10
        # With nobody taking, reading comes to rest at the window's edge.
        deadline = time.monotonic() + 20
        while len(read) < 199 + 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(read) == 199 + 10
        results.close()


def test_asyncio_reading_ahead_stays_within_the_window(fake):
    read = []

    async def source():
        for i in itertools.count():
            read.append(i)
            yield b"x"

    async def main():
        async with tipserve.AsyncClient(fake.address, retry=FAST) as client:
            results = client.classify("pets", source(), window=10)
            for taken in range(1, 200):
                await anext(results)
                assert len(read) <= taken + 10
            await results.aclose()

    asyncio.run(main())


def test_bytes_held_stay_within_the_window(fake, call):
    held = []

    def slow(requests, context):
        sequences = fs.numbered(requests)
        first = next(sequences)
        time.sleep(0.3)  # long enough for more to come than may
        held.append(len(fake.received[0]))
        for sequence, item in itertools.chain([first], sequences):
            yield response(fs.answer(item, sequence))

    fake.streams = [slow]
    big = [bytes([65 + i % 26]) * 10_000 for i in range(30)]
    results = call("classify", "pets", big, window_bytes=50_000)
    assert [r.ok for r in results] == [True] * 30
    assert held[0] <= 6


def test_closing_the_generator_cancels_the_stream(fake):
    with tipserve.Client(fake.address, retry=FAST) as client:
        results = client.classify("pets", itertools.repeat(b"x"))
        next(results)
        assert not fake.stream_ended.is_set()
        results.close()
        assert fake.stream_ended.wait(20)
        ours = [t for t in threading.enumerate() if t.name.startswith("tipserve-")]
        for thread in ours:
            thread.join(20)
            assert not thread.is_alive()


def test_asyncio_closing_the_generator_cancels_the_stream(fake):
    async def main():
        async with tipserve.AsyncClient(fake.address, retry=FAST) as client:
            results = client.classify("pets", itertools.repeat(b"x"))
            await anext(results)
            assert not fake.stream_ended.is_set()
            await results.aclose()
            assert await asyncio.to_thread(fake.stream_ended.wait, 20)
            # gRPC's own tasks end in later turns of the loop.
            for _ in range(2000):
                if len(asyncio.all_tasks()) == 1:
                    break
                await asyncio.sleep(0.01)
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_asyncio_cancelling_the_task_cancels_the_stream(fake):
    async def main():
        async with tipserve.AsyncClient(fake.address, retry=FAST) as client:
            first = asyncio.Event()

            async def consume():
                async for _ in client.classify("pets", itertools.repeat(b"x")):
                    first.set()

            task = asyncio.create_task(consume())
            await first.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(fake.stream_ended.wait, 20)

    asyncio.run(main())


def test_an_exception_of_the_iterable_is_raised_after_the_results_before_it(fake):
    def source():
        yield b"one"
        yield b"two"
        raise KeyError("mine")

    seen = []
    with tipserve.Client(fake.address, retry=FAST) as client, pytest.raises(KeyError, match="mine"):
        for result in client.classify("pets", source()):
            seen.append(result.best.display_name)
    assert seen == ["one", "two"]

    async def main():
        async with tipserve.AsyncClient(fake.address, retry=FAST) as client:
            async for result in client.classify("pets", source()):
                seen.append(result.best.display_name)

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(main())
    assert seen == ["one", "two"] * 2


def test_a_source_that_waits_for_results_gets_them(fake):
    """A live source: the next item depends on the last answer."""
    answers = []
    answered = threading.Semaphore(1)

    def source():
        for i in range(20):
            assert answered.acquire(timeout=30)
            # Every third one cannot even be read: its error must not wait either.
            yield b"" if i % 3 == 0 else f"{i}".encode()

    with tipserve.Client(fake.address, retry=FAST) as client:
        for result in client.classify("pets", source()):
            answers.append(result)
            answered.release()
    assert [a.position for a in answers] == list(range(20))
    assert [a.ok for a in answers] == [i % 3 != 0 for i in range(20)]


def test_messages_stay_under_the_servers_limit(fake, call, tmp_path):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    limit = fake.limits["max_message_bytes"]
    items = [b"x" * chance.randrange(1, limit - 5000) for _ in range(60)]
    items[17] = b"x" * (limit + 1)
    (tmp_path / "big.jpg").write_bytes(b"y" * (limit * 3))
    items[40] = tmp_path / "big.jpg"
    results = call("classify", "pets", items)
    assert max(fake.message_sizes) <= limit
    assert [i for i, r in enumerate(results) if not r.ok] == [17, 40]
    for position, size in ((17, limit + 1), (40, limit * 3)):
        error = results[position].error
        assert error.reason == "PICTURE_TOO_LARGE"
        assert int(error.metadata["limit"]) <= limit
        assert str(int(error.metadata["limit"])) in error.message
        assert int(error.metadata["value"]) >= size
        assert error.metadata["value"] in error.message


def test_what_cannot_be_sent_is_that_items_error(fake, call, tmp_path):
    items = [b"good", tmp_path / "absent.jpg", b"", 3.5, {"a": 1}, "nul\0.jpg", b"good"]
    results = call("classify", "pets", items)
    assert [r.ok for r in results] == [True, False, False, False, False, False, True]
    reasons = [r.error.reason for r in results[1:-1]]
    assert reasons == ["FILE_UNREADABLE", "PICTURE_EMPTY"] + ["ITEM_UNUSABLE"] * 2 + [
        "FILE_UNREADABLE"
    ]
    assert "absent.jpg" in results[1].error.message


def test_ids_come_back_whatever_they_are(fake, call):
    ids = ["a", "a", "ünï", "x" * 5000, "\ud800", ""]
    items = [tipserve.Item(b"p", id=id) for id in ids]
    results = call("classify", "pets", items)
    assert [r.id for r in results] == [*ids[:-1], "5"]
    assert all(r.ok for r in results)


def test_time_limits_go_along_and_shrink_on_resending(fake, call):
    seen = []

    def slow(requests, context):
        for sequence, item in fs.numbered(requests):
            seen.append(item.time_limit.ToNanoseconds() / 1e9)
            if len(seen) == 1:
                yield response(fs.refusal(item, sequence, full(0.2)))
            else:
                yield response(fs.answer(item, sequence))

    fake.streams = [slow]
    [result] = call("classify", "pets", [tipserve.Item(b"p", time_limit=30.0)])
    assert result.ok
    assert seen[0] == pytest.approx(30.0)
    assert 0 < seen[1] <= 29.8


def test_an_item_whose_time_is_over_is_not_sent_again(fake, call):
    def busy(requests, context):
        for sequence, item in fs.numbered(requests):
            yield response(fs.refusal(item, sequence, full(0.2)))

    fake.streams = [busy]
    [result] = call("classify", "pets", pictures(1), time_limit=0.1)
    assert isinstance(result.error, tipserve.DeadlineExceeded)
    assert fake.received == [["0"]]


def test_a_timeout_ends_the_stream(fake, call):
    def silent(requests, context):
        for _ in fs.numbered(requests):
            pass
        while context.is_active():
            time.sleep(0.01)
        yield from ()

    fake.streams = [silent] * 5
    with pytest.raises(tipserve.DeadlineExceeded):
        call("classify", "pets", pictures(3), timeout=0.3)


def test_a_folder_is_its_pictures(fake, call, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "sub" / "circle").symlink_to(tmp_path)
    for name in ("b.png", "sub/c.JPG", "a.jpeg", ".hidden.jpg", ".hidden/d.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    assert names(call("classify", "pets", tmp_path)) == ["a.jpeg", "b.png", "sub/c.JPG"]
    assert names(call("classify", "pets", str(tmp_path / "b.png"))) == ["b.png"]
    with pytest.raises(FileNotFoundError):
        call("classify", "pets", tmp_path / "nowhere")
    with pytest.raises(TypeError, match="classify_one"):
        call("classify", "pets", b"bytes")


def test_options_reach_the_server(fake, call):
    call(
        "classify",
        "pets@stable",
        pictures(1),
        top_k=3,
        logits=True,
        probabilities=True,
        neighbours=2,
        embedding=True,
        timings=True,
        priority="bulk",
        client_token="secret",
    )
    [config] = fake.configs
    assert config.cache == "pets@stable"
    assert config.options == classify_pb2.ClassifyOptions(
        top_k=3, logits=True, probabilities=True, neighbours=2, embedding=True, timings=True
    )
    assert config.priority == classify_pb2.PRIORITY_BULK
    assert all(m["authorization"] == "Bearer secret" for m in fake.metadata)
    with pytest.raises(ValueError, match="urgent"):
        call("classify", "pets", pictures(1), priority="urgent")
