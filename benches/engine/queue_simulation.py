"""Goodput of an overloaded server by simulating its queue: which margin on predictions is best.

    python benches/engine/queue_simulation.py [--draws N] [--seconds S]

Poisson arrivals at several times what a closed loop of 64 does, a deadline of 1 s, two workers.
The rules are the engine's: admission by the predicted wait (lib.rs), batches by what the most
urgent has time for and by worth (batch_plan.rs), a line of costs whose height follows the last ten
batches (cost.rs). A batch's duration scatters by itself, and with a machine that becomes faster and
slower within seconds; a refusal takes 0.42 ms of a core; an answer arrives some 10 ms after its
batch. Each margin is tried on the same machines. It takes minutes.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WORKERS = 2
MOST = 16
LIMIT = 1.0
REFUSAL = 0.00042
STEP = 0.05
# Seconds of a batch of n pictures on one core: (a, b) of a·n + b.
ENCODERS = {"int8": (0.0265, 0.033), "bfloat16": (0.0445, 0.022)}
# Standard deviations of the log of a batch's duration, and of the machine's speed.
MACHINES = {"its own": (0.04, 0.03), "shared": (0.10, 0.12), "crowded": (0.18, 0.20)}


class CostModel:
    """cost.rs, its shape known."""

    def __init__(self, a: float, b: float) -> None:
        self.shape = b / (a + b)
        self.weight, self.pictures, self.seconds = 1.0, 1.0, a + b
        self.scatter = (math.log(1.15) / 2) ** 2

    def observe(self, n: int, seconds: float) -> None:
        off = min(abs(math.log(seconds / self.predict(n))), math.log(2))
        self.scatter = 0.97 * self.scatter + 0.03 * off * off
        self.weight = 0.9 * self.weight + 1
        self.pictures = 0.9 * self.pictures + n
        self.seconds = 0.9 * self.seconds + seconds

    def predict(self, n: int) -> float:
        one = self.seconds / ((1 - self.shape) * self.pictures + self.shape * self.weight)
        return one * ((1 - self.shape) * n + self.shape)

    def throughput(self, n: int) -> float:
        return n / self.predict(n)

    def worthwhile(self) -> int:
        best = 0.99 * self.throughput(MOST)
        return next(n for n in range(1, MOST + 1) if self.throughput(n) >= best - 1e-9)


Margin = Callable[[CostModel], float]
MARGINS: dict[str, Margin] = {
    "1.15": lambda _: 1.15,
    "1.30": lambda _: 1.30,
    "1.6 deviations": lambda cost: math.exp(1.6 * math.sqrt(cost.scatter)),
    "2 deviations": lambda cost: math.exp(2 * math.sqrt(cost.scatter)),
    "2.5 deviations": lambda cost: math.exp(2.5 * math.sqrt(cost.scatter)),
}


def plan(left: list[float], cost: CostModel, margin: float, overloaded: bool) -> tuple[int, int]:
    """batch_plan.rs: how many are lost, and how many after them are the batch."""
    ends = [cost.predict(n) * margin for n in range(1, len(left) + 1)]
    best_rate = cost.throughput(cost.worthwhile())
    best = None
    for lost, seconds in enumerate(left):
        size = min(bisect.bisect_right(ends, seconds), len(left) - lost)
        if size == 0:
            continue
        worth = size - cost.predict(size) * best_rate
        if best is None or worth > best[0] + 1e-9:
            best = (worth, lost, size)
        if not overloaded:
            break
    return (best[1], best[2]) if best else (len(left) - 1, 1)


@dataclass
class Counts:
    in_time: int = 0
    late: int = 0
    given_up: int = 0
    refused: int = 0


class Server:
    """One run: `rate` arrivals a second, or a closed loop if that is none."""

    def __init__(self, line, machine, margin: Margin, rate: float | None, seed, seconds) -> None:
        self.a, self.b = line
        self.scatter, drift = machine
        self.margin, self.rate, self.seconds = margin, rate, seconds
        self.random = random.Random(f"{seed} {rate}")
        self.cost = CostModel(self.a, self.b)
        self.slowness = self.walk(random.Random(seed), drift)
        self.waiting: list[tuple[float, float]] = []  # deadline, when it was due
        self.running = [[] for _ in range(WORKERS)]
        self.refusals: deque[float] = deque()
        self.counts = Counts()
        self.order = itertools.count()
        # When, a number, the worker whose batch ends (none: an arrival), and when the
        # batch began or the picture was due.
        self.events: list[tuple[float, int, int | None, float]] = []

    def walk(self, source: random.Random, drift: float) -> list[float]:
        """How slow the machine is, every STEP seconds: it forgets within five."""
        kept, x, path = math.exp(-STEP / 5), source.gauss(0, 1), []
        for _ in range(int(self.seconds / STEP) + 2):
            path.append(math.exp(drift * x))
            x = kept * x + math.sqrt(1 - kept * kept) * source.gauss(0, 1)
        return path

    def at(self, time: float, worker: int | None, since: float = 0.0) -> None:
        heapq.heappush(self.events, (time, next(self.order), worker, since))

    def run(self) -> Counts:
        if self.rate is None:
            for _ in range(64):
                self.at(0.01 * self.random.random(), None)
        else:
            due = self.random.expovariate(self.rate)
            while due < self.seconds:
                self.at(due + self.random.expovariate(1 / 0.004), None, due)
                due += self.random.expovariate(self.rate)
        while self.events and self.events[0][0] < self.seconds:
            now, _, worker, since = heapq.heappop(self.events)
            if worker is not None:
                self.answer(now, worker, began=since)
            elif self.rate is None:
                self.waiting.append((math.inf, since))
            else:
                self.admit(now, since)
            for idle in range(WORKERS):
                if not self.running[idle]:
                    self.start(now, idle)
        return self.counts

    def admit(self, now: float, due: float) -> None:
        waiting, running = len(self.waiting), sum(map(len, self.running))
        size = self.cost.worthwhile()
        own = min(waiting // WORKERS + 1, size)
        ahead = (waiting + running / 2) / (WORKERS * self.cost.throughput(size))
        wait = self.margin(self.cost) * (ahead + self.cost.predict(own))
        if waiting + running > 0 and wait > LIMIT:
            self.counts.refused += 1
            self.refusals.append(now)
        else:
            self.waiting.append((now + LIMIT, due))

    def start(self, now: float, worker: int) -> None:
        while self.refusals and self.refusals[0] < now - 1:
            self.refusals.popleft()
        taken = self.waiting[: self.cost.worthwhile()]
        del self.waiting[: len(taken)]
        jobs = sorted(job for job in taken if job[0] > now)
        self.counts.given_up += len(taken) - len(jobs)
        if not jobs:
            return
        lost, size = 0, len(jobs)
        if self.rate is not None:
            left = [deadline - now for deadline, _ in jobs]
            lost, size = plan(left, self.cost, self.margin(self.cost), bool(self.refusals))
        self.counts.given_up += lost
        self.waiting[:0] = jobs[lost + size :]
        self.running[worker] = jobs[lost : lost + size]
        slow = self.slowness[int(now / STEP)] * math.exp(self.random.gauss(0, self.scatter))
        slow *= 1 + len(self.refusals) * REFUSAL / WORKERS
        self.at(now + (self.a * size + self.b) * slow, worker, now)

    def answer(self, now: float, worker: int, began: float) -> None:
        batch, self.running[worker] = self.running[worker], []
        self.cost.observe(len(batch), now - began)
        for _, due in batch:
            if self.rate is None:
                self.counts.in_time += 1
                self.at(now + 0.003, None)
            elif now + self.random.expovariate(1 / 0.010) <= due + LIMIT:
                self.counts.in_time += 1
            else:
                self.counts.late += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="of each draw")
    arguments = parser.parse_args()
    draws, seconds = range(arguments.draws), arguments.seconds

    def goodput(line, machine, margin, rate) -> tuple[float, float]:
        runs = [Server(line, machine, margin, rate, seed, seconds).run() for seed in draws]
        total = len(runs) * seconds
        return sum(it.in_time for it in runs) / total, sum(it.late for it in runs) / total

    print(
        f"{'machine':10}{'encoder':10}{'margin':16}  in time, late at 1.4, 2.9 and 5 x the capacity"
    )
    for (name, machine), (encoder, line) in itertools.product(MACHINES.items(), ENCODERS.items()):
        capacity, _ = goodput(line, machine, MARGINS["1.15"], None)
        for margin, rule in MARGINS.items():
            cells = []
            for factor in (1.4, 2.9, 5.0):
                in_time, late = goodput(line, machine, rule, factor * capacity)
                cells.append(f"{in_time / capacity:.3f} {late / capacity:.3f}")
            print(f"{name:10}{encoder:10}{margin:16}  {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
