"""The classifier in Triton, through PyTriton: /v2/models/tip/infer takes BYTES `picture`."""

from __future__ import annotations

import json

import numpy as np
from classifier import Classifier
from options import parsed
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.common import QueuePolicy, TimeoutAction
from pytriton.triton import Triton, TritonConfig


def instance(options):
    """One of the model's instances."""
    classifier = Classifier(
        options.bundle, options.cache, options.device, options.dtype, options.threads
    )

    @batch
    def classify(picture: np.ndarray) -> dict[str, np.ndarray]:
        answers = classifier([classifier.pixels(file) for file in picture[:, 0]])
        return {"top": np.array([[json.dumps(answer).encode()] for answer in answers], object)}

    return classify


if __name__ == "__main__":
    options = parsed()
    config = TritonConfig(
        http_address="127.0.0.1", http_port=options.port, allow_grpc=False, allow_metrics=False
    )
    policy = QueuePolicy(
        timeout_action=TimeoutAction.REJECT,
        default_timeout_microseconds=int(options.queue_seconds * 1e6),
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="tip",
            infer_func=[instance(options) for _ in range(options.workers)],
            inputs=[Tensor(name="picture", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="top", dtype=bytes, shape=(1,))],
            config=ModelConfig(
                max_batch_size=options.max_batch,
                batcher=DynamicBatcher(default_queue_policy=policy),
            ),
            strict=True,
        )
        triton.serve()
