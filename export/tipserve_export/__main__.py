"""``python -m tipserve_export``."""

import os
import sys

from tipserve_export.cli import main

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # TorchScript writes a layer's constants in the order of a Python set of strings. With
        # fixed string hashes the same input gives the same bytes, so the same fingerprint.
        os.execve(sys.executable, sys.orig_argv, os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main())
