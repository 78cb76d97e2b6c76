"""The comparison for embeddings: a plain grpc.aio server, written with care.

    python benches/engine/plain_server.py --cache FILE.npz

Speaks ClassifyStream of the same proto with one cache in memory. All that wait, of whatever
message and stream, are scored together (at most 256); the head is Tip-Adapter's formula as two
torch products and an exponential, with the keys' class sums as a product with the one-hot
matrix; answers of a stream that are ready together go out in one message. Protobuf is the C
extension (upb), as pip installs it. Prints "serving on HOST:PORT".
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import grpc
import numpy as np
import torch
from plain_head import Head
from tipserve._proto import classify_pb2 as pb
from tipserve._proto import classify_pb2_grpc

MAX_BATCH = 256
# Unanswered items of one stream, as the server under test has it.
WINDOW = 512


class Service(classify_pb2_grpc.ClassifyServiceServicer):
    def __init__(self, head: Head) -> None:
        self.head = head
        self.waiting: asyncio.Queue = asyncio.Queue(8192)

    async def score(self) -> None:
        """Scores what waits, for ever."""
        while True:
            jobs = [await self.waiting.get()]
            while len(jobs) < MAX_BATCH and not self.waiting.empty():
                jobs.append(self.waiting.get_nowait())
            rows = np.array([job[3].input.embedding.values for job in jobs], dtype=np.float32)
            top_k = max(job[1] for job in jobs)
            index, logits, probabilities = self.head(torch.from_numpy(rows), top_k)
            names = self.head.names
            for (out, wanted, sequence, item), i, z, p in zip(
                jobs, index, logits, probabilities, strict=True
            ):
                result = pb.ItemResult(id=item.id, sequence=sequence)
                answer = result.classification
                answer.version = "caches/c/versions/1"
                for k in range(min(wanted, len(i))):
                    answer.top.add(
                        index=i[k], display_name=names[i[k]], logit=z[k], probability=p[k]
                    )
                out.put_nowait(result)
            # Lets streams read and write between two batches.
            await asyncio.sleep(0)

    async def ClassifyStream(self, requests, context):
        """The stream: a task reads, this one writes."""
        config = (await anext(requests)).config
        await context.send_initial_metadata(())
        top_k = config.options.top_k or 5
        out: asyncio.Queue = asyncio.Queue()
        room = asyncio.Semaphore(WINDOW)
        total = None

        async def read() -> None:
            nonlocal total
            sequence = 0
            async for message in requests:
                for item in message.items.items:
                    await room.acquire()
                    await self.waiting.put((out, top_k, sequence, item))
                    sequence += 1
            total = sequence
            out.put_nowait(None)

        reading = asyncio.create_task(read())
        written = 0
        try:
            while total is None or written < total:
                results = [await out.get()]
                while len(results) < 64 and not out.empty():
                    results.append(out.get_nowait())
                results = [result for result in results if result is not None]
                if results:
                    yield pb.ClassifyStreamResponse(results=results)
                written += len(results)
                for _ in results:
                    room.release()
        finally:
            reading.cancel()

    async def GetServerInfo(self, request, context):
        info = pb.ServerInfo(version="plain")
        info.bundle.width = self.head.keys.shape[0]
        return info


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    service = Service(Head(arguments.cache))
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 32 << 20)])
    classify_pb2_grpc.add_ClassifyServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving on 127.0.0.1:{port}", flush=True)
    await service.score()


if __name__ == "__main__":
    asyncio.run(main())
