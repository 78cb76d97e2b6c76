"""Puts the binary that cargo built into the wheel: TIPSERVE_BINARY names it.

It is stripped, and looks for libtorch in the torch that is installed beside the wheel's package.
The wheel is tagged for this machine's Linux; auditwheel (`scripts/wheels`) then reads which glibc
the binary needs and tags it for that. TIPSERVE_SBOM names the binary's bill of materials
(`scripts/sbom`), which goes where PEP 770 has it.
"""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# From site-packages/tipserve_server/bin to site-packages/torch/lib.
RUN_PATH = "$ORIGIN/../../torch/lib"


class BinaryHook(BuildHookInterface):
    """Hatchling's build hook of the wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Adds the binary, and says that the wheel is one machine's."""
        if version == "editable":
            raise RuntimeError("tipserve-server has no editable form: build its wheel")
        source = os.environ.get("TIPSERVE_BINARY", "")
        if not Path(source).is_file():
            raise RuntimeError(f"TIPSERVE_BINARY is {source!r}: it has to name the built binary")
        if not Path(os.environ.get("TIPSERVE_SBOM", "")).is_file():
            raise RuntimeError("TIPSERVE_SBOM has to name what scripts/sbom wrote")
        self.folder = tempfile.TemporaryDirectory()
        binary = Path(self.folder.name) / "tipserve"
        shutil.copy2(source, binary)
        binary.chmod(0o755)
        subprocess.run(["strip", "--strip-unneeded", binary], check=True)
        subprocess.run(["patchelf", "--set-rpath", RUN_PATH, binary], check=True)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["sbom_files"].append(str(Path(os.environ["TIPSERVE_SBOM"]).resolve()))
        build_data["force_include"][str(binary)] = "tipserve_server/bin/tipserve"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        """Removes the copy that was made for the wheel."""
        self.folder.cleanup()
