"""Writes texts with CLIP's cleaning and ids by Python's ftfy and open_clip.

    python3 clip_tokens.py OUT SEED

OUT/bundle is a bundle with CLIP's tokenizer; OUT/texts.json a list of {text,
clean, ids (context 77, cut), count (tokens with start and end)}. Ids are those
of open_clip's SimpleTokenizer with its alternatives for special tokens taken
out of the pattern: the one documented exception.
"""

import hashlib
import json
import pathlib
import random
import sys
import unicodedata

import ftfy
import open_clip.tokenizer as tokenizer
import regex
from clip_texts import TORTURE
from tipserve_export.clip_tokenizer import tokenizer_json

out = pathlib.Path(sys.argv[1])
draw = random.Random(int(sys.argv[2]))

simple = tokenizer.SimpleTokenizer()
simple.pat = regex.compile(
    r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""", regex.IGNORECASE
)

planes = [
    (0x20, 0x7F), (0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80),
    (0x1E00, 0x2000), (0x2000, 0x2070), (0x20A0, 0x2400), (0x3040, 0x3100), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
    (0xFB00, 0xFB07), (0xFF00, 0xFFEF), (0x1F300, 0x1F650), (0x1D400, 0x1D7FF), (0x300, 0x370), (0x0, 0x20), (0x80, 0xA0),
]  # fmt: skip


def random_text():
    length = draw.randint(1, 40)
    kinds = [draw.choice(planes) for _ in range(draw.randint(1, 4))]
    text = []
    for _ in range(length):
        if draw.random() < 0.2:
            text.append(" ")
        else:
            text.append(character(draw.choice(kinds)))
    return "".join(text)


def character(plane):
    """Assigned in Unicode 14 already: Python's and Rust's tables are of different years."""
    while True:
        drawn = chr(draw.randrange(*plane))
        if unicodedata.category(drawn) != "Cn":
            return drawn


def redecoded(text):
    """Whether ftfy took the text for mojibake, or another version of it could. On random characters
    that is chance; real mojibake is in the lists."""
    steps = ftfy.fix_and_explain(text).explanation or []
    return any(
        step.action in ("encode", "decode", "transcode")
        or step.parameter == "decode_inconsistent_utf8"
        for step in steps
    ) or any(
        is_utf8(text[at : at + length], encoding)
        for at in range(len(text))
        for length in (2, 3, 4)
        for encoding in ("latin-1", "cp1252", "macroman", "cp437", "cp1250", "cp1251")
    )


def is_utf8(part, encoding):
    """Whether the bytes of these characters in an encoding are one character of UTF-8; a space may
    stand for the byte A0, which ftfy restores.
    """
    try:
        return len(part.replace(" ", "\xa0").encode(encoding).decode()) == 1 < len(part)
    except UnicodeError:
        return False


def mojibake():
    """UTF-8 read as another encoding, as it lies in real captions."""
    text = draw.choice(
        ["schön und gut", "l’été à Noël", "“quoted” – dash…", "naïve café", "niño señor", "100 € ™"]
    )
    try:
        return text.encode().decode(
            draw.choice(["latin-1", "cp1252", "macroman", "cp437", "cp1250"])
        )
    except UnicodeDecodeError:
        return text


entities = [
    "&amp;",
    "&lt",
    "&eacute;",
    "&#233;",
    "&#xe9;",
    "&NotEqualTilde;",
    "&hearts;",
    "&frac12",
    "&amp;quot;",
    "&bogus;",
]
texts = [random_text() for _ in range(600)]
texts += [random_text() + draw.choice(entities) + random_text() for _ in range(100)]
texts = [text for text in texts if not redecoded(text)]
texts += TORTURE + [mojibake() for _ in range(60)]
texts += ["the " * draw.randint(70, 80) for _ in range(5)]

cases = []
for text in texts:
    tokens = simple.encode(text)
    cases.append(
        dict(
            text=text,
            clean=simple.clean_fn(text),
            ids=simple(text)[0].tolist(),
            count=len(tokens) + 2,
        )
    )
(out / "texts.json").write_text(json.dumps(cases))

bundle = out / "bundle"
bundle.mkdir()
files = {"tokenizer.json": json.dumps(tokenizer_json()).encode(), "text.pt": b"none"}
for name, data in files.items():
    (bundle / name).write_bytes(data)
listed = "\n".join(
    f'"{name}" = "{hashlib.sha256(data).hexdigest()}"' for name, data in files.items()
)
(bundle / "bundle.toml").write_text(
    f"""format = 1
name = "tokens"
width = 8
logit_scale = 100.0
templates = ["a photo of a {{}}."]
[text]
file = "text.pt"
tokenizer = "tokenizer.json"
rules = "clip"
context_length = 77
pad_id = 0
[files]
{listed}
"""
)
