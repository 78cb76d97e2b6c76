"""Every way to give a picture, and resizing on the client."""

from __future__ import annotations

import hashlib
import io
import os
import random

import pytest

import tipserve
from tipserve.pictures import Encoder

numpy = pytest.importorskip("numpy")
PIL = pytest.importorskip("PIL")
Image = pytest.importorskip("PIL.Image")

ROOM = Encoder(max_message_bytes=4 * 1024 * 1024)


@pytest.fixture
def chance():
    seed = random.randrange(2**32)
    print("seed", seed)
    return numpy.random.default_rng(seed)


def pixels(chance, height, width):
    return chance.integers(0, 256, (height, width, 3), dtype=numpy.uint8)


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def raw(made):
    rgb = made.raw_rgb
    return numpy.frombuffer(rgb.data, numpy.uint8).reshape(rgb.height, rgb.width, 3)


def test_files_go_as_they_are(chance, tmp_path):
    data = png(Image.fromarray(pixels(chance, 5, 7)))
    path = tmp_path / "p.png"
    path.write_bytes(data)
    for picture in (path, str(path), data, bytearray(data), memoryview(data)):
        assert ROOM.encode(picture).encoded_image == data


def test_pixels_go_as_pixels(chance):
    array = pixels(chance, 5, 7)
    for picture in (array, Image.fromarray(array), numpy.asfortranarray(array)):
        numpy.testing.assert_array_equal(raw(ROOM.encode(picture)), array)
    grey = array[:, :, 0]
    for picture in (grey, Image.fromarray(grey)):
        numpy.testing.assert_array_equal(
            raw(ROOM.encode(picture)), numpy.repeat(grey[:, :, None], 3, 2)
        )


def test_embeddings_go_as_embeddings(chance):
    vector = chance.normal(size=6).astype(numpy.float32)
    for picture in (vector, vector.tolist(), tuple(vector.tolist()), vector.astype(numpy.float64)):
        numpy.testing.assert_array_equal(ROOM.encode(picture).embedding.values, vector)


@pytest.mark.parametrize(
    "picture",
    [
        numpy.zeros((4, 4, 4), numpy.uint8),
        numpy.zeros((4, 4, 4), numpy.float32),
        numpy.zeros((4, 4, 3), numpy.uint16),
        numpy.zeros((2, 3), numpy.float32),
        numpy.zeros(4, numpy.uint8),
        ["a", "b"],
        object(),
        None,
    ],
)
def test_what_is_no_picture_is_a_type_error(picture):
    with pytest.raises(TypeError):
        ROOM.encode(picture)


def test_what_cannot_be_sent_says_why(tmp_path, chance):
    for picture, reason in (
        (b"", "PICTURE_EMPTY"),
        (numpy.zeros((0, 4, 3), numpy.uint8), "PICTURE_EMPTY"),
        ([], "EMBEDDING_EMPTY"),
        (tmp_path, "FILE_UNREADABLE"),
        (tmp_path / "absent", "FILE_UNREADABLE"),
    ):
        with pytest.raises(tipserve.InvalidArgument) as caught:
            ROOM.encode(picture)
        assert caught.value.reason == reason
    gone = Image.open(io.BytesIO(png(Image.fromarray(pixels(chance, 64, 64)))))
    gone.fp.close()
    with pytest.raises(tipserve.InvalidArgument) as caught:
        ROOM.encode(gone)
    assert caught.value.reason == "PICTURE_UNDECODABLE"


def test_pixels_over_the_limit_go_as_png_where_that_fits(chance):
    room = Encoder(max_message_bytes=64 * 1024)
    plain = numpy.zeros((500, 500, 3), numpy.uint8)
    plain[100:200] = 77
    for picture in (plain, Image.fromarray(plain)):
        made = room.encode(picture)
        with Image.open(io.BytesIO(made.encoded_image)) as sent:
            numpy.testing.assert_array_equal(numpy.asarray(sent), plain)
    with pytest.raises(tipserve.InvalidArgument) as caught:
        room.encode(pixels(chance, 500, 500))
    assert caught.value.reason == "PICTURE_TOO_LARGE"


KERNELS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def reference(picture, size, crop=None, interpolation="bicubic"):
    """CLIP's preprocessing as torchvision's Resize and CenterCrop do it with Pillow."""
    picture = picture.convert("RGB")
    w, h = picture.size
    short, long = min(w, h), max(w, h)
    longer = int(size * long / short)
    w, h = (size, longer) if w <= h else (longer, size)
    if int(PIL.__version__.split(".")[0]) > 12:
        # Pillow 12's order, which CLIP's figures were made with.
        picture = picture.resize((w, picture.height), KERNELS[interpolation])
    picture = picture.resize((w, h), KERNELS[interpolation])
    crop = crop or size
    top, left = round((h - crop) / 2.0), round((w - crop) / 2.0)
    return numpy.asarray(picture)[top : top + crop, left : left + crop]


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_the_client_resizes_as_clip_does(chance, mode, interpolation, tmp_path):
    for _ in range(10):
        width, height = (int(side) for side in chance.integers(1, 150, 2))
        size = int(chance.integers(1, 64))
        picture = Image.fromarray(pixels(chance, height, width)).convert(mode)
        expected = reference(picture, size, interpolation=interpolation)
        room = Encoder(
            max_message_bytes=4 * 1024 * 1024, image_size=size, interpolation=interpolation
        )
        numpy.testing.assert_array_equal(raw(room.encode(picture)), expected)
        if mode == "CMYK":  # which no PNG is
            continue
        path = tmp_path / "p.png"
        picture.save(path)
        for given in (path, path.read_bytes(), Image.open(path)):
            numpy.testing.assert_array_equal(raw(room.encode(given)), expected)


def test_what_the_server_cuts_out_of_it_is_the_whole_pictures_centre(chance):
    """Two crops, one here and one there, that round as one would."""
    for _ in range(200):
        width, height = (int(side) for side in chance.integers(1, 60, 2))
        size = int(chance.integers(1, 30))
        crop = int(chance.integers(1, size + 1))
        picture = Image.fromarray(pixels(chance, height, width))
        made = tipserve.resize_and_crop(picture, size, crop)
        assert made.size == (size, size)
        top = left = round((size - crop) / 2.0)
        ours = numpy.asarray(made)[top : top + crop, left : left + crop]
        numpy.testing.assert_array_equal(ours, reference(picture, size, crop))


@pytest.mark.parametrize("interpolation", KERNELS)
def test_squashing_keeps_every_edge(chance, interpolation):
    for width, height in [(90, 40), (3, 700), (700, 3), (24, 24)]:
        picture = Image.fromarray(pixels(chance, height, width))
        made = tipserve.resize_and_crop(picture, 24, 20, interpolation, squash=True)
        expected = picture
        if int(PIL.__version__.split(".")[0]) > 12:
            first = (width, 24) if height > 100 * width else (24, height)
            expected = picture.resize(first, KERNELS[interpolation])
        expected = expected.resize((24, 24), KERNELS[interpolation])
        numpy.testing.assert_array_equal(numpy.asarray(made), numpy.asarray(expected))


# As Pillow 12.3 gives them: 13 takes the two passes in the order that is less work.
TWO_PASSES = {
    (230, 900, "bicubic"): "8d2548da6ef89745",
    (900, 230, "bicubic"): "41bd3a14e3fc7248",
    (230, 900, "bilinear"): "0d5be65bab885588",
    (900, 230, "bilinear"): "7a784df6f71422dd",
}


@pytest.mark.parametrize(("width", "height", "interpolation"), TWO_PASSES)
def test_pixels_do_not_depend_on_pillows_version(width, height, interpolation):
    across, down = numpy.meshgrid(numpy.arange(width), numpy.arange(height))
    levels = numpy.stack([across * 7 + down * 3, across * down, across ^ down], axis=2)
    picture = Image.fromarray((levels % 251).astype(numpy.uint8))
    made = tipserve.resize_and_crop(picture, 64, interpolation=interpolation)
    digest = hashlib.sha256(made.tobytes()).hexdigest()[:16]
    assert digest == TWO_PASSES[width, height, interpolation]


def test_resized_pictures_can_go_as_jpeg(chance):
    picture = Image.fromarray(pixels(chance, 6, 8)).resize((300, 200), Image.Resampling.BICUBIC)
    room = Encoder(max_message_bytes=4 * 1024 * 1024, image_size=64, jpeg=True)
    sent = room.encode(picture).encoded_image
    got = numpy.asarray(Image.open(io.BytesIO(sent)), numpy.int16)
    assert Image.open(io.BytesIO(sent)).format == "JPEG"
    assert abs(got - reference(picture, 64)).max() <= 8
    assert len(sent) < 64 * 64 * 3 / 2


def test_what_pillow_cannot_read_is_left_to_the_server():
    room = Encoder(max_message_bytes=4 * 1024 * 1024, image_size=8)
    data = os.urandom(100)
    assert room.encode(data).encoded_image == data


def test_a_large_file_is_resized_before_it_is_measured(chance, tmp_path):
    picture = Image.fromarray(pixels(chance, 300, 300))
    path = tmp_path / "large.png"
    picture.save(path)
    assert path.stat().st_size > 64 * 1024
    made = Encoder(max_message_bytes=64 * 1024, image_size=32).encode(path)
    numpy.testing.assert_array_equal(raw(made), reference(picture, 32))


def test_resize_client_takes_its_size_from_the_server(fake, call, chance):
    from fake_server import IMAGE_SIZE

    seen = []
    answer_before = fake.unary.get("Classify")
    assert answer_before is None

    def classify(request, context):
        from tipserve._proto import classify_pb2

        seen.append(request.input)
        return classify_pb2.ClassifyResponse()

    fake.unary["Classify"] = classify
    picture = Image.fromarray(pixels(chance, 90, 60))
    call("classify_one", "pets", picture, client_resize="client")
    numpy.testing.assert_array_equal(raw(seen[0]), reference(picture, IMAGE_SIZE))
    call("classify_one", "pets", picture)
    assert (seen[1].raw_rgb.width, seen[1].raw_rgb.height) == (60, 90)


@pytest.mark.parametrize(
    ("stated", "rule", "kernel"),
    # A server of before the fields; both kernels; what this client does not know or cannot do.
    [
        ("", "", "bicubic"),
        ("bicubic", "shortest-side", "bicubic"),
        ("bilinear", "", "bilinear"),
        ("lanczos", "", None),
        ("bicubic", "server", None),
    ],
)
@pytest.mark.parametrize("resize", ["client", "client-jpeg"])
def test_resize_client_takes_its_interpolation_from_the_server(
    fake, call, chance, stated, rule, kernel, resize
):
    from tipserve._proto import classify_pb2

    seen = []

    def info(request, context):
        bundle = classify_pb2.BundleInfo(
            name="fake", width=4, image_size=20, resize_to=24, interpolation=stated, resize=rule
        )
        return classify_pb2.ServerInfo(version="0", bundle=bundle, limits=fake.limits)

    def classify(request, context):
        seen.append(request.input)
        return classify_pb2.ClassifyResponse()

    fake.unary.update(GetServerInfo=info, Classify=classify)
    bundle = call("server_info").bundle
    assert (bundle.interpolation, bundle.resize, bundle.logit_bias) == (stated, rule, None)
    picture = Image.fromarray(pixels(chance, 6, 8)).resize((90, 60), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, "PNG")
    call("classify_one", "pets", file.getvalue(), client_resize=resize)
    if kernel is None:
        assert seen[0].encoded_image == file.getvalue()
        return
    expected = reference(picture, 24, interpolation=kernel)
    if resize == "client":
        numpy.testing.assert_array_equal(raw(seen[0]), expected)
    else:
        sent = Image.open(io.BytesIO(seen[0].encoded_image))
        other = reference(
            picture, 24, interpolation="bilinear" if kernel == "bicubic" else "bicubic"
        )
        got = numpy.asarray(sent, numpy.int16)
        assert abs(got - expected).mean() < abs(got - other).mean()


def test_another_interpolation_is_refused(chance):
    with pytest.raises(ValueError, match="'lanczos'"):
        tipserve.resize_and_crop(Image.fromarray(pixels(chance, 9, 9)), 5, interpolation="lanczos")


# Arrays, in every layout


def test_arrays_may_have_their_channels_first_or_be_floats(chance):
    array = pixels(chance, 5, 7)
    floats = array.astype(numpy.float32) / 255
    for given in (
        numpy.moveaxis(array, 2, 0),
        floats,
        floats.astype(numpy.float64),
        numpy.moveaxis(floats, 2, 0),
    ):
        numpy.testing.assert_array_equal(raw(ROOM.encode(given)), array)
    grey = array[:, :, :1]
    for given in (grey, grey[:, :, 0], numpy.moveaxis(grey, 2, 0), floats[:, :, :1]):
        expected = numpy.repeat(grey, 3, axis=2)
        numpy.testing.assert_array_equal(raw(ROOM.encode(given)), expected)


@pytest.mark.parametrize(("low", "high"), [(-2.1, 2.6), (0, 255), (0, 1.01), (0, numpy.nan)])
def test_floats_that_are_no_levels_are_refused(low, high):
    array = numpy.full((4, 4, 3), low, numpy.float32)
    array[0, 0, 0] = high
    with pytest.raises(tipserve.InvalidArgument, match="from 0 to 1") as caught:
        ROOM.encode(array)
    assert caught.value.reason == "PIXELS_OUT_OF_RANGE"


def test_tensors(chance):
    torch = pytest.importorskip("torch")
    array = pixels(chance, 5, 7)
    tensor = torch.from_numpy(numpy.ascontiguousarray(numpy.moveaxis(array, 2, 0)))
    for given in (tensor, tensor.float() / 255, (tensor.float() / 255).requires_grad_()):
        numpy.testing.assert_array_equal(raw(ROOM.encode(given)), array)
    # Both ends are 3: a tensor's channels come first, an array's last.
    both = pixels(chance, 3, 3)
    numpy.testing.assert_array_equal(
        raw(ROOM.encode(torch.from_numpy(both))), numpy.moveaxis(both, 0, 2)
    )
    numpy.testing.assert_array_equal(raw(ROOM.encode(both)), both)
    vector = torch.arange(4, dtype=torch.bfloat16)
    assert list(ROOM.encode(vector).embedding.values) == [0, 1, 2, 3]


def test_files_as_arrays(chance):
    cv2 = pytest.importorskip("cv2")
    array = pixels(chance, 5, 7)
    for suffix in (".png", ".jpg", ".bmp"):
        _, buffer = cv2.imencode(suffix, array)
        for given in (buffer, buffer.reshape(-1, 1)):
            assert ROOM.encode(given).encoded_image == buffer.tobytes()
    with pytest.raises(TypeError):
        ROOM.encode(numpy.arange(50, dtype=numpy.uint8))


@pytest.mark.parametrize("kind", ["classify_one", "classify", "embed", "create_cache", "evaluate"])
def test_opencvs_arrays_are_bgr(fake, call, chance, kind):
    """A blue picture stays blue; Pillow's and files are RGB whatever is said of arrays."""
    from test_create import sent_examples, versioned

    from tipserve._proto import cache_pb2, classify_pb2

    array = pixels(chance, 5, 7)
    seen = []

    def embed(request, context):
        seen.extend(request.inputs)
        return classify_pb2.EmbedResponse(inputs=[{"embedding": {"values": [1]}}] * 2)

    def classify(request, context):
        seen.append(request.input)
        return classify_pb2.ClassifyResponse()

    def stream(requests, context):
        for request in requests:
            seen.extend(item.input for item in request.items.items)
            results = [{"sequence": 0, "classification": {}}] if request.items.items else []
            yield classify_pb2.ClassifyStreamResponse(results=results)

    created = []
    fake.create = versioned(created)
    fake.unary.update(Embed=embed, Classify=classify)
    infos = [cache_pb2.ClassInfo(display_name="a")]
    fake.unary["GetVersion"] = lambda request, context: cache_pb2.Version(classes=infos)
    fake.unary["Evaluate"] = lambda request, context: classify_pb2.EvaluateResponse(
        evaluations=[classify_pb2.Evaluation()]
    )
    pictures = [array, Image.fromarray(array)]
    if kind == "classify_one":
        for picture in pictures:
            call(kind, "pets", picture, color="bgr")
    elif kind == "classify":
        for picture in pictures:
            fake.streams = [*fake.streams, stream]
            call(kind, "pets", [picture], color="bgr")
    elif kind == "embed":
        call(kind, pictures, color="bgr")
    else:
        call(kind, "pets", [(picture, "a") for picture in pictures], color="bgr")
    if kind == "create_cache":
        seen = [one.input for one in sent_examples(created[0])]
    elif kind == "evaluate":
        seen = [one.input for message in fake.calls[-1][1] for one in message.items.items]
    for sent, expected in zip(seen, (array[:, :, ::-1], array), strict=True):
        rgb = sent.raw_rgb
        assert rgb.data == numpy.ascontiguousarray(expected).tobytes()
    with pytest.raises(ValueError, match="'rgb' or 'bgr'"):
        call("classify_one", "pets", array, color="gbr")
