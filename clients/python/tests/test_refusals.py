"""What the server refuses, or decides, a client that decodes must not decide for it.

Every file here is one that Pillow reads to something: grey for what is missing,
white for what is over 255, turned or not. With resize="client" it goes to the
server as it is.
"""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest

import tipserve
from tipserve._decode import PictureLimits
from tipserve.pictures import Encoder

numpy = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("simplejpeg")

ROOM = Encoder(max_message_bytes=4 * 1024 * 1024, image_size=16)
WHOLE = Encoder(max_message_bytes=4 * 1024 * 1024)
SEED = random.randrange(2**32)


@pytest.fixture
def chance():
    print("seed", SEED)
    return numpy.random.default_rng(SEED)


def photograph(chance, width=151, height=113):
    """Something that compresses as photographs do."""
    coarse = chance.integers(0, 256, (9, 11, 3), dtype=numpy.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def chunks(png):
    at, found = 8, []
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(found):
    made = b"\x89PNG\r\n\x1a\n"
    for kind, body in found:
        made += struct.pack(">I", len(body)) + kind + body
        made += struct.pack(">I", zlib.crc32(kind + body))
    return made


def with_rows(png, change):
    """The PNG with other rows: `change` is given all bytes before compression."""
    found = chunks(png)
    rows = zlib.decompress(b"".join(body for kind, body in found if kind == b"IDAT"))
    rest = [(kind, body) for kind, body in found if kind not in (b"IDAT", b"IEND")]
    return png_of([*rest, (b"IDAT", zlib.compress(change(rows))), (b"IEND", b"")])


def many_scans(jpeg):
    """The progressive JPEG with its last scan twenty times over."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * 19 + b"\xff\xd9"


def turned(picture, format):
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture, format, exif=exif)


def unusual(chance):
    picture = photograph(chance)
    jpeg, png = saved(picture, "JPEG", quality=90), saved(picture, "PNG")
    stride = 1 + 3 * picture.width
    palette = picture.quantize(7)
    levels = numpy.asarray(picture.convert("L")).astype(numpy.uint16) * 257
    yield "half a JPEG with an end mark", jpeg[: len(jpeg) // 2] + b"\xff\xd9"
    yield "a JPEG without its end mark", jpeg[:-2]
    yield "half a JPEG", jpeg[: len(jpeg) // 2]
    yield "a JPEG of CMYK", saved(picture.convert("CMYK"), "JPEG")
    yield "a JPEG of many scans", many_scans(saved(picture, "JPEG", progressive=True))
    yield "a turned JPEG", turned(picture, "JPEG")
    yield "a PNG that lacks a row", with_rows(png, lambda rows: rows[:-stride])
    yield "a PNG of a row too many", with_rows(png, lambda rows: rows + rows[-stride:])
    yield "a PNG of an unknown filter", with_rows(png, lambda rows: b"\x07" + rows[1:])
    yield "a PNG without its end mark", png[:-12]
    yield "a PNG with a false checksum", png[:-20] + bytes([png[-20] ^ 1]) + png[-19:]
    yield "half a PNG", png[: len(png) // 2]
    yield "a turned PNG", turned(picture, "PNG")
    yield "a PNG of 16-bit grey", saved(Image.fromarray(levels), "PNG")
    yield (
        "a PNG whose palette is too short",
        png_of(
            (kind, body[:6] if kind == b"PLTE" else body)
            for kind, body in chunks(saved(palette, "PNG"))
        ),
    )
    yield "an animated PNG", saved(picture, "PNG", save_all=True, append_images=[picture.rotate(9)])
    yield "a turned TIFF", turned(picture, "TIFF")
    yield "a TIFF of floats", saved(Image.fromarray(levels.astype(numpy.float32)), "TIFF")
    yield "a TIFF of 16-bit grey", saved(Image.fromarray(levels), "TIFF")
    for format in ("GIF", "WEBP", "BMP", "TIFF", "PPM"):
        yield f"a {format}", saved(picture, format)


UNUSUAL = dict(unusual(numpy.random.default_rng(SEED)))


@pytest.mark.parametrize("what", UNUSUAL)
def test_what_is_unusual_goes_as_it_is(what, tmp_path):
    data = UNUSUAL[what]
    path = tmp_path / "file"
    path.write_bytes(data)
    for given in (data, path, io.BytesIO(data), numpy.frombuffer(data, numpy.uint8)):
        if isinstance(given, numpy.ndarray) and data.startswith(b"P6"):
            continue  # an array of bytes is known by what files begin with
        assert ROOM.encode(given).encoded_image == data
    try:
        opened = Image.open(path)
    except OSError:
        return
    if opened.tile:
        assert ROOM.encode(opened).encoded_image == data
        assert WHOLE.encode(opened).encoded_image == data


def test_what_is_usual_is_decoded_to_pillows_pixels(chance):
    for _ in range(20):
        width, height = (int(side) for side in chance.integers(1, 200, 2))
        picture = photograph(chance, width, height)
        files = [
            saved(picture, "JPEG", quality=int(chance.integers(20, 100)), subsampling=sub, **more)
            for sub in (0, 1, 2)
            for more in ({}, {"progressive": True}, {"optimize": True})
        ]
        files.append(saved(picture.convert("L"), "JPEG"))
        files += [saved(picture.convert(mode), "PNG") for mode in ("1", "L", "LA", "RGB", "RGBA")]
        files += [saved(picture.quantize(colours), "PNG") for colours in (2, 5, 200)]
        exif = Image.Exif()
        exif[0x0112] = 1
        files.append(saved(picture, "JPEG", exif=exif))
        for data in files:
            made = ROOM.encode(data).raw_rgb
            with Image.open(io.BytesIO(data)) as opened:
                expected = tipserve.resize_and_crop(opened, 16)
            assert made.data == expected.tobytes()


def test_damage_is_never_decoded_here_to_something_else(chance):
    """Files with one change each: what is decoded here is what strict decoders give."""
    import simplejpeg

    picture = photograph(chance)
    files = [saved(picture, "JPEG", quality=85), saved(picture, "PNG")]
    files.append(saved(picture, "JPEG", progressive=True))
    decoded = 0
    for number in range(600):
        data = bytearray(files[number % 3])
        at = int(chance.integers(2, len(data)))
        kind = number % 4
        if kind == 0:
            data[at] ^= int(chance.integers(1, 256))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + int(chance.integers(1, 40))]
        else:
            data[at:at] = bytes(chance.integers(0, 256, 5, dtype=numpy.uint8))
        data = bytes(data)
        made = ROOM.encode(data)
        if made.encoded_image:
            assert made.encoded_image == data
            continue
        decoded += 1
        if data.startswith(b"\xff\xd8"):
            expected = Image.fromarray(simplejpeg.decode_jpeg(data, strict=True))
        else:
            expected = Image.open(io.BytesIO(data))
        assert made.raw_rgb.data == tipserve.resize_and_crop(expected, 16).tobytes()
    assert decoded < 400


@pytest.mark.parametrize("mode", ["I;16", "I", "I;16B"])
@pytest.mark.parametrize("room", [WHOLE, ROOM])
def test_pillow_pictures_of_more_than_8_bits_are_refused(mode, room):
    with pytest.raises(tipserve.InvalidArgument, match=mode) as caught:
        room.encode(Image.new(mode, (4, 4)))
    assert caught.value.reason == "PICTURE_UNSUPPORTED"


def test_pillow_pictures_of_floats_are_from_0_to_1(chance):
    levels = chance.random((20, 30), numpy.float32)
    sent = WHOLE.encode(Image.fromarray(levels)).raw_rgb
    assert (sent.width, sent.height) == (30, 20)
    # As an array of them, and as the server reads a TIFF of them.
    assert sent.data == WHOLE.encode(levels[:, :, None]).raw_rgb.data
    grey = numpy.frombuffer(sent.data, numpy.uint8).reshape(20, 30, 3)
    numpy.testing.assert_array_equal(grey, numpy.rint(levels * 255)[:, :, None].repeat(3, 2))
    assert ROOM.encode(Image.fromarray(levels)).raw_rgb.width == 16
    for wrong in (255.0, -0.5, numpy.nan, numpy.inf):
        levels[3, 4] = wrong
        with pytest.raises(tipserve.InvalidArgument, match=r"mode F .* from 0 to 1") as caught:
            WHOLE.encode(Image.fromarray(levels))
        assert caught.value.reason == "PICTURE_UNSUPPORTED"


def test_a_decoded_pillow_picture_brings_its_orientation(chance):
    data = turned(photograph(chance), "JPEG")
    picture = Image.open(io.BytesIO(data))
    picture.load()
    for room in (WHOLE, ROOM):
        sent = Image.open(io.BytesIO(room.encode(picture).encoded_image))
        assert sent.getexif()[0x0112] == 6
        numpy.testing.assert_array_equal(numpy.asarray(sent), numpy.asarray(picture))


def test_what_the_server_refuses_by_size_goes_as_it_is(chance):
    for format in ("JPEG", "PNG"):
        data = saved(photograph(chance, 60, 40), format)
        for limits in (
            PictureLimits(side=59),
            PictureLimits(pixels=2399),
            PictureLimits(decoder_bytes=60 * 40 * 3),
        ):
            room = Encoder(max_message_bytes=2**22, image_size=16, limits=limits)
            assert room.encode(data).encoded_image == data
        room = Encoder(max_message_bytes=2**22, image_size=16, limits=PictureLimits(60, 2400))
        assert room.encode(data).raw_rgb.width == 16
