"""What every alternative is started with."""

from __future__ import annotations

import argparse
from pathlib import Path


def parsed() -> argparse.Namespace:
    """The command line of a server or of the script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help=".npz: keys, labels, classes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each worker")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--queue-seconds", type=float, default=60, help="the longest wait")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pictures", type=Path, help="the script's folder")
    parser.add_argument("--seconds", type=float, default=5, help="of the script")
    return parser.parse_args()
