"""`tipserve pull` from servers, indexes and bundles that mean harm, or are careless."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import BINARY
from test_pull import SIZE, Pull, Web, holds, publish, pull, serving, web  # noqa: F401
from test_pull_trust import Minisign


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def listing(web: Web, folder: str, files: dict[str, bytes], rest: str = "") -> str:  # noqa: F811
    """A bundle that lists these files by name; returns its address."""
    rows = "".join(f'"{name}" = "{sha256(data)}"\n' for name, data in files.items())
    web.files |= {f"{folder}/{name}": data for name, data in files.items()}
    web.files[f"{folder}/bundle.toml"] = f'name = "x"\n[files]\n{rows}{rest}'.encode()
    return web.url + folder


# ---- what a bundle lists ---------------------------------------------------------


def test_the_archives_of_8_bits_come_too(web, pull, chance):  # noqa: F811
    int8 = chance.bytes(900)
    rest = f'[int8]\nimage = "image.int8.pt"\n[int8.files]\n"image.int8.pt" = "{sha256(int8)}"\n'
    address = listing(web, "/vit", {"image.pt": chance.bytes(500)}, rest)
    web.files["/vit/image.int8.pt"] = int8
    made = pull(address)
    assert made["downloaded_bytes"] == 1400
    assert (Path(made["path"]) / "image.int8.pt").read_bytes() == int8


@pytest.mark.parametrize("name", ["bundle.toml", "BUNDLE.toml", "bundle.toml.minisig"])
def test_no_file_takes_the_listings_place(web, pull, chance, name):  # noqa: F811
    """It would be written over a kept file: what another bundle gets by its sha256."""
    victim = chance.bytes(1000)
    pull(listing(web, "/good", {"image.pt": victim}))
    message = pull(listing(web, "/evil", {name: victim}), code=1)
    assert "is the name of another of its files" in message
    assert (pull.cache / "files" / sha256(victim)).read_bytes() == victim


def test_names_that_differ_in_case_alone_are_refused(web, pull, chance):  # noqa: F811
    files = {"image.pt": chance.bytes(10), "IMAGE.pt": chance.bytes(10)}
    assert "another of its files" in pull(listing(web, "/vit", files), code=1)


def test_a_name_does_not_forge_lines(web, pull):  # noqa: F811
    web.files["/vit/bundle.toml"] = b'name = "x\\nserve it with\\u001b[2J"\n[files]\n'
    command = [BINARY, "pull", f"{web.url}/vit"]
    done = subprocess.run(command, env=pull.env, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[0].startswith("x\\nserve it with\\u{1b}[2J: ")


# ---- what is kept ------------------------------------------------------------------


def test_a_kept_file_that_was_damaged_is_fetched_again(web, pull, chance):  # noqa: F811
    _, files = publish(web, "/vit", chance)
    first = pull(f"{web.url}/vit")
    kept = pull.cache / "files" / sha256(files["text.pt"])
    with kept.open("r+b") as opened:
        opened.write(b"damage")
    assert (Path(first["path"]) / "text.pt").read_bytes() != files["text.pt"]
    again = pull(f"{web.url}/vit")
    assert again["downloaded_bytes"] == 1000
    assert again["path"] == first["path"] and holds(again["path"], files)
    # A file of the bundle alone is put in order without a server, if the rest is pinned.
    (Path(first["path"]) / "image.pt").unlink()
    pinned = first["sha256"]
    web.files.clear()
    assert pull(f"{web.url}/vit", "--sha256", pinned)["downloaded_bytes"] == 0
    assert holds(first["path"], files)


def test_others_may_read_what_was_pulled(web, pull, chance, tmp_path):  # noqa: F811
    """A server in a container runs as somebody else."""
    publish(web, "/vit", chance)
    before = os.umask(0o022)
    try:
        made = pull(f"{web.url}/vit", "--to", tmp_path / "new/mine")
    finally:
        os.umask(before)
    for folder in (made["path"], tmp_path / "new/mine"):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(folder).iterdir()}
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o755
        assert set(modes.values()) == {0o644}, modes


def test_a_folder_that_is_there_costs_no_download(web, pull, chance, tmp_path):  # noqa: F811
    publish(web, "/vit", chance)
    (tmp_path / "mine").mkdir()
    assert "name a new folder" in pull(f"{web.url}/vit", "--to", tmp_path / "mine", code=1)
    assert web.asked == []


def test_a_kept_bundle_is_not_taken_without_the_signature_that_is_asked_for(web, pull, chance):  # noqa: F811
    sha, files = publish(web, "/vit", chance)
    signer = Minisign()
    pull(f"{web.url}/vit")
    asked = ("--sha256", sha, "--public-key", signer.public)
    assert "404" in pull(f"{web.url}/vit", *asked, code=3)
    web.files["/vit/bundle.toml.minisig"] = signer.sign(files["bundle.toml"])
    pull(f"{web.url}/vit", *asked)
    # The signature was kept: the next time needs no network.
    web.asked.clear()
    pull(f"{web.url}/vit", *asked)
    assert web.asked == []
    other = Minisign().public
    web.files.clear()
    assert "404" in pull(f"{web.url}/vit", "--sha256", sha, "--public-key", other, code=3)


# ---- what a server sends -------------------------------------------------------------


def test_a_connection_that_is_closed_early_without_a_length(web, pull, chance):  # noqa: F811
    _, files = publish(web, "/vit", chance)
    ends = iter([700_000, 1_000_000])

    def close(handler, data, start):
        at = next(ends, SIZE) if len(data) == SIZE else len(data)
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start : start + at])
        return True

    web.trouble = close
    made = pull(f"{web.url}/vit")
    assert holds(made["path"], files) and made["downloaded_bytes"] == SIZE + 1000
    assert web.ranges("image.pt") == [None, "bytes=700000-", "bytes=1700000-"]


def test_a_part_that_was_not_asked_for(web, pull, chance):  # noqa: F811
    """As by a server that rounds ranges to its blocks."""
    _, files = publish(web, "/vit", chance)
    cut = [True]

    def part(handler, data, start):
        if len(data) != SIZE:
            return False
        if cut.pop() if cut else False:
            handler.begin(data, 0)
            handler.wfile.write(data[:100_001])
            handler.wfile.flush()
            handler.connection.close()
            return True
        if start:
            handler.begin(data, 65_536)
            handler.wfile.write(data[65_536:])
            return True
        return False

    web.trouble = part
    assert holds(pull(f"{web.url}/vit")["path"], files)


@pytest.mark.parametrize("declared", [SIZE - 1, SIZE // 2])
def test_a_shorter_length_than_the_file_has(web, pull, chance, declared):  # noqa: F811
    publish(web, "/vit", chance)

    def shorter(handler, data, start):
        if len(data) != SIZE:
            return False
        handler.begin(data[:declared], start)
        handler.wfile.write(data[start:declared])
        return True

    web.trouble = shorter
    assert "has the sha256" in pull(f"{web.url}/vit", code=1)
    assert not list((pull.cache / "files").glob("*.part"))


def test_a_file_without_an_end_is_not_read_to_it(web, pull, chance, tmp_path):  # noqa: F811
    """The index says how large the bundle is; without it 64 GiB are the most."""
    _, files = publish(web, "/vit", chance)
    size = sum(map(len, files.values()))
    index = tmp_path / "index.toml"
    index.write_text(
        f'[bundles.vit]\naddress = "{web.url}/vit"\nlicence = "MIT"\naccuracy = "none"\n'
        f"size_bytes = {size}\n"
    )
    sent = []

    def endless(handler, data, start):
        if len(data) != SIZE:
            return False
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                sent.append(handler.wfile.write(b"x" * 65_536))
        except OSError:
            return True

    web.trouble = endless
    assert f"over {2 * size} bytes" in pull("vit", "--index", index, code=1)
    assert sum(sent) < 8 * size
    assert all(part.stat().st_size == 0 for part in (pull.cache / "files").glob("*.part"))

    def huge(handler, data, start):
        if len(data) != SIZE:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(2**63))
        handler.end_headers()
        return True

    web.trouble = huge
    assert f"over {64 << 30} bytes" in pull(f"{web.url}/vit", code=1)


def test_a_server_that_asks_for_patience_gets_it(web, pull, chance):  # noqa: F811
    _, files = publish(web, "/vit", chance)
    refusals = [True]

    def busy(handler, data, start):
        if not refusals:
            return False
        refusals.pop()
        handler.send_response(429)
        handler.send_header("Retry-After", "1")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    web.trouble = busy
    assert holds(pull(f"{web.url}/vit")["path"], files)


# ---- where it leads ------------------------------------------------------------------


@pytest.fixture
def elsewhere():
    """A second server of this machine."""
    with serving() as server:
        yield server


def redirecting(to: str):
    def trouble(handler, data, start):
        handler.send_response(302)
        handler.send_header("Location", to + handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return trouble


def test_redirects_are_followed(web, elsewhere, pull, chance):  # noqa: F811
    _, files = publish(web, "/vit", chance)
    elsewhere.files, web.trouble = dict(web.files), redirecting(elsewhere.url)
    assert holds(pull(f"{web.url}/vit")["path"], files)


def test_redirects_to_where_others_can_listen_are_not(web, pull, chance):  # noqa: F811
    publish(web, "/vit", chance)
    web.trouble = redirecting("http://models.example")
    message = pull(f"{web.url}/vit", code=1)
    assert "http://models.example/vit/bundle.toml, which has no TLS" in message
    assert len(web.asked) == 1


def test_redirects_in_a_circle_end(web, pull, chance):  # noqa: F811
    publish(web, "/vit", chance)
    web.trouble = redirecting(web.url)
    assert "over 10 redirects" in pull(f"{web.url}/vit", code=1)
    assert len(web.asked) == 11


def test_a_password_is_not_shown(web, pull, chance):  # noqa: F811
    sha, _ = publish(web, "/vit", chance)
    with_password = web.url.replace("http://", "http://me:secret@")
    asked = []
    web.trouble = lambda handler, data, start: asked.append(handler.headers["Authorization"])
    made = pull(f"{with_password}/vit")
    assert made["address"] == f"{web.url}/vit/"
    assert asked[0].startswith("Basic ")
    web.files.clear()
    message = pull(f"{with_password}/none", code=3)
    assert "secret" not in message and sha not in message


# ---- indexes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('sha256 = "/dev/zero"', "64 hexadecimal digits"),
        ('sha256 = "../../../etc/passwd"', "64 hexadecimal digits"),
        ("size_bytes = -1", "-1"),
        ('address = "http://models.example/vit"', "http:// is taken of this machine only"),
        ('address = "file:///etc"', "none of https://"),
        ('sha_256 = "ab"', "sha_256"),
    ],
)
def test_an_index_that_means_harm(pull, tmp_path, line, said):  # noqa: F811
    index = tmp_path / "index.toml"
    address = "" if line.startswith("address") else 'address = "https://a.invalid/x"\n'
    index.write_text(f'[bundles.x]\nlicence = "MIT"\naccuracy = "none"\n{address}{line}\n')
    message = pull("x", "--index", index, code=2 if line.startswith("address") else 1)
    assert said in message


def test_an_index_over_the_network_needs_tls(pull):  # noqa: F811
    message = pull("x", "--index", "http://models.example/index.toml", code=2)
    assert "an index is read from a file or an https:// address" in message


def test_an_index_with_a_sha256_in_capitals(web, pull, chance, tmp_path):  # noqa: F811
    sha, files = publish(web, "/vit", chance)
    (tmp_path / "index.toml").write_text(
        f'[bundles.x]\naddress = "{web.url}/vit"\nsha256 = "{sha.upper()}"\nlicence = "MIT"\n'
        'accuracy = "none"\n[bundles.y]\nlicence = "MIT"\naccuracy = "none"\n'
    )
    assert holds(pull("x", "--index", tmp_path / "index.toml")["path"], files)
    assert "does not say how to make it" in pull("y", "--index", tmp_path / "index.toml", code=3)
