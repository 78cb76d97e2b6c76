"""A script around CLIP: a folder of pictures to labels, in batches; prints pictures a second."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

from classifier import Classifier
from options import parsed

if __name__ == "__main__":
    options = parsed()
    classifier = Classifier(
        options.bundle, options.cache, options.device, options.dtype, options.threads
    )
    files = sorted(options.pictures.iterdir())

    def read(number: int):
        """A picture of the endless row of them."""
        return classifier.pixels(files[number % len(files)].read_bytes())

    # The next batch is decoded while the encoder has one.
    with ThreadPoolExecutor(options.threads) as decoders:

        def ahead(batch: int):
            first = batch * options.max_batch
            return [decoders.submit(read, first + i) for i in range(options.max_batch)]

        waiting, done, started = ahead(0), 0, time.monotonic()
        warm = options.seconds / 4
        for batch in range(1, 1_000_000):
            pixels = [future.result() for future in waiting]
            waiting = ahead(batch)
            classifier(pixels)
            done += len(pixels)
            spent = time.monotonic() - started
            if warm and spent >= warm:
                warm, done, started = 0, 0, time.monotonic()
            elif spent >= options.seconds:
                break
        decoders.shutdown(cancel_futures=True)
    print(json.dumps({"per_second": done / spent}))
