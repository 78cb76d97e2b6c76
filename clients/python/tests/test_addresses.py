"""Paths and addresses as people write them, and files that are not quite files."""

from __future__ import annotations

import array
import base64
import http.server
import io
import mmap
import os
import threading

import pytest

import tipserve
from tipserve._sources.items import items_of
from tipserve.labelled import load
from tipserve.pictures import Encoder

numpy = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")

ROOM = Encoder(max_message_bytes=4 * 1024 * 1024)


@pytest.fixture
def data():
    file = io.BytesIO()
    Image.fromarray(numpy.zeros((5, 7, 3), numpy.uint8)).save(file, "PNG")
    return file.getvalue()


def content(source):
    return [ROOM.encode(one).encoded_image for one in items_of(source)]


@pytest.mark.parametrize("name", ["a b.png", "a%20b.png", "ü.png", "a#b?c.png", "a[1].png"])
def test_a_file_address_is_a_path(data, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(data)
    for address in (path.as_uri(), "FILE://localhost" + path.as_uri()[len("file://") :]):
        assert ROOM.encode(address).encoded_image == data
        assert content(address) == [data]
    assert content(f"file://{path}") == [data]  # as not everybody escapes


def test_a_data_address_is_a_picture(data):
    text = base64.b64encode(data).decode()
    escaped = "".join(f"%{byte:02x}" for byte in data)
    for address in (
        f"data:image/png;base64,{text}",
        f"DATA:image/png;BASE64,{text.rstrip('=')}",
        f"data:;base64,{text[:40]}\n {text[40:]}",
        f"data:image/png,{escaped}",
    ):
        assert ROOM.encode(address).encoded_image == data
        assert content(address) == [data]
    # Its id is its position, not all of it.
    labelled = load([(f"data:;base64,{text}", "cat"), (data, "dog")])
    assert [one.id for one in labelled.examples] == ["0", "1"]
    with pytest.raises(tipserve.InvalidArgument, match="Base64 is damaged"):
        ROOM.encode("data:;base64,!!!")
    with pytest.raises(TypeError, match="one picture"):
        load(f"data:;base64,{text}")
    with pytest.raises(tipserve.InvalidArgument, match="over the limit"):
        Encoder(max_message_bytes=5000).encode(f"data:;base64,{'A' * 8000}")


def test_a_list_may_hold_such_addresses(data, tmp_path):
    (tmp_path / "a b.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    path = tmp_path / "list.csv"
    rows = [f'"data:image/png;base64,{text}"', (tmp_path / "a b.png").as_uri(), "a b.png"]
    path.write_text("path,label\n" + "".join(f"{row},cat\n" for row in rows))
    examples = list(load(path).examples)
    assert [one.id for one in examples] == ["0", str(tmp_path / "a b.png"), "a b.png"]
    assert [ROOM.encode(one.picture).encoded_image for one in examples] == [data] * 3


def test_a_folder_with_brackets_in_its_name_begins_a_pattern(data, tmp_path):
    for folder in ("photos [2024]", "photos 2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(folder.encode())
    assert content(str(tmp_path / "photos [2024]" / "*.png")) == [b"photos [2024]"]
    assert content(str(tmp_path / "photos [0-9]" / "*.png")) == [b"photos 2"]


def test_what_is_no_path_is_not_repeated_in_full(data):
    text = base64.b64encode(data * 20).decode()
    for call in (ROOM.encode, items_of, load):
        with pytest.raises((tipserve.InvalidArgument, FileNotFoundError)) as caught:
            call(text)
        assert f"({len(text)} characters)" in str(caught.value)
        assert len(str(caught.value)) < 500


class Web(http.server.BaseHTTPRequestHandler):
    """Answers with its path, or with the status that it names."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path.startswith("/loop"):
            self.send_response(302)
            self.send_header("Location", self.path)
        else:
            self.send_response(int(self.path[1:4]) if self.path[1:4].isdigit() else 200)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"picture")


@pytest.fixture
def web():
    pytest.importorskip("aiohttp")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_web_addresses_are_no_patterns(web):
    for address in ("/x.png?w=2&h=[3]", "/[1].png", "/x*y.png", "/a b.png", "/x.png#part"):
        assert content(web + address) == [b"picture"], address
    assert content("HTTP" + web[4:] + "/x.png") == [b"picture"]


@pytest.mark.parametrize("path", ["/404", "/500", "/loop"])
def test_a_web_address_that_fails_is_the_items_error(web, path):
    with pytest.raises(tipserve.InvalidArgument, match=r"404|500|TooManyRedirects") as caught:
        content(web + path)
    assert caught.value.reason == "FILE_UNREADABLE"


def test_whatever_holds_a_files_bytes_is_one(data, tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(data)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.seek(3)
        for held in (mapped, array.array("B", data), memoryview(b"xx" + data)[2:]):
            assert ROOM.encode(held).encoded_image == data
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert ROOM.encode(pipe).encoded_image == data


def test_a_view_of_pixels_is_pixels():
    pixels = numpy.arange(60, dtype=numpy.uint8).reshape(4, 5, 3)
    made = ROOM.encode(memoryview(pixels)).raw_rgb
    assert (made.width, made.height, made.data) == (5, 4, pixels.tobytes())


def test_what_has_to_be_awaited_or_is_a_pair_is_said():
    class Upload:
        async def read(self) -> bytes:
            return b""

    with pytest.raises(TypeError, match=r"await file\.read\(\)"):
        ROOM.encode(Upload())
    with pytest.raises(TypeError, match="pair of bytes and str"):
        ROOM.encode((b"x", "cat"))


def test_rounding_beyond_white_is_white():
    """As resizing in floating point leaves it."""
    for kind in ("float16", "float32", "float64"):
        above = numpy.nextafter(numpy.ones((2, 2, 3), kind), numpy.asarray(2, kind))
        assert set(ROOM.encode(above).raw_rgb.data) == {255}
        assert set(ROOM.encode(1 - above).raw_rgb.data) == {0}
    with pytest.raises(tipserve.InvalidArgument, match=r"from 1\.00001 to 1\.00001"):
        ROOM.encode(numpy.full((2, 2, 3), 1.00001))


def test_pillows_grey_with_multiplied_alpha():
    grey = Image.fromarray(numpy.full((2, 2), 200, numpy.uint8)).convert("LA").convert("La")
    assert set(ROOM.encode(grey).raw_rgb.data) == {200}
