"""Arrays and tensors: what is a file, what is pixels, and what is refused instead of cast."""

from __future__ import annotations

import pytest

from tipserve.pictures import Encoder

numpy = pytest.importorskip("numpy")
ROOM = Encoder(max_message_bytes=1 << 20)


@pytest.mark.parametrize(
    "data",
    [b"P6 1 1 255\nabc", b"II+\0\x08\0\0\0", b"\0\0\0 ftypavif", b"\xff\xd8\xff"],
)
def test_a_row_of_bytes_that_begins_as_a_file_is_one(data):
    array = numpy.frombuffer(data, numpy.uint8)
    assert ROOM.encode(array).encoded_image == data
    assert ROOM.encode(array[:, None]).encoded_image == data


def pixels(*shape: int):
    return numpy.zeros(shape, numpy.uint8)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (pixels(5, 7, 4), r"array\[:, :, :3\]"),
        (pixels(2, 5, 7, 3), "one by one"),
        (pixels(5, 7, 2), "is no picture"),
        (pixels(5, 7, 5), "is no picture"),
        (pixels(5, 7, 3).astype(numpy.uint16), "scale it to uint8"),
        (pixels(5, 7, 3).astype(numpy.int64), "scale it to uint8"),
        (pixels(5, 7) > 0, r"array.astype\('uint8'\) \* 255"),
        (pixels(5, 7, 3) * 1j, "complex128"),
        (numpy.ma.masked_equal(numpy.arange(12, dtype=numpy.uint8).reshape(2, 2, 3), 3), "masked"),
        (numpy.array("cat.jpg"), "is no picture"),
        (numpy.array([True, False]), "bool"),
        (memoryview(numpy.zeros(4, numpy.float32)), "a memoryview of 'f'"),
        ([True, False], "True and False"),
        ({}, "a mapping of nothing"),
        (None, "None is no picture"),
        (1, "an object of type int"),
    ],
)
def test_what_would_be_cast_is_refused_with_what_to_do(array, says):
    with pytest.raises(TypeError, match=says):
        ROOM.encode(array)


def test_a_mask_that_hides_nothing_is_none():
    array = numpy.ma.masked_array(pixels(5, 7, 3))
    assert ROOM.encode(array).raw_rgb.width == 7


def test_tensors_that_cannot_be_read_are_refused():
    torch = pytest.importorskip("torch")
    picture = torch.rand(3, 5, 7)
    for tensor in (
        picture.to("meta"),
        picture.to_sparse(),
        torch.quantize_per_tensor(picture, 0.1, 0, torch.quint8),
        picture.to(torch.float8_e4m3fn),
        picture.to(torch.complex64).conj(),
    ):
        with pytest.raises(TypeError, match="this tensor cannot be read as an array"):
            ROOM.encode(tensor)
    for tensor in (picture.requires_grad_(), torch.nn.Parameter(picture.detach())):
        assert ROOM.encode(tensor).raw_rgb.width == 7


@pytest.mark.parametrize("orientation", [1, 3, 6, 0, 9, b"\6", "6"])
def test_a_decoded_pillow_picture_is_turned_as_its_tag_says(orientation):
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(pixels(5, 7, 3))
    picture.getexif()[0x0112] = orientation
    picture.getexif()[0xA005] = b"no number"  # which Pillow cannot write
    made = ROOM.encode(picture)
    # PNG carries a tag; pixels are upright.
    assert bool(made.encoded_image) == (orientation in (3, 6))
