"""`publish`: what is uploaded, what is refused, and the index's entry."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomllib
from tipserve_export.cli import main


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle of two files, one of them in 8 bits."""
    folder = tmp_path / "some-vit"
    folder.mkdir()
    rows = []
    for name, table in (("image.pt", "files"), ("image.int8.pt", "int8.files")):
        data = name.encode() * 1000
        (folder / name).write_bytes(data)
        rows.append(f'[{table}]\n"{name}" = "{hashlib.sha256(data).hexdigest()}"\n')
    (folder / "bundle.toml").write_text('name = "some vit"\nlicence = "MIT"\n' + "".join(rows))
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_gets_the_bundle_and_an_index_its_entry(bundle, tmp_path, capsys):
    place = tmp_path / "www/vit"
    assert main(["publish", str(bundle), str(place), "--accuracy", "63.2 %"]) == 0
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        path.name: path.read_bytes() for path in bundle.iterdir()
    }
    entry = tomllib.loads(capsys.readouterr().out)["bundles"]["some-vit"]
    text = (bundle / "bundle.toml").read_bytes()
    assert entry == {
        "address": str(place),
        "sha256": hashlib.sha256(text).hexdigest(),
        "size_bytes": sum(path.stat().st_size for path in bundle.iterdir()),
        "licence": "MIT",
        "accuracy": "63.2 %",
    }
    # The same again, with a signature; another one, never.
    (bundle / "bundle.toml.minisig").write_text("signed")
    assert main(["publish", str(bundle), str(place), "--public-key", "RWx"]) == 0
    assert 'public_key = "RWx"' in capsys.readouterr().out
    assert "bundle.toml.minisig" in names(place)
    (bundle / "bundle.toml").write_bytes(text + b"# changed\n")
    assert main(["publish", str(bundle), str(place)]) == 5
    assert "take a new folder" in capsys.readouterr().err
    assert (place / "bundle.toml").read_bytes() == text


def test_nothing_is_uploaded_of_what_is_wrong(bundle, tmp_path, capsys):
    place = tmp_path / "place"
    assert main(["publish", str(bundle), str(place), "--public-key", "RWx"]) == 3
    assert "minisign -S" in capsys.readouterr().err
    (bundle / "image.int8.pt").write_bytes(b"other")
    assert main(["publish", str(bundle), str(place)]) == 3
    assert "image.int8.pt has the sha256" in capsys.readouterr().err
    (bundle / "image.int8.pt").unlink()
    assert main(["publish", str(bundle), str(place)]) == 3
    assert "is missing" in capsys.readouterr().err
    assert main(["publish", str(tmp_path), str(place)]) == 3
    assert "is no bundle" in capsys.readouterr().err
    text = (bundle / "bundle.toml").read_text()
    (bundle / "bundle.toml").write_text(text.replace("image.int8.pt", "../image.pt"))
    assert main(["publish", str(bundle), str(place)]) == 3
    assert "no plain file name" in capsys.readouterr().err
    assert not place.exists()
    assert main(["publish", str(tmp_path), "nonsense://x"]) == 3


def test_a_hub_gets_one_commit(bundle, monkeypatch, capsys):
    """The calls are those of huggingface_hub: their signatures are its own."""
    hub = pytest.importorskip("huggingface_hub")
    made = []
    for name in ("create_repo", "create_commit"):
        real = getattr(hub.HfApi, name)

        def record(self, *args, name=name, real=real, **more):
            import inspect

            inspect.signature(real).bind(self, *args, **more)
            made.append(SimpleNamespace(name=name, args=args, more=more))

        monkeypatch.setattr(hub.HfApi, name, record)
    assert main(["publish", str(bundle), "hf://org/name/sub@v1"]) == 0
    repository, commit = made
    assert repository.args == ("org/name",)
    assert commit.args == ("org/name",) and commit.more["revision"] == "v1"
    paths = [one.path_in_repo for one in commit.more["operations"]]
    assert paths == ["sub/image.pt", "sub/image.int8.pt", "sub/bundle.toml"]
    assert 'address = "hf://org/name/sub@v1"' in capsys.readouterr().out
    assert main(["publish", str(bundle), "hf://org"]) == 5
    assert "hf://ORG/NAME" in capsys.readouterr().err
