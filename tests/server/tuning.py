"""Fine-tuning calls, for tests that make them."""

from __future__ import annotations

import wire
from wire import cache, finetune

Run = finetune.FineTuneRun
# Epochs that take longer than any test.
LONG = 1000


def make(server, name, data, count=60, *, validation=0, text=True, **fields):
    """A version 1; returns its examples as points and labels. `validation` is a number, or some."""
    points, labels = data.draw(count)
    examples = wire.examples_of(points, labels)
    if validation:
        held = data.draw(validation) if isinstance(validation, int) else validation
        examples += wire.examples_of(*held, validation=True, prefix="v")
    classes = wire.classes([f"n{i}" for i in range(data.count)], data.weights if text else None)
    server.api.create(
        cache.CacheSpec(cache_id=name, classes=classes, method=cache.METHOD_TIP_ADAPTER, **fields),
        examples,
    )
    return points, labels


def tune(server, name, timeout=120, **fields):
    """Runs to the end: runs and progress as they came."""
    runs, progress = [], []
    for event in server.api.tuning.FineTune(
        finetune.FineTuneRequest(cache=name, **fields), timeout=timeout
    ):
        if event.WhichOneof("event") == "run":
            runs.append(event.run)
        else:
            progress.append(event.progress)
    return runs, progress


def runs_of(server, name=""):
    return server.api.tuning.ListFineTunes(finetune.ListFineTunesRequest(cache=name)).fine_tunes


def versions_of(server, name):
    request = cache.ListVersionsRequest(parent=name)
    return [v.version for v in server.api.caches.ListVersions(request).versions]


def started(server, name, **fields):
    """A long run under way: its call and name."""
    call = server.api.tuning.FineTune(
        finetune.FineTuneRequest(cache=name, epochs=LONG, **fields), timeout=300
    )
    events = iter(call)
    run = next(events).run
    assert run.name
    for event in events:
        if event.WhichOneof("event") == "progress":
            break
    return call, run.name


def state_of(server, run):
    return server.api.tuning.GetFineTune(finetune.GetFineTuneRequest(name=run)).state
