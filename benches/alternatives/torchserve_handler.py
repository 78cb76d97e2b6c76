"""The classifier in TorchServe: POST a file to /predictions/tip."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.environ["ALTERNATIVES"])
from classifier import Classifier
from options import parsed


class Handler:
    def initialize(self, context) -> None:
        sys.argv[1:] = os.environ["CLASSIFIER"].split("\n")
        options = parsed()
        self.classifier = Classifier(
            options.bundle, options.cache, options.device, options.dtype, options.threads
        )

    def handle(self, data, context):
        files = [bytes(row.get("body") or row.get("data")) for row in data]
        answers = self.classifier([self.classifier.pixels(file) for file in files])
        return [{"top": answer} for answer in answers]
