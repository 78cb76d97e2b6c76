"""The wheels in empty environments: what a newcomer types, far from any clone."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Environment


def test_the_demo_runs_from_the_wheel(server_environment):
    document = json.loads(server_environment.run("tipserve", "--json", "demo"))
    classes = len(document["classes"])
    assert document["failed"] == 0
    assert document["test_count"] > 0
    assert document["auto_top1"] > 1.5 / classes
    libraries = server_environment.packages / "torch/lib"
    assert list(libraries.glob("libtorch_cpu.*"))


def test_the_program_is_the_binary(server_environment, version):
    run = server_environment.run
    assert run("tipserve", "--version") == f"tipserve {version}\n"
    assert run("python", "-m", "tipserve_server", "--version") == f"tipserve {version}\n"
    for shell in ("bash", "zsh", "fish"):
        assert "tipserve" in run("tipserve", "completions", shell)
    assert run("tipserve", "man").startswith(".ie")
    assert "pip install 'tipserve[mcp]'" in run("tipserve", "mcp", code=1)
    # Exit codes are the binary's own.
    assert "unrecognized subcommand" in run("tipserve", "nonsense", code=2)
    assert "--bundle" in run("tipserve", "demo", "--help")


@contextlib.contextmanager
def serving(environment, tmp_path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of a server from the wheels, and its process."""
    environment.install("tipserve-export", "numpy")
    bundle = tmp_path / "bundle"
    environment.run("tipserve-export", "features", "--width", "16", "--out", bundle)
    addresses = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    program = environment.folder / "bin/tipserve"
    with subprocess.Popen(
        [program, "serve", "--bundle", bundle, "--store", tmp_path / "store", *addresses],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment.variables,
    ) as server:
        try:
            yield re.match(r"tipserve: serving on (\S+)", server.stdout.readline())[1], server
        finally:
            server.kill()


def test_a_server_and_its_client_from_the_wheels(server_environment, tmp_path):
    """A bundle by tipserve-export, a server of it, a cache by the Python client, SIGTERM."""
    with serving(server_environment, tmp_path) as (address, server):
        script = tmp_path / "client.py"
        script.write_text(CLIENT)
        assert server_environment.run("python", script, address).split() == ["warm", "cold"]
        # The launcher has become the server: it is told to stop, and stops in order.
        server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0


@pytest.mark.parametrize("protobuf", ["4.25", "5", "6"])
def test_the_client_works_beside_what_pins_an_older_protobuf(
    server_environment, tmp_path, protobuf
):
    environment = Environment(tmp_path / "venv")
    environment.install(f"protobuf=={protobuf}.*", "tipserve", "numpy")
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    with serving(server_environment, tmp_path) as (address, _):
        assert environment.run("python", "-W", "error", script, address).split() == ["warm", "cold"]
    found = environment.run("python", "-c", "import google.protobuf as it; print(it.__version__)")
    assert found.startswith(protobuf)


CLIENT = textwrap.dedent("""
    import sys

    import numpy
    import tipserve

    warm, cold = numpy.eye(2, 16, dtype="float32")
    with tipserve.Client(sys.argv[1]) as client:
        examples = [
            tipserve.Example(name, vector + 0.01 * index, f"{name}{index}")
            for name, vector in {"warm": warm, "cold": cold}.items()
            for index in range(3)
        ]
        client.create_cache("weather", examples)
        for result in client.classify("weather", [warm, cold]):
            print(result.best.display_name)
""")


def test_torch_that_is_missing_or_another_is_named(bare_environment, tmp_path):
    said = bare_environment.run("tipserve", "--version", code=1)
    assert re.search(r"torch 2\.\d+\.\d+ is not installed: pip install torch==", said)

    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").touch()
    information = tmp_path / "torch-2.1.0+cpu.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.1.0+cpu\n"
    )
    said = bare_environment.run("tipserve", "--version", code=1, variables=path(tmp_path))
    assert "is needed, 2.1.0+cpu is installed" in said


def test_torch_may_lie_in_another_folder(bare_environment, server_environment, version, tmp_path):
    """As it does where an environment sees the system's packages."""
    for found in server_environment.packages.glob("torch*"):
        (tmp_path / found.name).symlink_to(found)
    run = bare_environment.run
    assert run("tipserve", "--version", variables=path(tmp_path)) == f"tipserve {version}\n"
    # It is found for any other command too; but nothing to show is installed here.
    said = run("tipserve", "demo", code=1, variables=path(tmp_path))
    assert "pip install tipserve-demo" in said


def path(folder: Path) -> dict[str, str]:
    """An environment in which Python looks into a folder first."""
    return {"PYTHONPATH": str(folder)}
