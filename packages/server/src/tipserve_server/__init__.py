"""The tipserve program, packaged: `binary()` is its path, `environment()` what it runs in."""

from tipserve_server.launcher import binary, environment

__all__ = ["binary", "environment"]
