"""Hugging Face's `tokenizer.json`: a chain of normalizer, pre-tokenizer, model and decoder.

The chain can express more than any one model needs. We read the chains that models in use have,
and say which part it is where we cannot: a tokenizer that is nearly right is worse than none.
Every added token counts as a special token here, whether the file calls it special or not.
"""

from __future__ import annotations

import json
import os
from typing import Any

from minillm import files
from minillm.errors import InputError
from minillm.tokenizer.base import Tokenizer
from minillm.tokenizer.bpe import BPETokenizer
from minillm.tokenizer.formats import hugging_face_pieces
from minillm.tokenizer.formats.gpt2_files import (
    from_printables,
    load_json,
    printable_merges,
    printable_vocab,
)
from minillm.tokenizer.normalizing import FORMS
from minillm.tokenizer.patterns import PATTERNS
from minillm.tokenizer.sentencepiece import SentencePieceTokenizer
from minillm.tokenizer.wordpiece import INSIDE, LONGEST, UNKNOWN, WordPieceTokenizer


def read(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`. Raises `InputError` with what cannot be read."""
    content = load_json(path)
    try:
        return from_json(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is malformed: {error!r}") from error


def from_json(content: dict[str, Any]) -> Tokenizer:
    """`read`, of a file's content."""
    model = content["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    special = {token["content"]: int(token["id"]) for token in content.get("added_tokens") or ()}
    if kind == "BPE":
        of_pieces = hugging_face_pieces.is_of_pieces(content)
        return (hugging_face_pieces.read_bpe if of_pieces else _read_bpe)(content, model, special)
    if kind == "WordPiece":
        return _read_wordpiece(content, model, special)
    if kind == "Unigram":
        return hugging_face_pieces.read_unigram(content, model, special)
    raise InputError(f"its model is {kind!r}; BPE, WordPiece and Unigram can be read")


def write(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write `tokenizer.json`, for `tokenizers.Tokenizer.from_file` and `transformers`."""
    files.write_text(path, json.dumps(content_of(tokenizer), ensure_ascii=False))


def content_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `write` writes."""
    if isinstance(tokenizer, BPETokenizer):
        parts = _write_bpe(tokenizer)
    elif isinstance(tokenizer, WordPieceTokenizer):
        parts = _write_wordpiece(tokenizer)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        parts = hugging_face_pieces.write(tokenizer)
    else:
        raise InputError(f"a {tokenizer.kind} tokenizer cannot be written as tokenizer.json")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for name, number in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
        ],
        "post_processor": None,
        **parts,
    }


# ------------------------------------------------------------------ byte-level BPE


def _read_bpe(
    content: dict[str, Any], model: dict[str, Any], special: dict[str, int]
) -> BPETokenizer:
    for feature in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(feature):
            raise InputError(f"its BPE has {feature}, and only byte-level BPE can be read")
    tokenizer = from_printables(
        {token: number for token, number in model["vocab"].items() if token not in special},
        model["merges"],
        (),
        _bpe_pattern(content.get("pre_tokenizer")),
        bool(model.get("ignore_merges")),
        _normal_form(content.get("normalizer")),
    )
    return BPETokenizer(
        tokenizer.tokens, tokenizer.merges.tolist(), special, tokenizer.pattern,
        tokenizer.whole_words, tokenizer.normal_form,
    )  # fmt: skip


def _bpe_pattern(pre: dict[str, Any] | None) -> str:
    """The split pattern of a chain of pre-tokenizers that ends in ByteLevel."""
    steps: list[Any] = pre["pretokenizers"] if pre and pre["type"] == "Sequence" else [pre]
    last = steps[-1]
    if not last or last["type"] != "ByteLevel":
        raise InputError("its pre-tokenizer is not ByteLevel, and only byte-level BPE can be read")
    if last.get("add_prefix_space"):
        raise InputError("its pre-tokenizer adds a space in front of texts, which is not supported")
    own = last.get("use_regex", True)
    if len(steps) == 1:
        return "gpt2" if own else "whole"
    split = steps[0]
    plain = (
        len(steps) == 2
        and not own
        and split["type"] == "Split"
        and split["behavior"] == "Isolated"
        and not split.get("invert")
        and "Regex" in split["pattern"]
    )
    if not plain:
        names = ", ".join(step["type"] for step in steps)
        raise InputError(f"its pre-tokenizer is {names}; ByteLevel after one Split can be read")
    return split["pattern"]["Regex"]


def _normal_form(normalizer: dict[str, Any] | None) -> str:
    """The Unicode form of a normalizer that does nothing else."""
    if normalizer and normalizer["type"] == "Sequence":
        steps = normalizer["normalizers"]
        if len(steps) > 1:
            names = ", ".join(step["type"] for step in steps)
            raise InputError(f"its normalizer is {names}; one of {', '.join(FORMS)} can be read")
        normalizer = steps[0] if steps else None
    if not normalizer:
        return ""
    if normalizer["type"] not in FORMS:
        raise InputError(
            f"its normalizer is {normalizer['type']}; one of {', '.join(FORMS)} can be read"
        )
    return normalizer["type"]


def _write_bpe(tokenizer: BPETokenizer) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if tokenizer.pattern in ("gpt2", "whole"):
        pre: dict[str, Any] = {**level, "use_regex": tokenizer.pattern == "gpt2"}
    else:
        split = {
            "type": "Split",
            "pattern": {"Regex": PATTERNS.get(tokenizer.pattern, tokenizer.pattern)},
            "behavior": "Isolated",
            "invert": False,
        }
        pre = {"type": "Sequence", "pretokenizers": [split, {**level, "use_regex": False}]}
    return {
        "normalizer": {"type": tokenizer.normal_form} if tokenizer.normal_form else None,
        "pre_tokenizer": pre,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.whole_words,
            "vocab": printable_vocab(tokenizer),
            "merges": printable_merges(tokenizer),
        },
    }


# ------------------------------------------------------------------ WordPiece


def _read_wordpiece(
    content: dict[str, Any], model: dict[str, Any], special: dict[str, int]
) -> WordPieceTokenizer:
    normalizer, pre = content.get("normalizer") or {}, content.get("pre_tokenizer") or {}
    if normalizer.get("type") != "BertNormalizer" or pre.get("type") != "BertPreTokenizer":
        raise InputError("its WordPiece has another normalizer or pre-tokenizer than BERT's")
    if not (normalizer.get("clean_text", True) and normalizer.get("handle_chinese_chars", True)):
        raise InputError("its normalizer leaves out a part of BERT's, which is not supported")
    for name, wanted in (
        ("unk_token", UNKNOWN),
        ("continuing_subword_prefix", INSIDE),
        ("max_input_chars_per_word", LONGEST),
    ):
        if model.get(name, wanted) != wanted:
            raise InputError(f"its WordPiece has {name} {model[name]!r}; {wanted!r} can be read")
    vocab: dict[str, int] = model["vocab"]
    pieces = sorted(vocab, key=lambda piece: vocab[piece])
    if [vocab[piece] for piece in pieces] != list(range(len(pieces))):
        raise InputError("its WordPiece ids do not run from 0 without gaps and duplicates")
    lowercase, strip = normalizer.get("lowercase", True), normalizer.get("strip_accents")
    return WordPieceTokenizer(pieces, special, lowercase, strip)


def _write_wordpiece(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": tokenizer.strip_accents,
            "lowercase": tokenizer.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": INSIDE, "cleanup": False},
        "model": {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": INSIDE,
            "max_input_chars_per_word": LONGEST,
            "vocab": {piece: number for number, piece in enumerate(tokenizer.pieces)},
        },
    }
