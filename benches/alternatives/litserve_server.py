"""The classifier in LitServe: POST a form with the file `picture` to /predict."""

from __future__ import annotations

import litserve
from classifier import Classifier
from options import parsed


class Api(litserve.LitAPI):
    def __init__(self, options) -> None:
        # It waits for no more than is there: a delay was slower here wherever one was tried.
        super().__init__(max_batch_size=options.max_batch, batch_timeout=0.0)
        self.options = options

    def setup(self, device: str) -> None:
        options = self.options
        self.classifier = Classifier(
            options.bundle, options.cache, options.device, options.dtype, options.threads
        )

    def decode_request(self, request):
        return self.classifier.pixels(request["picture"].file.read())

    def batch(self, inputs):
        return inputs

    def predict(self, pixels):
        # Without batching LitServe hands over one input by itself.
        return self.classifier(pixels if isinstance(pixels, list) else [pixels])

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"top": output}


if __name__ == "__main__":
    options = parsed()
    server = litserve.LitServer(
        Api(options),
        accelerator="cpu" if options.device == "cpu" else "cuda",
        workers_per_device=options.workers,
        fast_queue=True,
        timeout=options.queue_seconds,
    )
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")
