"""A model's own ``tokenizer.json``, from its folder, as a bundle carries it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tipserve_export.errors import MissingPackageError, SourceError

PADS_LEFT = {"Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast"}
"""Classes of transformers that pad on the left if nothing else is said."""

SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model")


@dataclass(frozen=True)
class TokenizerFile:
    """The content of a ``tokenizer.json`` and what its neighbours say of padding."""

    content: dict[str, Any]
    pad_id: int
    pad_side: str
    is_converted: bool = False
    """Whether it was made of a SentencePiece model, for texts with their own ▁ in front."""

    def writer(self) -> Callable[[Path], None]:
        """What writes the file."""
        return lambda path: path.write_text(
            json.dumps(self.content, ensure_ascii=False), encoding="utf-8"
        )

    def for_rules(self, rules: str) -> TokenizerFile:
        """The same for texts that the server's ``rules`` make.

        Only ``siglip`` puts the ▁ in front that a SentencePiece model wants. Of other texts each
        word gets one here, as from ``transformers``' T5Tokenizer, which open_clip has for SigLIP.
        """
        if not self.is_converted or rules == "siglip":
            return self
        steps = self.content["normalizer"]["normalizers"]
        words = {
            "type": "Metaspace",
            "replacement": "\u2581",
            "prepend_scheme": "always",
            "split": True,
        }
        return replace(
            self,
            content=self.content
            | {
                # White space ends words: what the model's own rule makes of it has no effect.
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": [step for step in steps if step["type"] == "Precompiled"],
                },
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "WhitespaceSplit"}, words],
                },
            },
        )

    def in_lower_case(self) -> TokenizerFile:
        """The same with lower case first, which SigLIP 2 was trained with.

        ``transformers``' Siglip2Tokenizer adds it to Gemma's tokenizer.
        """
        own = self.content.get("normalizer")
        steps = own["normalizers"] if own and own["type"] == "Sequence" else [own] if own else []
        if any(step["type"] == "Lowercase" for step in steps):
            return self
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
        return replace(self, content=self.content | {"normalizer": normalizer})


def read_tokenizer(folder: Path) -> TokenizerFile:
    """Reads a folder's tokenizer; a SentencePiece model is converted.

    The server cuts, pads, and lets no text produce a special token: truncation, padding and
    the special ones among the added tokens are taken out. What the post-processor adds stays.
    """
    config = _json(folder / "tokenizer_config.json")
    file = folder / "tokenizer.json"
    is_converted = not file.is_file()
    if not is_converted:
        content = _json(file)
    else:
        model = next((folder / n for n in SENTENCEPIECE_FILES if (folder / n).is_file()), None)
        if model is None:
            raise SourceError(
                f"{folder} has neither tokenizer.json nor a SentencePiece model "
                f"({', '.join(SENTENCEPIECE_FILES)})"
            )
        content = from_sentencepiece(model)
    pad = config.get("pad_token") or _special(folder, "pad_token") or "<pad>"
    pad = pad["content"] if isinstance(pad, dict) else pad
    pad_id = _id_of(content, pad)
    if pad_id is None:
        raise SourceError(f"the padding token {pad!r} of {folder} is not in its vocabulary")
    stripped = [token for token in content.get("added_tokens") or [] if not token.get("special")]
    content |= {"truncation": None, "padding": None, "added_tokens": stripped}
    kind = config.get("tokenizer_class") or ""
    return TokenizerFile(
        content=content,
        pad_id=pad_id,
        pad_side=config.get("padding_side") or ("left" if kind in PADS_LEFT else "right"),
        is_converted=is_converted,
    )


def from_sentencepiece(file: Path) -> dict[str, Any]:
    """A SentencePiece unigram model as ``tokenizer.json``, ids and end token unchanged.

    The text is taken with its own ▁ in front, as the server's rules ``siglip`` put it there:
    :meth:`TokenizerFile.for_rules` has the file for others.
    """
    try:
        from sentencepiece import sentencepiece_model_pb2 as schema  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError("sentencepiece", str(file)) from error
    model = schema.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf has an error class of its own
        raise SourceError(f"{file} is no SentencePiece model: {error}") from error
    if model.trainer_spec.model_type != model.trainer_spec.UNIGRAM:
        raise SourceError(f"{file} is no unigram model: only those are converted")
    pieces = [[piece.piece, piece.score] for piece in model.pieces]
    normalizers: list[dict[str, Any]] = []
    if model.normalizer_spec.precompiled_charsmap:
        import base64  # noqa: PLC0415

        charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if model.normalizer_spec.remove_extra_whitespaces:
        normalizers.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        normalizers.append({"type": "Strip", "strip_left": False, "strip_right": True})
    end = model.trainer_spec.eos_piece
    end_id = model.trainer_spec.eos_id
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "\u2581",
            "prepend_scheme": "never",
            "split": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": end, "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {end: {"id": end, "ids": [end_id], "tokens": [end]}},
        },
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": model.trainer_spec.unk_id,
            "vocab": pieces,
            "byte_fallback": model.trainer_spec.byte_fallback,
        },
    }


def _id_of(content: dict[str, Any], token: str) -> int | None:
    for added in content.get("added_tokens") or []:
        if added["content"] == token:
            return added["id"]
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary.get(token)
    return next((i for i, piece in enumerate(vocabulary) if piece[0] == token), None)


def _special(folder: Path, name: str) -> Any:
    return _json(folder / "special_tokens_map.json").get(name)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{file} is not a JSON object")
    return content
