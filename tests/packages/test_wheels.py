"""What the wheels hold and say of themselves."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

DISTRIBUTIONS = ["tipserve", "tipserve_server", "tipserve_demo", "tipserve_export"]


def metadata(wheel: Path):
    """Its METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def requirements(wheel: Path, extra: str = "") -> dict[str, Requirement]:
    """What it asks for, with an extra."""
    found = map(Requirement, metadata(wheel).get_all("Requires-Dist") or ())
    return {
        one.name: one
        for one in found
        if one.marker is None or one.marker.evaluate({"extra": extra})
    }


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_package_says_what_it_is(wheels, version, distribution):
    said = metadata(wheels[distribution])
    assert said["Version"] == version
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Author"]
    assert said["Summary"]
    assert {url.split(",")[0] for url in said.get_all("Project-URL")} >= {"Homepage", "Changelog"}
    assert "Typing :: Typed" in said.get_all("Classifier") or distribution != "tipserve"
    with zipfile.ZipFile(wheels[distribution]) as archive:
        [licence] = [one for one in archive.namelist() if one.endswith("licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    # Its page is read on an index, where a path within the repository leads nowhere.
    for link in re.findall(r"\]\(([^)]+)\)", said.get_payload()):
        assert link.startswith(("https://", "#")), link


def test_every_wheel_is_small_enough_for_pypi(wheels):
    for wheel in wheels.values():
        assert wheel.stat().st_size < 100_000_000, wheel.name


def test_the_packages_ask_for_each_other_in_one_version(wheels, version):
    for distribution in DISTRIBUTIONS:
        for line in metadata(wheels[distribution]).get_all("Requires-Dist") or ():
            one = Requirement(line)
            if one.name.startswith("tipserve"):
                assert str(one.specifier) == f"=={version}"


def test_the_client_alone_is_thin(wheels):
    assert requirements(wheels["tipserve"]).keys() == {
        *("grpcio", "grpcio-status", "googleapis-common-protos", "protobuf")
    }
    with zipfile.ZipFile(wheels["tipserve"]) as archive:
        assert not any(one.endswith("entry_points.txt") for one in archive.namelist())
    assert {"tipserve-server", "tipserve-demo"} <= requirements(wheels["tipserve"], "server").keys()
    assert "tipserve-export" in requirements(wheels["tipserve"], "export")


def test_server_and_export_take_the_same_torch_and_its_cpu_build(wheels):
    server, export = (
        requirements(wheels[f"tipserve_{one}"])["torch"] for one in ("server", "export")
    )
    assert server.specifier == export.specifier
    [release] = server.specifier
    assert release.operator == "=="
    assert server.specifier.contains(Version(f"{release.version}+cpu"))
    built_with = (ROOT / "requirements/runtime.txt").read_text()
    assert f"torch=={release.version}\n" in built_with


def test_the_tag_names_the_glibc_that_the_binary_needs(wheels, tmp_path):
    wheel = wheels["tipserve_server"]
    if "-macosx_" in wheel.name:
        pytest.skip("scripts/macos/check looks at what is for macOS")
    tag = re.search(r"-py3-none-manylinux_2_(\d+)_(x86_64|aarch64)\.whl$", wheel.name)
    assert tag, wheel.name
    with zipfile.ZipFile(wheel) as archive:
        binary = Path(archive.extract("tipserve_server/bin/tipserve", tmp_path))
        # pip gives a file of a package the mode that the wheel has for it.
        assert archive.getinfo("tipserve_server/bin/tipserve").external_attr >> 16 & 0o111 == 0o111
    symbols = readelf("--version-info", binary)
    needed = max(int(minor) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", symbols))
    assert needed <= int(tag[1])
    dynamic = readelf("--dynamic", binary)
    assert re.findall(r"\(RUNPATH\).*\[(.*)\]", dynamic) == ["$ORIGIN/../../torch/lib"]
    # Of torch what both of its builds have, and else every Linux's.
    libraries = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    system = {
        one
        for one in libraries
        if re.match(r"lib(c|m|dl|pthread|gcc_s|stdc\+\+)\.so|ld-linux", one)
    }
    assert libraries - system == {"libtorch_cpu.so", "libc10.so"}
    assert ".symtab" not in readelf("--sections", binary)


def test_the_wheel_carries_the_binarys_bill_of_materials(wheels, version):
    with zipfile.ZipFile(wheels["tipserve_server"]) as archive:
        name = f"tipserve_server-{version}.dist-info/sboms/tipserve.cdx.json"
        bill = json.loads(archive.read(name))
    assert bill["metadata"]["component"]["purl"] == f"pkg:cargo/tipserve@{version}"
    crates = {one["name"]: one for one in bill["components"]}
    # Linked, with a library in C inside; and what only builds or tests.
    assert {"tch", "tonic", "turbojpeg-sys", "onig_sys", "tip-adapter"} <= crates.keys()
    assert not {"proptest", "protox", "cc", "tipserve-measure"} & crates.keys()
    locked = (ROOT / "Cargo.lock").read_text()
    for name, crate in crates.items():
        assert f'name = "{name}"\nversion = "{crate["version"]}"\n' in locked
        assert crate["licenses"]


def readelf(what: str, binary: Path) -> str:
    """What binutils' readelf prints."""
    return subprocess.run(
        ["readelf", "--wide", what, binary], capture_output=True, text=True, check=True
    ).stdout
