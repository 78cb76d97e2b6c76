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
from tipserve_export.clip_tokenizer import tokenizer_json

out = pathlib.Path(sys.argv[1])
draw = random.Random(int(sys.argv[2]))

simple = tokenizer.SimpleTokenizer()
simple.pat = regex.compile(
    r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""", regex.IGNORECASE
)

torture = [
    "a photo of a cat.", "", " ", "\t\n", "a", "A PHOTO OF A DOG", "double  spaces   here ",
    "café crème brûlée à la carte", "cafe\u0301 nai\u0308ve", "Ångström ÅNGSTRÖM",
    "emoji 😀😃 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️", "中文照片", "日本語のテキスト", "한국어 텍스트", "ภาษาไทย",
    "العربية نص", "עברית טקסט", "Ελληνικά ΟΔΥΣΣΕΥΣ ΣΑΣ Σ", "Русский текст ЁЖ",
    "&amp; &lt;b&gt; &quot;x&quot; &#39;y&#39; &copy; &eacute;", "&amp;amp; &amp;lt;p&amp;gt;",
    "&amp;amp;amp;amp;", "AT&T &ampere &notit; &notin; &noti &am &a &", "&#0; &#128; &#x80; &#xD800; &#1114112; &#x1F600; &#11;",
    "&#x41 &#65 &#; &#x; &#xZ", "&EACUTE; &Eacute &NTILDE; &hellip;", "<b>&eacute;</b> &amp;", "1 < 2 &amp; 3 > 2",
    "&CounterClockwiseContourIntegral; &nLt; &bne; &fjlig;", "1234567890 3.14 1,000 ½ ² ⅷ Ⅷ ٣ 四",
    "it's don't we're I've I'm we'll he'd o'clock 'sup", "IT'S DON'T WE'RE I'VE I'M WE'LL HE'D",
    "it\u2019s \u201cquoted\u201d \u2018single\u2019 \u201elow\u201c \u00abguil\u00bb",
    "ＦＵＬＬＷＩＤＴＨ ｆｕｌｌ １２３ ！？　ideographic", "ﾊﾝｶｸ ｶﾀｶﾅ", "ﬁne ﬂow oﬃce ﬆop ĳs ǆ",
    "schÃ¶n cafÃ© â€œquoteâ€\x9d naÃ¯ve", "Ã¼ber â€“ dash", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "doesnâ€™t", "lâ€™humanitÃ©",
    "zero\u200bwidth \u200djoiner\u200c \ufeffbom \u2060word", "soft\u00adhyphen", "nbsp\u00a0space\u202fnarrow\u3000wide",
    "line\u2028sep\u2029para\x85next\x0bvt\x0cff\rcr\r\ncrlf", "ß STRASSE Straße ẞ", "İstanbul ISTANBUL ıi I",
    "ſtrange 'ſ long s", "K Kelvin Å Angstrom Ω Ohm", "control\x00\x01\x07\x1b[31mred\x1b[0m\x7f", "\x1cfs\x1dgs\x1ers\x1fus",
    "math ∑∫√∞≠≤≥ ×÷±", "currency €£¥₹₿", "arrows ←→↑↓", "box ─│┌┐", "_under_score_ __dunder__", "a_b-c.d,e;f:g!h?i",
    "http://example.com/a?b=c&d=e&lt=5", "user@example.com #hash @at", "C++ C# .NET", "\\backslash \\n",
    "<|endoftext|>", "a <|startoftext|> b <|endoftext|> c", "<start_of_text> <end_of_text>", "<|ENDOFTEXT|>",
    "𝒜𝓁𝓅𝒽𝒶 𝔸 𝟙𝟚𝟛", "ⓒⓘⓡⓒⓛⓔ ①②③", "combining a\u0308\u0301\u0327 z̷a̷l̷g̷o̷", "ÆØÅæøå œŒ þÞ ðÐ", "ĄĆĘŁŃÓŚŹŻ",
    "tiếng Việt", "हिन्दी पाठ", "தமிழ்", "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "ᏣᎳᎩ ꮳꮃꭹ", "Ǆ ǅ ǆ ŉ ΐ", "... !!! ??? ---",
    "'", "''", "'s", "''s", "’s", "a's's", "`code`", "\"quoted\"", "word " * 100, "x" * 500, "é" * 300, "1" * 100,
    "word " * 75, "word " * 76, "word " * 74, "\U0001F9D1\u200D\U0001F4BB coder", "flag\U000E0067\U000E0062 tag",
    "private \ue000 \U0010ffff nonchar \ufffe", "�replacement", "mixed中文English日本語123", "tab\tseparated\tvalues",
    "NAÏVE CAFÉ", "Γειά ΣΟΥ", "ﷺ ligature", "ªº ordinal", "№ ℡ ™ ®", "1st 2nd 3rd", "2x4", "x²+y²=z²",
    "L&#39;&Eacute;t&eacute;", "&lt;|endoftext|&gt;", "&nbsp;&nbsp;a&nbsp;b", "&ThickSpace;&ZeroWidthSpace;x",
]  # fmt: skip

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
    """Whether ftfy took the text for mojibake. On random characters that is chance, and depends
    on ftfy's version; real mojibake is in the lists."""
    steps = ftfy.fix_and_explain(text).explanation or []
    return any(
        step.action in ("encode", "decode", "transcode")
        or step.parameter == "decode_inconsistent_utf8"
        for step in steps
    )


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
texts += torture + [mojibake() for _ in range(60)]
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
