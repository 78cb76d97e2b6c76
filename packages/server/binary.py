"""Puts the binary that cargo built into the wheel: TIPSERVE_BINARY names it.

It is stripped, and looks for libtorch in the torch that is installed beside the wheel's package.
The wheel is tagged for this machine's Linux; auditwheel (`scripts/wheels`) then reads which glibc
the binary needs and tags it for that. For macOS it is tagged as what the binary is linked for. A
binary that was linked for it elsewhere (`scripts/macos`) is ready as it is: TIPSERVE_PLATFORM has
the tag. TIPSERVE_SBOM names the binary's bill of materials (`scripts/sbom`), which goes where
PEP 770 has it.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# From site-packages/tipserve_server/bin to site-packages/torch/lib.
RUN_PATH = "../../torch/lib"
MACOS = "macosx_12_0_arm64"


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
        platform = os.environ.get("TIPSERVE_PLATFORM", "")
        if not platform:
            platform = prepare(binary)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["sbom_files"].append(str(Path(os.environ["TIPSERVE_SBOM"]).resolve()))
        build_data["force_include"][str(binary)] = "tipserve_server/bin/tipserve"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        """Removes the copy that was made for the wheel."""
        self.folder.cleanup()


def prepare(binary: Path) -> str:
    """Strips the binary and sets its run path; returns the platform that it is for."""
    if sys.platform == "darwin":
        subprocess.run(["strip", "-S", "-x", binary], check=True)
        told = subprocess.run(["otool", "-l", binary], check=True, capture_output=True, text=True)
        for path in re.findall(r"cmd LC_RPATH\n.*\n\s+path (.+) \(offset", told.stdout):
            subprocess.run(["install_name_tool", "-delete_rpath", path, binary], check=True)
        run_path = f"@loader_path/{RUN_PATH}"
        subprocess.run(["install_name_tool", "-add_rpath", run_path, binary], check=True)
        # Changed since it was linked: arm64 starts nothing whose signature is wrong.
        subprocess.run(["codesign", "--force", "--sign", "-", binary], check=True)
        return MACOS
    subprocess.run(["strip", "--strip-unneeded", binary], check=True)
    subprocess.run(["patchelf", "--set-rpath", f"$ORIGIN/{RUN_PATH}", binary], check=True)
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
