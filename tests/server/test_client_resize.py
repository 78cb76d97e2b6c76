"""Pictures resized by the Python client get the answers of those that the server resizes."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import photo, saved
from pixel_bundle import SIZE, pixel_bundle

tipserve = pytest.importorskip("tipserve")


@pytest.fixture(
    params=[(0, "bicubic"), (3, "bicubic"), (30, "bicubic"), (0, "bilinear"), (13, "bilinear")],
    ids=lambda how: f"{how[1]}-resize-{how[0]}-more-than-the-crop",
)
def server(request, serve, tmp_path):
    """A bundle that resizes to what it takes, or to more and cuts the centre out."""
    more, interpolation = request.param
    bundle = pixel_bundle(tmp_path / "bundle", resize_to=SIZE + more, interpolation=interpolation)
    started = serve(bundle, "--dtype", "float32")
    stated = started.cli("info")["bundle"]
    assert (stated["resize_to"], stated["interpolation"]) == (SIZE + more, interpolation)
    return started


def test_the_answers_are_the_servers(server, chance, tmp_path):
    photos = [photo(chance, kind=number % 3) for number in range(12)]
    files = [saved(picture, "JPEG", quality=92) for picture in photos]
    logits, embeddings = {}, {}
    with tipserve.Client(server.address) as client:
        examples = [tipserve.Example(i % 4, photo(chance, kind=i % 4)) for i in range(8)]
        client.create_cache(
            "c", examples, classes=["a", "b", "c", "d"], without_text=True,
            method="tip_adapter", alpha=1, beta=5.5,
        )  # fmt: skip
    for resize in ("server", "client", "client-jpeg"):
        with tipserve.Client(server.address, resize=resize) as client:
            results = list(client.classify("c", files, logits=True, embedding=True))
            assert [result.error for result in results] == [None] * len(files)
            logits[resize] = np.stack([result.logits for result in results])
            embeddings[resize] = np.stack([result.embedding for result in results])
    # The same pixels: what is left is the order of sums in batches of other
    # sizes. One level is 1/255 before the embedding is normalised.
    np.testing.assert_allclose(embeddings["client"], embeddings["server"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(logits["client"], logits["server"], rtol=1e-5, atol=1e-4)
    # JPEG of quality 95 is not quite the same.
    cosine = (embeddings["client-jpeg"] * embeddings["server"]).sum(1)
    print("least cosine of client-jpeg", cosine.min())
    assert cosine.min() >= 0.99
    assert (cosine < 1 - 1e-9).any()
