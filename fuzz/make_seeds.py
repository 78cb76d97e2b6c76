"""Small valid inputs for the fuzz targets to start from, into fuzz/corpus/TARGET/.

python fuzz/make_seeds.py
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SAMPLES = ROOT / "tests/store/samples/format-1/caches/kept"
sys.path.insert(0, str(ROOT / "clients/python/src"))

from tipserve._proto import analysis_pb2 as analysis  # noqa: E402
from tipserve._proto import bundle_pb2 as bundles  # noqa: E402
from tipserve._proto import cache_pb2 as cache  # noqa: E402
from tipserve._proto import classify_pb2 as classify  # noqa: E402
from tipserve._proto import finetune_pb2 as finetune  # noqa: E402
from tipserve._proto import input_pb2 as inputs  # noqa: E402


def pictures():
    """Every format, in the modes that take another path through its decoder."""
    chance = np.random.default_rng(1)
    colour = Image.fromarray(chance.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    modes = {
        "RGB": colour,
        "L": colour.convert("L"),
        "P": colour.quantize(16),
        "RGBA": colour.convert("RGBA"),
        "CMYK": colour.convert("CMYK"),
        "1": colour.convert("1"),
        "I;16": Image.fromarray(chance.integers(0, 65536, (9, 13), dtype=np.uint16)),
    }
    kinds = [
        *(("JPEG", mode, options) for mode in ("RGB", "L", "CMYK") for options in ({},)),
        ("JPEG", "RGB", {"progressive": True}),
        *(("PNG", mode, {}) for mode in ("RGB", "L", "P", "RGBA", "1", "I;16")),
        *(("GIF", mode, {}) for mode in ("P", "L")),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        *(("BMP", mode, {}) for mode in ("RGB", "P", "1")),
        *(("TIFF", mode, {}) for mode in ("RGB", "L", "CMYK", "1")),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "1", {"compression": "group3"}),
        ("TIFF", "1", {"compression": "group3", "tiffinfo": {292: 1}}),
        ("TIFF", "1", {"compression": "tiff_ccitt"}),
        ("TIFF", "RGB", {"compression": "lzma"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "RGB", {"compression": "packbits"}),
        ("TIFF", "P", {}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        *(("PPM", mode, {}) for mode in ("RGB", "L", "1")),
    ]
    for kind, mode, options in kinds:
        out = io.BytesIO()
        modes[mode].save(out, kind, **options)
        yield out.getvalue()


def texts():
    """Texts whose cleaning or tokens are anything but plain."""
    for text in (
        "a photo of a cat.",
        "It's they're I'll we've 12 3four",
        "caf\u00e9 na\u00efve \u6f22\u5b57",
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u05e2\u05d1\u05e8\u05d9\u05ea",
        "\U0001f469\u200d\U0001f52c\ufe0f e\u0301 \ufb01 \u2126",
        "&amp;lt; &#65; &#x1F600; &nbsp;",
        "sch\u00c3\u00b6n \u00e2\u20ac\u0153quoted\u00e2\u20ac\x9d",
        "<|endoftext|> <start_of_text>",
        " \t\r\n\u00a0\u2003x\u0000\u001b[31m",
        "x" * 300 + "!?" * 100,
    ):
        yield text.encode()


def bundle():
    """Manifests of both kinds; the file is the one that the target lays beside it."""
    digest = hashlib.sha256(b"an archive").hexdigest()
    head = 'format = 1\nname = "b"\nwidth = 8\nlogit_scale = 100.0\n'
    image = (
        '[image]\nfile = "image.pt"\nsize = 32\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n'
        'resize = "shortest-side"\nresize_to = 36\ninterpolation = "bicubic"\n'
    )
    text = (
        '[text]\nfile = "image.pt"\ntokenizer = "image.pt"\nrules = "plain"\n'
        "context_length = 16\npad_id = 0\n"
    )
    files = f'[files]\n"image.pt" = "{digest}"\n'
    templates = 'templates = ["a photo of a {}."]\n'
    for parts in (
        (head,),
        (head, templates, image, files),
        (head, templates, image, text, files),
        (head.replace("format = 1", "format = 99"),),
        (head, '[files]\n"../image.pt" = "00"\n'),
    ):
        yield "".join(parts).encode()


def caches():
    """The target's first byte says what follows: records, an export, manifest and tensors."""
    for path in sorted(SAMPLES.glob("state/*.json")):
        yield b"\0" + path.read_bytes()
    for version in sorted(SAMPLES.glob("versions/*")):
        manifest = (version / "manifest.json").read_bytes()
        [tensors] = [path.read_bytes() for path in version.glob("*.safetensors")]
        yield b"\0" + manifest
        yield b"\2" + struct.pack("<H", len(manifest)) + manifest + tensors
        yield b"\1" + exported(manifest, tensors)


def exported(manifest: bytes, tensors: bytes) -> bytes:
    """A safetensors file with the manifest in its metadata, as ExportVersion sends it."""
    (length,) = struct.unpack("<Q", tensors[:8])
    header, data = json.loads(tensors[8 : 8 + length]), tensors[8 + length :]
    metadata = header.pop("__metadata__", {})
    digest = hashlib.sha256()
    for name in sorted(header):
        entry = header[name]
        start, end = entry["data_offsets"]
        shape = ",".join(map(str, entry["shape"]))
        digest.update(f"{name}\n{entry['dtype']}\n{shape}\n".encode() + data[start:end])
    metadata |= {
        "tipserve.manifest": manifest.decode(),
        "tipserve.tensors_sha256": digest.hexdigest(),
    }
    text = json.dumps({"__metadata__": metadata} | header).encode()
    return struct.pack("<Q", len(text)) + text + data


def messages():
    """The target's first byte says which message it is."""
    embedding = inputs.Input(embedding=inputs.Embedding(values=[1, 0, 0, 0]))
    picture = inputs.Input(encoded_image=b"\x89PNG")
    raw = inputs.Input(raw_rgb=inputs.RawRgb(width=1, height=1, data=b"rgb"))
    items = [classify.Item(id=str(i), input=one) for i, one in enumerate((embedding, picture, raw))]
    items[0].time_limit.FromMilliseconds(20)
    config = classify.ClassifyStreamConfig(
        cache="caches/pets@stable", options=classify.ClassifyOptions(top_k=3, neighbours=2)
    )
    spec = cache.CacheSpec(
        cache_id="pets",
        classes=[cache.ClassSpec(display_name="cat"), cache.ClassSpec(display_name="dog")],
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1.5,
        beta=2.5,
        labels={"team": "a"},
    )
    spec.classes[0].text_weight.values.extend([1, 0, 0, 0])
    example = cache.Example(example_id="e", class_index=1, input=embedding)
    filters = [
        'labels.team = "vision" AND class_count > 3',
        "create_time >= 2026-01-01T00:00:00Z",
        'cache_id = "pets-*" AND description:"it\\"s"',
        "validation = true AND class_index != 2",
    ]
    listing = cache.ListCachesRequest(page_size=5, page_token="pets", filter=filters[0])
    listing.read_mask.paths.extend(["name", "etag"])
    for kind, message in (
        (0, classify.ClassifyStreamRequest(config=config)),
        (0, classify.ClassifyStreamRequest(items=classify.ItemBatch(items=items))),
        (1, cache.CreateCacheRequest(spec=spec)),
        (1, cache.CreateCacheRequest(examples=cache.ExampleBatch(examples=[example]))),
        (2, listing),
        (3, classify.EmbedRequest(inputs=[embedding, raw], texts=["a cat"])),
        (5, finetune.FineTuneRequest(cache="pets@7", epochs=3, move_alias="stable")),
    ):
        yield bytes([kind]) + message.SerializeToString()
    for name in ("pets", "caches/pets/versions/7", "caches/pets@stable", "pets@latest", "p/../q"):
        yield b"\4" + name.encode()
    for text in filters:
        yield b"\6" + text.encode()


def numbers():
    """The target's first byte: how the rest makes a number, and what follows it."""
    texts = "0 -0 1 -1.5 0.1 12345678901234567890 0.012345678955888748 1e10 -2.5E-3 3.4028236e38"
    for at, text in enumerate([*texts.split(), "01", "1.", "-"]):
        yield bytes([at % 4 << 2]) + text.encode()
    for form in range(8):
        yield bytes([1 | form % 4 << 2]) + struct.pack("<fbB", 0.1, form - 4, form) + b"0123456789"
        yield bytes([2, form, form, 0xF0 + form]) + bytes(range(20))
    yield b"\3" + np.float32([1, -0.1, 1e-45, 3.4e38]).tobytes()


def filled(message, depth=4):
    """A JSON object with a value in every field, or in the first of those that exclude others."""
    texts = {
        "google.protobuf.Duration": "1.5s",
        "google.protobuf.Timestamp": "2026-01-31T12:00:00.5Z",
        "google.protobuf.FieldMask": "name,latest.keyCount",
    }
    if message.full_name in texts:
        return texts[message.full_name]
    made = {}
    for field in message.fields:
        of = field.containing_oneof
        if of is not None and of.fields[0].name != field.name:
            continue
        if field.message_type is not None:
            if depth == 0:
                continue
            entry = field.message_type
            if entry.GetOptions().map_entry:
                number = entry.fields_by_name["value"].type == field.TYPE_INT64
                made[field.json_name] = {"a": 1 if number else "b"}
                continue
            value = filled(entry, depth - 1)
        elif field.enum_type is not None:
            value = field.enum_type.values[-1].name
        else:
            value = {
                field.TYPE_STRING: "a\u00e9",
                field.TYPE_BYTES: "iVBORw0KGgo=",
                field.TYPE_BOOL: True,
                field.TYPE_FLOAT: 0.5,
                field.TYPE_DOUBLE: 1.25e-3,
                field.TYPE_INT64: "7",
            }.get(field.type, 1)
        made[field.json_name] = [value, value] if field.is_repeated else value
    return made


def methods():
    """All methods that HTTP has, by the names of what they take."""
    for module in (analysis, bundles, cache, classify, finetune):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def json_():
    """The target's first bytes: which request of those that HTTP has, and how it is written."""
    named = {method.input_type.full_name: method.input_type for method in methods()}
    for at, name in enumerate(sorted(named)):
        whole = filled(named[name])
        yield bytes([at, 0]) + json.dumps(whole).encode()
        yield bytes([at, 2]) + json.dumps(whole, indent=1, ensure_ascii=False).encode()
        for field, value in whole.items():
            yield bytes([at, 1]) + json.dumps({field: value}).encode()
        for one_of in named[name].oneofs:
            for field in one_of.fields:
                if field.message_type is not None:
                    text = json.dumps({field.json_name: filled(field.message_type)})
                    yield bytes([at, 0]) + text.encode()


def operations():
    """Verb and path of all operations, in the target's order."""
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    plain = re.compile(r"[{}]")
    listed = [
        (plain.sub("", path.replace("{version}", "7")), verb.upper())
        for path, of in paths.items()
        for verb in of
    ]
    return [(verb, path) for path, verb in sorted(listed)]


def form(*parts):
    """A form of parts: a name, a file's name or none, and the content."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file else ""
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + b"--b--\r\n"


def requests():
    """The target's first bytes: operation, type, piece, lengths of query and of a header."""
    every = operations()
    types = ["json", "ndjson", "", "png", "octets", "npy", "form", "text"]

    def seed(path, kind, body, query="", header=None, piece=0, verb="POST"):
        number = types.index(kind) | (0x80 if header is not None else 0)
        at = every.index((verb, path))
        return bytes([at, number, piece, len(query), header or 0]) + query.encode() + body

    for verb, path in every:
        yield seed(path, "", b"", verb=verb)
        yield seed(path, "json", b"{}", verb=verb)
    yield seed("/v1/caches", "", b"", "pageSize=5&filter=labels.a%3D1&readMask=name", verb="GET")
    yield seed("/v1/caches/cache:drift", "", b"", "options.topK=3&x=1", verb="GET")
    for method in methods():
        text = json.dumps(filled(method.input_type)).encode()
        for verb, path in every:
            if verb == "POST" and path.lower().endswith(method.name.lower()):
                yield seed(path, "json", text)
                yield seed(path, "ndjson", text)
    picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    array = io.BytesIO()
    np.save(array, np.float32([[1, 0, 0, 0], [0, 1, 0, 0]]))
    one = json.dumps({"input": {"embedding": {"values": [1, 0.5, -2e-3, 0]}}}).encode()
    item = json.dumps({"items": {"items": [{"id": "a", "input": {"encodedImage": "iVBO"}}]}})
    one_cache = "/v1/caches/cache"
    for path in (f"{one_cache}:classify", f"{one_cache}:classifyStream", "/v1/inputs:embed"):
        yield seed(path, "png", picture, "topK=2")
        yield seed(path, "", picture, piece=3)
        yield seed(path, "npy", array.getvalue())
        yield seed(path, "form", form(("topK", None, b"3"), ("input", "a.png", picture)), piece=7)
        yield seed(path, "form", form(("a", "a.png", picture), ("b", "b.png", picture)))
        yield seed(path, "text", one)
    for path in (f"{one_cache}:classifyStream", f"{one_cache}:addExamples", "/v1/caches"):
        yield seed(path, "ndjson", f"{item}\n\n{item}\r\n".encode(), "priority=1", piece=16)
        spec = ("spec.cacheId", None, b"pets"), ("spec.method", None, b"METHOD_TIP_ADAPTER")
        yield seed(path, "form", form(*spec, ("cat", "a.png", picture), ("dog", "b.png", picture)))
        given = ("spec.classes", None, b'{"displayName": "cat"}')
        yield seed(path, "form", form(given, ("cat", "a.png", picture)))
    yield seed("/v1/caches/cache/versions:import", "octets", bytes(range(40)), piece=9)
    embeddings = {"input": ["a", "data:image/png;base64,iVBO"], "model": "m", "dimensions": 4}
    embeddings["encoding_format"] = "base64"
    yield seed("/v1/embeddings", "json", json.dumps(embeddings).encode())
    yield seed("/v1/embeddings", "json", b'{"input": "a cat"}')
    infer = "/v2/models/model/infer"
    tensor = {"name": "image", "shape": [1, 4], "datatype": "FP32"}
    outputs = [{"name": "o", "parameters": {"binary_data": True, "classification": 3}}]
    plain = {"id": "1", "inputs": [tensor | {"data": [[1, 2.5], [-3e-2, 4]]}], "outputs": outputs}
    yield seed(infer, "json", json.dumps(plain).encode())
    texts = tensor | {"datatype": "BYTES", "data": ["iVBO"], "parameters": {"a": "b", "c": 1.5}}
    yield seed(infer, "json", json.dumps({"inputs": [texts]}).encode())
    sized = {"inputs": [tensor | {"parameters": {"binary_data_size": 16}}]}
    head = json.dumps(sized).encode()
    yield seed(infer, "octets", head + bytes(16), header=len(head))
    load = {"parameters": {"a": 1, "b": "x", "c": True}}
    yield seed("/v2/repository/models/model/load", "json", json.dumps(load).encode())


def main() -> None:
    """Writes all seeds, by their hash as libFuzzer names its own."""
    for target in (pictures, texts, bundle, caches, messages, numbers, json_, requests):
        folder = HERE / "corpus" / target.__name__.rstrip("_")
        folder.mkdir(parents=True, exist_ok=True)
        seeds = list(target())
        for seed in seeds:
            (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
        print(f"{len(seeds)} seeds in {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
