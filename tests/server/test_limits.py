"""Every limit of a picture is a setting, and the error that it causes names it."""

from __future__ import annotations

import io
import re

import pytest
import wire
from conftest import ROOT
from pictures import photo, png
from PIL import Image
from wire import Problem, classify


def picture(chance, height: int, width: int) -> Image.Image:
    """A photograph of a size."""
    return photo(chance).resize((width, height))


def animation(frames: int, kind: str, chance) -> bytes:
    """Frames that differ, so that none is left out."""
    pictures = [picture(chance, 20, 30) for _ in range(frames)]
    file = io.BytesIO()
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:])
    return file.getvalue()


@pytest.fixture
def error_of(serve, tiny_bundle):
    """The error of one picture by a server with a setting."""

    def ask(content: wire.inputs.Input, *flags: str) -> Problem | None:
        server = serve(tiny_bundle, *flags)
        [result] = server.api.classifying.Embed(classify.EmbedRequest(inputs=[content])).inputs
        if result.WhichOneof("outcome") == "embedding":
            return None
        return Problem.of_status(result.error)

    return ask


def raw(width: int, height: int) -> wire.inputs.Input:
    data = bytes(3 * width * height)
    return wire.inputs.Input(raw_rgb=wire.inputs.RawRgb(width=width, height=height, data=data))


@pytest.mark.parametrize(
    ("setting", "limit", "value"),
    [("max_side", 99, 100), ("max_pixels", 3999, 4000), ("max_decoder_bytes", 1024, None)],
)
def test_sizes(error_of, chance, setting, limit, value):
    flag = f"--{setting.replace('_', '-')}"
    for content in (raw(100, 40), wire.encoded(png(picture(chance, 40, 100)))):
        problem = error_of(content, flag, str(limit))
        if problem is None and setting == "max_decoder_bytes":
            continue  # nothing of raw pixels is decoded
        assert problem.reason == "PICTURE_TOO_LARGE"
        assert f"{setting} is {limit}" in problem.message
        assert problem.metadata["setting"] == setting
        assert problem.metadata["limit"] == str(limit)
        assert value is None or problem.metadata["value"] == str(value)
        if value is not None:
            assert error_of(content, flag, str(value)) is None


def test_bytes(error_of, chance):
    data = png(picture(chance, 40, 100))
    problem = error_of(wire.encoded(data), "--max-picture-bytes", str(len(data) - 1))
    assert problem.metadata["setting"] == "max_picture_bytes"
    assert f"max_picture_bytes is {len(data) - 1}" in problem.message
    assert error_of(wire.encoded(data), "--max-picture-bytes", str(len(data))) is None


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames(error_of, chance, kind):
    content = wire.encoded(animation(5, kind, chance))
    problem = error_of(content, "--max-frames", "4")
    assert (problem.reason, problem.metadata["setting"]) == ("PICTURE_TOO_LARGE", "max_frames")
    assert "5 frames" in problem.message and "max_frames is 4" in problem.message
    assert error_of(content, "--max-frames", "5") is None


def test_the_server_says_every_limit(features):
    info = features.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    sources = [*ROOT.glob("src/rpc/**/*.rs"), *ROOT.glob("src/catalog/*.rs")]
    named = {
        match[1] for path in sources for match in re.finditer(r'"(max_\w+)"', path.read_text())
    }
    assert named <= set(info.limits), "errors name limits that GetServerInfo does not"
    assert {"queue_items", "queue_bytes", "resident_bytes", "stream_window"} <= set(info.limits)
    assert all(value >= 0 for value in info.limits.values())
