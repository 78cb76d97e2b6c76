"""One load generator for all: aiohttp, a picture a request, connections that stay."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

# Answers of one batch are at most so many seconds apart.
TOGETHER = 0.05


@dataclass
class Target:
    """How one server is asked: where, with which bodies and headers, and what its answer says."""

    url: str
    bodies: list[bytes]
    headers: dict[str, str]
    # The best classes of an answer's body: pairs of a name and a logit.
    top: Callable[[bytes], list[tuple[str, float]]]
    # The header that tells the server how long its caller waits, where it reads one.
    deadline_header: str | None = None


@dataclass
class Load:
    """What a load brought."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    # When each answer came.
    times: list[float] = field(default_factory=list)
    refused: int = 0
    late: int = 0
    client_cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers (in time, where there is a deadline) a second."""
        return len(self.latencies) / self.seconds

    @property
    def steady_per_second(self) -> float:
        """Answers a second between the first batch of answers and the last.

        A batch's answers come together: where the window's ends cut batches, a count over the
        window is off by a batch or two.
        """
        times = sorted(self.times)
        first = times[0]
        return sum(time > first + TOGETHER for time in times) / (times[-1] - first)

    def percentile(self, percent: int) -> float:
        """Of the answers' latencies, in seconds."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


async def ask(
    session: aiohttp.ClientSession, target: Target, number: int, deadline: float | None = None
) -> bytes | None:
    """An answer's body; nothing if the server refuses."""
    body = target.bodies[number % len(target.bodies)]
    headers = dict(target.headers)
    if deadline and target.deadline_header:
        headers[target.deadline_header] = str(deadline)
    async with session.post(target.url, data=body, headers=headers) as response:
        answer = await response.read()
        return answer if response.status == 200 else None


def session(deadline: float | None = None) -> aiohttp.ClientSession:
    """Connections without a limit; `deadline` in seconds ends a request."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=deadline or 120)
    )


def answers(target: Target) -> list[list[tuple[str, float]]]:
    """What the server says of every picture."""

    async def run() -> list[list[tuple[str, float]]]:
        async with session() as connections:
            found = []
            for number in range(len(target.bodies)):
                answer = await ask(connections, target, number)
                if answer is None:
                    raise SystemExit(f"{target.url} refused picture {number}")
                found.append(target.top(answer))
            return found

    return asyncio.run(run())


def closed(target: Target, concurrency: int, seconds: float, warmup: float) -> Load:
    """`concurrency` callers, each asking again once it has its answer."""

    async def run() -> Load:
        begin = time.monotonic() + warmup
        load = Load(seconds)
        number = iter(range(1 << 60))

        async def caller(connections: aiohttp.ClientSession) -> None:
            while (asked := time.monotonic()) < begin + seconds:
                answer = await ask(connections, target, next(number))
                now = time.monotonic()
                if answer is None:
                    load.refused += 1
                elif begin <= now < begin + seconds:
                    load.latencies.append(now - asked)
                    load.times.append(now)

        async with session() as connections:
            before = time.process_time()
            await asyncio.gather(*(caller(connections) for _ in range(concurrency)))
            load.client_cpu_seconds = time.process_time() - before
        return load

    return asyncio.run(run())


def open_loop(target: Target, rate: float, seconds: float, warmup: float, deadline: float) -> Load:
    """`rate` requests a second whatever becomes of them, each given up after `deadline` seconds."""

    async def run() -> Load:
        load = Load(seconds)
        start = time.monotonic()
        begin = start + warmup

        async def caller(connections: aiohttp.ClientSession, number: int) -> None:
            counts = time.monotonic() >= begin
            asked = time.monotonic()
            try:
                answer = await ask(connections, target, number, deadline)
            except (TimeoutError, aiohttp.ClientError):
                load.late += counts
                return
            if counts and answer is None:
                load.refused += 1
            elif counts:
                load.latencies.append(time.monotonic() - asked)

        async with session(deadline) as connections:
            before = time.process_time()
            calls = set()
            for number in range(int(rate * (warmup + seconds))):
                await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
                call = asyncio.create_task(caller(connections, number))
                calls.add(call)
                call.add_done_callback(calls.discard)
            await asyncio.gather(*calls)
            load.client_cpu_seconds = time.process_time() - before
        return load

    return asyncio.run(run())
