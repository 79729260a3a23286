"""SentencePiece's tokenizers in `tokenizer.json`: Unigram, and BPE over characters (Llama 2).

What SentencePiece does with spaces, such a file says in its normalizer ("▁" in front, "▁" for every
space) or in the pre-tokenizer Metaspace. Other steps of the normalizer are kept as they are.
"""

from __future__ import annotations

from typing import Any

from minillm.errors import InputError
from minillm.tokenizer.normalizing import FORMS, steps_of
from minillm.tokenizer.sentencepiece import SPACE, SentencePieceTokenizer, Spaces

_COLLAPSE = [  # spaces at the ends go, runs of them become one
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": r"(?<![\s\S]) +| +(?![\s\S])"}, "content": ""},
]
_PREPEND = {"type": "Prepend", "prepend": SPACE}
_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_KEEPING = (*FORMS, "Lowercase")
_BEFORE_MARK = {"type": "Replace", "pattern": {"Regex": rf"\s+(?={SPACE})"}, "content": ""}
_WHITE = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
Step = dict[str, Any]


def is_of_pieces(content: dict[str, Any]) -> bool:
    """Whether the BPE of a tokenizer.json is one over characters, with ▁ for spaces."""
    pre = content.get("pre_tokenizer") or {}
    marks = any(step.get("content") == SPACE for step in steps_of(content.get("normalizer")))
    return marks or pre.get("type") == "Metaspace"


def read_bpe(
    content: dict[str, Any], model: dict[str, Any], special: dict[str, int]
) -> SentencePieceTokenizer:
    """BPE over characters."""
    for feature in ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(feature):
            raise InputError(f"its BPE over characters has {feature}, which is not supported")
    vocab: dict[str, int] = model["vocab"]
    pieces = sorted(vocab, key=lambda piece: vocab[piece])
    if [vocab[piece] for piece in pieces] != list(range(len(pieces))):
        raise InputError("its ids do not run from 0 without gaps and duplicates")
    if model.get("unk_token") not in vocab:
        raise InputError("its BPE over characters has no token for the unknown")
    _check_bytes(model, vocab)
    if not (model.get("fuse_unk") or model.get("byte_fallback")):
        raise InputError("it keeps unknown characters apart (fuse_unk), which is not supported")
    merges = []
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        for part in (left, right):
            if part not in vocab:
                raise InputError(f"merge {rank} joins {part!r}, which is not in the vocabulary")
        merges.append((vocab[left], vocab[right]))
    steps, spaces = _spaces(content)
    return SentencePieceTokenizer(
        pieces, [0.0] * len(pieces), "bpe", special, vocab[model["unk_token"]], spaces,
        merges=merges, steps=steps,
    )  # fmt: skip


def read_unigram(
    content: dict[str, Any], model: dict[str, Any], special: dict[str, int]
) -> SentencePieceTokenizer:
    """The unigram model."""
    pieces = [piece for piece, _ in model["vocab"]]
    if model.get("unk_id") is None:
        raise InputError("its Unigram has no piece for the unknown")
    _check_bytes(model, pieces)
    steps, spaces = _spaces(content)
    scores = [float(score) for _, score in model["vocab"]]
    return SentencePieceTokenizer(
        pieces, scores, "unigram", special, model["unk_id"], spaces, steps=steps
    )


def _check_bytes(model: dict[str, Any], pieces: Any) -> None:
    if not model.get("byte_fallback") and "<0x00>" in pieces:
        raise InputError("it has pieces for bytes, and does not use them")


def _spaces(content: dict[str, Any]) -> tuple[list[Step], Spaces]:
    """What is done to a text: steps, and what happens to spaces after them."""
    steps, pre = steps_of(content.get("normalizer")), content.get("pre_tokenizer")
    if steps[-2:] == [_PREPEND, _MARK] and not pre:
        return steps[:-2], Spaces(prefix=True, twice=True)
    if steps[-1:] == [_MARK] and not pre:
        return steps[:-1], Spaces(prefix=False)
    parts = pre["pretokenizers"] if pre and pre["type"] == "Sequence" else [pre or {"type": "none"}]
    apart = parts[0]["type"] == "WhitespaceSplit"
    if apart:
        steps += [_BEFORE_MARK, _WHITE, _COLLAPSE[1]]
        parts = parts[1:]
    if len(parts) != 1 or parts[0]["type"] != "Metaspace" or parts[0]["replacement"] != SPACE:
        names = ", ".join(part["type"] for part in parts)
        raise InputError(f"its pre-tokenizer is {names}; Metaspace can be read")
    usual = "always" if parts[0].get("add_prefix_space", True) else "never"
    scheme = parts[0].get("prepend_scheme", usual)
    if apart and scheme != "always":
        raise InputError(f"it cuts at white space, with prepend_scheme {scheme}: not supported")
    for step in steps:  # a text that has lost its first character gets no space in front, there
        if scheme == "first" and not (step["type"] in _KEEPING or step.get("content")):
            raise InputError(
                f"its normalizer has {step['type']}, and its Metaspace looks at where texts begin "
                "(prepend_scheme is first): not supported"
            )
    return steps, Spaces(
        prefix=scheme != "never", twice=False, split=parts[0].get("split", True),
        first=scheme == "first",
    )  # fmt: skip


def write(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """The parts of a tokenizer.json."""
    spaces = tokenizer.spaces
    if tokenizer.charsmap or tokenizer.defined:
        raise InputError("SentencePiece's own normalisation cannot be written to tokenizer.json")
    steps = list(tokenizer.steps)
    steps += [{"type": spaces.normal_form}] if spaces.normal_form else []
    steps += _COLLAPSE if spaces.collapse else []
    metaspace: dict[str, Any] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "first" if spaces.first else "always" if spaces.prefix else "never",
        "split": spaces.split,
    }
    pre: dict[str, Any] | None = metaspace
    if spaces.prefix and spaces.twice:
        steps += [_PREPEND, _MARK]
        pre = None
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": pre,
        "decoder": _DECODER if tokenizer.has_bytes else metaspace,
        "model": _unigram(tokenizer) if tokenizer.model == "unigram" else _bpe(tokenizer),
    }


_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def _unigram(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    return {
        "type": "Unigram",
        "unk_id": tokenizer.unknown,
        "vocab": [
            [piece, score]
            for piece, score in zip(tokenizer.pieces, tokenizer.scores.tolist(), strict=True)
        ],
        "byte_fallback": tokenizer.has_bytes,
    }


def _bpe(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    pieces = tokenizer.pieces
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[tokenizer.unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": tokenizer.has_bytes,
        "ignore_merges": False,
        "vocab": {piece: number for number, piece in enumerate(pieces)},
        "merges": [[pieces[a], pieces[b]] for a, b in tokenizer.all_merges.tolist()],
    }
