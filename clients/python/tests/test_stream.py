"""ClassifyStream: each item is answered once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
import threading
import time

import fake_server as fs
import pytest
from conftest import FAST

import tipserve
from tipserve._proto import classify_pb2


def test_every_item_gets_its_own_answer_in_order(fake, call):
    assert fs.class_names(call("classify", "pets", fs.pictures(1000))) == [
        f"picture {i}" for i in range(1000)
    ]
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
                yield fs.response(*waiting)
                waiting = []
        yield fs.response(*waiting)

    fake.streams = [shuffled] * 2
    expected = [f"picture {i}" for i in range(100)]
    assert fs.class_names(call("classify", "pets", fs.pictures(100), ordered=True)) == expected
    unordered = fs.class_names(call("classify", "pets", fs.pictures(100), ordered=False))
    assert unordered != expected
    assert sorted(unordered) == sorted(expected)


def test_what_is_wrong_with_the_whole_stream_raises_at_once(fake, call):
    def unknown(requests, context):
        fs.abort(context, fs.status(5, "no cache 'dogs'", reason="CACHE_NOT_FOUND", cache="dogs"))
        yield

    fake.streams = [unknown] * 2
    for items in (fs.pictures(5), []):
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
                yield fs.response(fs.refusal(item, sequence, why))
            else:
                yield fs.response(fs.answer(item, sequence))

    fake.streams = [picky]
    results = call("classify", "pets", fs.pictures(6))
    assert [r.ok for r in results] == [True, True, True, False, True, True]
    assert isinstance(results[3].error, tipserve.InvalidArgument)
    assert results[3].error.reason == "PICTURE_UNDECODABLE"
    with pytest.raises(tipserve.InvalidArgument):
        _ = results[3].best


def test_a_second_answer_to_one_item_is_ignored(fake, call):
    def twice(requests, context):
        for sequence, item in fs.numbered(requests):
            yield fs.response(fs.answer(item, sequence), fs.answer(item, sequence))

    fake.streams = [twice]
    assert fs.class_names(call("classify", "pets", fs.pictures(10))) == [
        f"picture {i}" for i in range(10)
    ]


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
            yield fs.response(fs.answer(item, sequence))

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


def test_a_timeout_ends_the_stream(fake, call):
    def silent(requests, context):
        for _ in fs.numbered(requests):
            pass
        while context.is_active():
            time.sleep(0.01)
        yield from ()

    fake.streams = [silent] * 5
    with pytest.raises(tipserve.DeadlineExceeded):
        call("classify", "pets", fs.pictures(3), timeout=0.3)


def test_a_folder_is_its_pictures(fake, call, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "sub" / "circle").symlink_to(tmp_path)
    for name in ("b.png", "sub/c.JPG", "a.jpeg", ".hidden.jpg", ".hidden/d.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    assert fs.class_names(call("classify", "pets", tmp_path)) == ["a.jpeg", "b.png", "sub/c.JPG"]
    assert fs.class_names(call("classify", "pets", str(tmp_path / "b.png"))) == ["b.png"]
    with pytest.raises(FileNotFoundError):
        call("classify", "pets", tmp_path / "nowhere")
    with pytest.raises(TypeError, match="classify_one"):
        call("classify", "pets", b"bytes")


def test_options_reach_the_server(fake, call):
    call(
        "classify",
        "pets@stable",
        fs.pictures(1),
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
        call("classify", "pets", fs.pictures(1), priority="urgent")


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"reject": True}, {}),
        ({"reject": 0.9}, {"accept": 0.9}),
        ({"reject_below": 0.0}, {"threshold": 0.0}),
        ({"precision": 0.8}, {"precision": 0.8}),
    ],
)
def test_what_to_reject_reaches_the_server(fake, call, asked, sent):
    call("classify", "pets", fs.pictures(1), **asked)
    [config] = fake.configs
    assert config.options.reject == classify_pb2.RejectOptions(**sent)
    assert config.options.HasField("reject")
    with pytest.raises(ValueError, match="exclude each other"):
        two = {"reject": 0.5, "reject_below": 1.0, **asked}
        call("classify", "pets", fs.pictures(1), **two)


def test_a_program_that_leaves_its_results_unread_ends(fake):
    program = (
        "import sys, tipserve\n"
        "client = tipserve.Client(sys.argv[1])\n"
        "answers = client.classify('pets', [b'0', b'1', b'2'])\n"
        "print([answer.id for _, answer in zip('abc', answers)])\n"
    )
    command = [sys.executable, "-c", program, fake.address]
    for _ in range(5):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "['0', '1', '2']\n"), done.stderr
