"""``python -m tipserve_export``."""

import sys

from tipserve_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
