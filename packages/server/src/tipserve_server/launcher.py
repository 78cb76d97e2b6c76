"""Starts the tipserve binary with the libtorch of the installed torch.

The binary's own run path finds a torch that lies beside this package, which is how pip, uv and
conda install it. A torch in another folder of `sys.path` (an environment that sees the system's
packages, `PYTHONPATH`, a layer of a notebook server) is found here.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NoReturn

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class Unusable(Exception):
    """The binary cannot run with what is installed; the message says what to install."""


def binary() -> Path:
    """The program's path. Run it with `environment()`."""
    return Path(__file__).resolve().with_name("bin") / "tipserve"


def wanted_torch() -> str:
    """The release of torch that the binary is linked with: this package's own requirement."""
    for requirement in metadata.requires("tipserve-server") or ():
        name, found, release = requirement.partition("==")
        if found and name.strip() == "torch":
            return release.strip()
    raise Unusable("the installed tipserve-server does not name its torch; install it again")


def torch_libraries() -> Path:
    """The folder of libtorch. Does not import torch, which takes a second.

    Raises:
        Unusable: no torch is installed, or another release than the binary is linked with.
    """
    wanted = wanted_torch()
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise Unusable(
            f"torch {wanted} is not installed: pip install torch=={wanted}, "
            f"for CPUs alone with --index-url {CPU_INDEX}"
        )
    installed = metadata.version("torch")
    if installed.partition("+")[0] != wanted:
        raise Unusable(f"torch {wanted} is needed, {installed} is installed")
    return Path(spec.submodule_search_locations[0]).resolve() / "lib"


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that the binary runs in: `base` (this process's own), with
    `LD_LIBRARY_PATH` (`DYLD_LIBRARY_PATH` on macOS) where torch does not lie beside this package.
    """
    result = dict(os.environ if base is None else base)
    libraries = torch_libraries()
    if libraries.parents[1] != binary().parents[2]:
        variable = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
        paths = [str(libraries), result.get(variable, "")]
        result[variable] = os.pathsep.join(filter(None, paths))
    return result


def with_demo(arguments: list[str]) -> list[str]:
    """`tipserve demo` alone takes the bundle and the pictures of tipserve-demo.

    Raises:
        Unusable: `demo` was asked for without `--data`, and tipserve-demo is not installed.
    """
    flags = {"--json", "--quiet", "-q"}
    command = next((at for at, word in enumerate(arguments) if word not in flags), None)
    if command is None or arguments[command] != "demo":
        return arguments
    own = ("--data", "--bundle", "--server", "--help", "-h")
    if any(word.partition("=")[0] in own for word in arguments):
        return arguments
    try:
        import tipserve_demo
    except ImportError:
        raise Unusable(
            "the demo's bundle and pictures are not installed: pip install tipserve-demo, "
            "or give --data and --bundle"
        ) from None
    data = ["--bundle", str(tipserve_demo.bundle()), "--data", str(tipserve_demo.pictures())]
    return [*arguments, *data]


def run_mcp(arguments: list[str]) -> NoReturn:
    """`tipserve mcp`: the Python client's MCP server, which needs no binary.

    Raises:
        Unusable: the client or the `mcp` package is not installed.
    """
    if importlib.util.find_spec("tipserve") is None or importlib.util.find_spec("mcp") is None:
        raise Unusable("the MCP server is not installed: pip install 'tipserve[mcp]'")
    sys.argv = ["tipserve mcp", *arguments]
    runpy.run_module("tipserve.mcp", run_name="__main__")
    sys.exit(0)


def main() -> NoReturn:
    """Becomes the binary: signals, exit code and standard streams are its own."""
    try:
        if sys.argv[1:2] == ["mcp"]:
            run_mcp(sys.argv[2:])
        arguments, variables = with_demo(sys.argv[1:]), environment()
    except Unusable as error:
        print(f"tipserve: {error}", file=sys.stderr)
        sys.exit(1)
    program = binary()
    os.execve(program, ["tipserve", *arguments], variables)
