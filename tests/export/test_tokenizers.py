"""Token ids of converted tokenizers, text by text, against the libraries' own."""

import json
import re
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agreement import manifest
from tipserve_export.cli import main
from tipserve_export.sources.tokenizer_files import read_tokenizer
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))

pytest.importorskip("sentencepiece")
pytest.importorskip("transformers")
families = pytest.importorskip("families")

from clip_texts import TORTURE  # noqa: E402
from open_clip.tokenizer import HFTokenizer, get_clean_fn  # noqa: E402

CONTEXT = 64
# Texts that composing characters and marks tells apart.
TEXTS = [*TORTURE, "\u0149", "a \u0149 b", "a\u0345", "\u03b1\u0345 x", "\u0345"]

# What the server does under each rule before the file takes over, as the library has it.
CLEAN = {"canonical": get_clean_fn("canonicalize"), "plain": lambda text: text}


def ids(content: dict[str, Any], text: str, pad_id: int) -> list[int]:
    """A row as the server makes it of a cleaned text."""
    row = Tokenizer.from_str(json.dumps(content)).encode(text).ids
    row = row if len(row) <= CONTEXT else [*row[: CONTEXT - 1], row[-1]]
    return row + [pad_id] * (CONTEXT - len(row))


@pytest.mark.parametrize("folder", [families.t5_folder, families.sentencepiece_folder])
def test_a_sentencepiece_model_has_open_clips_tokens(
    folder: Callable[[Path], Any], tmp_path: Path
) -> None:
    """Whichever class of transformers the folder names."""
    folder(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    library = HFTokenizer(str(tmp_path), context_length=CONTEXT, clean="canonicalize")
    own = read_tokenizer(tmp_path).for_rules("canonical")
    for text in TEXTS:
        got = ids(own.content, CLEAN["canonical"](text), own.pad_id)
        assert got == library([text])[0].tolist(), text


def test_text_rules_of_a_siglip_folder(tmp_path: Path) -> None:
    """A SentencePiece model wants a \u2581 in front, which the rules siglip alone put there."""
    families.siglip_family(tmp_path, 1, families.sentencepiece_folder)
    source = tmp_path / "source"
    library = HFTokenizer(str(source), context_length=CONTEXT, clean="canonicalize")
    for rules, text in (("canonical", "A photo of a  CAT!"), ("plain", "A photo of a  CAT")):
        out = tmp_path / rules
        arguments = ["huggingface", str(source), "--text-rules", rules, "--int8", "never"]
        assert main([*arguments, "--out", str(out)]) == 0
        stated = manifest(out)["text"]
        assert stated["rules"] == rules
        content = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
        got = ids(content, CLEAN[rules](text), stated["pad_id"])
        assert got == library([text])[0].tolist()
    content = json.loads((tmp_path / "bundle" / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["pre_tokenizer"]["prepend_scheme"] == "never"


def siglip_clean(text: str) -> str:
    """What the server does under the rules siglip before the file takes over."""
    text = f"\u2581{text.replace(chr(0x2581), ' ')}".lower()
    return re.sub(r"\s+", " ", text.translate(str.maketrans("", "", string.punctuation))).rstrip(
        " "
    )


# Known limits, as docs/bundles.md has them: a mark at the start, behind a character that the
# model's rules rewrite, or one of several.
OTHER = ["\u0345", "\u0301a", "x\u0149\u0301", "x\u00b2\u0345", "a\u0308\u0301\u0327"]


def test_rules_siglip_have_transformers_tokens_but_for_marks(tmp_path: Path) -> None:
    library = families.sentencepiece_folder(tmp_path)
    own = read_tokenizer(tmp_path).for_rules("siglip")

    def agree(text: str) -> bool:
        options = {"padding": "max_length", "truncation": True, "max_length": CONTEXT}
        theirs = library(text, **options).input_ids
        return ids(own.content, siglip_clean(text), own.pad_id) == theirs

    stacked = re.compile("[\u0300-\u036f]{2}")
    for text in TEXTS:
        if text not in OTHER and not stacked.search(text):
            assert agree(text), text
    for text in OTHER:
        assert not agree(text), f"{text!r} agrees: docs/bundles.md says otherwise"


def test_an_open_clip_siglip_with_a_sentencepiece_model(tmp_path: Path) -> None:
    reference = families.FAMILIES["siglip"](tmp_path, 1)
    stated = manifest(tmp_path / "bundle")["text"]
    content = json.loads((tmp_path / "bundle" / "tokenizer.json").read_text(encoding="utf-8"))
    for text in TEXTS:
        got = ids(content, CLEAN[stated["rules"]](text), stated["pad_id"])
        assert got == reference.tokens([text])[0].tolist(), text
