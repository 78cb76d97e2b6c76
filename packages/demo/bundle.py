"""Puts the demo bundle into the wheel: TIPSERVE_DEMO_BUNDLE names its folder (`make bundle`)."""

import os
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundleHook(BuildHookInterface):
    """Hatchling's build hook of the wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Adds the bundle's files."""
        folder = Path(os.environ.get("TIPSERVE_DEMO_BUNDLE", ""))
        if not (folder / "bundle.toml").is_file():
            raise RuntimeError(f"TIPSERVE_DEMO_BUNDLE is {str(folder)!r}: no bundle is there")
        for file in sorted(folder.iterdir()):
            build_data["force_include"][str(file)] = f"tipserve_demo/bundle/{file.name}"
