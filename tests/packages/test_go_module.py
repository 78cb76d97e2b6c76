"""`go get` of the Go client, from a module proxy that has what a tag would give it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

MODULE = "github.com/tipserve/tipserve/clients/go"
PROGRAM = """\
package main

import (
	"fmt"

	tipserve "github.com/tipserve/tipserve/clients/go"
	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

func main() {
	client, err := tipserve.New("127.0.0.1:1")
	if err != nil {
		panic(err)
	}
	defer client.Close()
	fmt.Println(tipserve.Version, pb.Method_METHOD_AUTO)
}
"""


@pytest.fixture
def proxy(tmp_path, version) -> Path:
    """A proxy's folder with the module as git has it: what is not committed is not published."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    folder = tmp_path / "proxy" / MODULE / "@v"
    folder.mkdir(parents=True)
    tag = f"v{version}"
    source = ROOT / "clients/go"
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "."],
        cwd=source, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    files = [name for name in listed.split("\0") if name and (source / name).is_file()]
    # A module within the module (the generator's) is not part of it.
    inner = {str(Path(name).parent) + "/" for name in files if name.endswith("/go.mod")}
    with zipfile.ZipFile(folder / f"{tag}.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in files:
            if not any(name.startswith(other) for other in inner):
                packed.write(source / name, f"{MODULE}@{tag}/{name}")
    shutil.copy(source / "go.mod", folder / f"{tag}.mod")
    (folder / f"{tag}.info").write_text(
        json.dumps({"Version": tag, "Time": "2026-01-01T00:00:00Z"})
    )
    (folder / "list").write_text(f"{tag}\n")
    return tmp_path / "proxy"


def test_a_program_of_another_module_gets_and_builds_it(proxy, tmp_path, version):
    work = tmp_path / "work"
    work.mkdir()
    (work / "main.go").write_text(PROGRAM)
    upstream = subprocess.run(
        ["go", "env", "GOPROXY"], capture_output=True, text=True, check=True
    ).stdout.strip()
    env = os.environ | {
        "GOPROXY": f"file://{proxy},{upstream}",
        "GONOSUMDB": MODULE,
        "GOFLAGS": "-mod=mod",
    }

    def go(*words: str) -> str:
        done = subprocess.run(["go", *words], cwd=work, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    go("mod", "init", "example.org/program")
    go("get", f"{MODULE}@v{version}")
    assert go("run", ".").split() == [version, "METHOD_AUTO"]
