import random
import unicodedata

import pytest
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn
from tipserve_export.clip_tokenizer import END, START, tokenizer_writer
from tokenizers import Tokenizer

TORTURE = [
    "a photo of a cat.",
    "Café déjà vu, naïve coöperation, ÅNGSTRÖM, e\u0301",
    "emoji 🙂 👩\u200d👩\u200d👧 ❤\ufe0f 🇨🇭",
    "中文字符 日本語の文字 한국어",
    "हिन्दी क्षि ไทย עברית العربية Ελληνικά ΟΔΟΣ",
    "&amp;lt;b&amp;gt; &eacute; &#39;s &nbsp; &notanentity;",
    "double  spaces\tand\nlines \u2003 wide",
    "12345 3.14 ½ ² Ⅷ ٣٤ ①",
    "I'd don't we've they're it's I'm you'll 'Tis O'NEIL'S 'ſ",
    "UPPER Case İSTANBUL ß ẞ ſ \u212a",
    "<|endoftext|> and <|startoftext|>",
    "<|ENDOFTEXT|>",
    "“curly” ‘quotes’ — … ﬁ ｆｕｌｌｗｉｄｔｈ",
    "schÃ¶n mojibake â€œ",
    "_under_score_ -dash- @#$%^&*() ...!!!???",
    "\u200b\u00ad\ufeff",
    "x" * 400,
    "word " * 200,
    "\u1fb3 \u0345 x\u0345\u0345y '\u0345s",
    "",
    "   ",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer_writer(49408)(path)
    return Tokenizer.from_file(str(path))


def random_text(rng: random.Random) -> str:
    """Characters of all planes; those that Unicode 14 does not know are left out, for their
    classes differ between releases of the regular expression libraries."""
    pools = [(0x20, 0x7E), (0xA0, 0x24F), (0x250, 0xD7FF), (0xE000, 0x2FFFF)]
    text = [chr(rng.randint(*rng.choice(pools))) for _ in range(rng.randint(1, 30))]
    text += rng.choices(["'s", "'LL", " ", "<|endoftext|>", "2nd"], k=3)
    rng.shuffle(text)
    return "".join(c for c in text if len(c) > 1 or unicodedata.category(c) != "Cn")


def test_ids_of_clean_text(tokenizer: Tokenizer, seed: int) -> None:
    reference = SimpleTokenizer()
    clean = get_clean_fn("lower")
    rng = random.Random(seed)
    for text in TORTURE + [random_text(rng) for _ in range(2000)]:
        cleaned = clean(text)
        assert tokenizer.encode(cleaned).ids == reference.encode(text), repr(text)


def test_no_text_gives_a_special_token(tokenizer: Tokenizer) -> None:
    special = {tokenizer.token_to_id(START), tokenizer.token_to_id(END)}
    assert special == {49406, 49407}
    for text in (START, END, f"a {END} b", f"{START}{END}", "<start_of_text>", "<end_of_text>"):
        assert not special & set(tokenizer.encode(text).ids)
