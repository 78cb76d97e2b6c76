"""Records, replays, is refused and frees graphs by the calls of native/, over the fake runtime.

Prints a JSON document. Run by test_cuda_graphs.py: graphs.py RUNTIME CALLS, with RUNTIME preloaded.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import torch

# As the server loads it: its symbols are for all to see.
ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libtorch_cuda.so"), mode=ctypes.RTLD_GLOBAL)
runtime, calls = (ctypes.CDLL(path) for path in sys.argv[1:])


class Stream(ctypes.Structure):
    """tipserve_stream."""

    _fields_ = [("id", ctypes.c_int64), ("device", ctypes.c_int32)]


def call(name: str, *arguments) -> str | None:
    """A call's message: none where it went well."""
    function = getattr(calls, f"tipserve_{name}")
    function.restype = ctypes.c_char_p
    message = function(*arguments)
    return message and message.decode()


def held() -> list[int]:
    """Bytes that torch's allocator has taken, and those that tensors have of them."""
    stats = torch.cuda.memory_stats()
    return [stats["reserved_bytes.all.current"], stats["allocated_bytes.all.current"]]


def record(refusals: int) -> dict:
    """Records an addition, replays it where that went well, frees it, and looks at what is left."""
    runtime.fake_cuda_refuse(refusals)
    before = held()
    graph = ctypes.c_void_p()
    begun = call("graph_begin", stream, ctypes.byref(graph))
    result = torch.empty(1 << 20, device="cuda")
    spare = torch.empty(1 << 20, device="cuda")
    result.add_(1)
    del spare
    found = {"begun": begun, "ended": call("graph_end", graph)}
    if found["ended"] is None:
        launched = runtime.fake_cuda_graphs_launched()
        found["replayed"] = [call("graph_replay", graph), call("graph_replay", graph)]
        found["launched"] = runtime.fake_cuda_graphs_launched() - launched
        call("memory_release")
        found["kept"] = held()[0] - before[0]
        del result
        found["freed"] = call("graph_free", graph)
    else:
        del result
    found["released"] = call("memory_release")
    found["left"] = [now - then for now, then in zip(held(), before, strict=True)]
    try:
        torch.empty(8, device="cuda").normal_()
        found["random"] = None
    except RuntimeError as error:
        found["random"] = str(error)
    return found


first = torch.empty(4, device="cuda").normal_()
stream, before = Stream(), Stream()
assert call("stream_new", 0, ctypes.byref(stream)) is None
assert call("stream_enter", stream, ctypes.byref(before)) is None
# The stream's first tensors take their blocks.
torch.empty(8, device="cuda").normal_()
call("memory_release")
print(
    json.dumps(
        {
            "available": call("graph_available"),
            "good": record(0),
            "refused": record(1),
            "good again": record(0),
        }
    )
)
