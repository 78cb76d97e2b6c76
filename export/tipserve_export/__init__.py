"""Writes tipserve bundles: the folder with a model that the server loads."""

__version__ = "0.1.0"
