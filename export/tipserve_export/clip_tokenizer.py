"""CLIP's byte-level BPE as a Hugging Face ``tokenizer.json``.

The file takes text that is already clean (ftfy, HTML unescaped, white space collapsed, lower
case) and gives the ids that OpenAI's ``SimpleTokenizer`` gives for it, without start and end.
No entry of it is a special token: a literal ``<|endoftext|>`` in a text is split and encoded
like any other text.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tipserve_export.errors import MissingPackageError, SourceError

START = "<|startoftext|>"
END = "<|endoftext|>"
MERGES = 49152 - 256 - 2
"""How many lines of the merges file OpenAI uses; the file holds more."""

# OpenAI's pattern without its two alternatives for the special tokens. U+0345 is excluded by name:
# it is no letter, but its upper case is one (Ι), and Python's regex, ignoring case, then has it
# neither among the letters nor among what is none, so OpenAI's tokenizer drops it.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"


def bytes_to_characters() -> dict[int, str]:
    """GPT-2's printable character for each byte, in the order of CLIP's vocabulary.

    Printable Latin-1 bytes stand for themselves; the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return table


def merges() -> list[tuple[str, str]]:
    """CLIP's merges, best first, from the file that open_clip carries."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise MissingPackageError("open_clip_torch", "CLIP's vocabulary")
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except OSError as error:
        raise SourceError(f"cannot read CLIP's vocabulary: {error}") from error
    pairs = [tuple(line.split()) for line in lines[1 : MERGES + 1]]
    return [(first, second) for first, second in pairs]


def vocabulary(pairs: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id: bytes, bytes that end a word, merged pairs, start, end."""
    characters = list(bytes_to_characters().values())
    tokens = characters + [c + "</w>" for c in characters]
    tokens += [first + second for first, second in pairs]
    tokens += [START, END]
    return {token: i for i, token in enumerate(tokens)}


def tokenizer_json() -> dict[str, Any]:
    """The content of ``tokenizer.json``."""
    pairs = merges()
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": PATTERN},
                    "behavior": "Removed",
                    "invert": True,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": False,
                },
            ],
        },
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary(pairs),
            "merges": [list(pair) for pair in pairs],
        },
    }


def tokenizer_writer(vocabulary_size: int) -> Callable[[Path], None]:
    """What writes ``tokenizer.json`` for a text encoder with that many token embeddings."""
    content = tokenizer_json()
    size = len(content["model"]["vocab"])
    if vocabulary_size != size:
        raise SourceError(
            f"the text encoder has {vocabulary_size} token embeddings, CLIP's vocabulary {size} "
            "tokens: this variant is not supported"
        )

    def write(path: Path) -> None:
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    return write
