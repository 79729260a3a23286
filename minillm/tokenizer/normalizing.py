r"""The steps that bring a text to one form before it is cut, as Hugging Face's files name them.

    NFC, NFD, NFKC, NFKD    a Unicode form
    Lowercase, StripAccents letters without case, without marks
    Nmt                     control characters go, other white space becomes a space
    Precompiled             SentencePiece's table of characters (charsmap.py)
    Replace                 a string or a regular expression by a string
    Prepend                 a string in front of texts that are not empty
    Strip                   white space at the ends goes

Source: https://github.com/huggingface/tokenizers, tokenizers/src/normalizers.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from minillm.errors import InputError
from minillm.tokenizer.charsmap import CharsMap

Step = Callable[[str], str]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
# What NMT drops, and what it turns into a space.
_GONE = [*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]
_SPACES = [
    0x09, 0x0A, 0x0C, 0x0D, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD,
]  # fmt: skip
_NMT = {**dict.fromkeys(_GONE), **dict.fromkeys(_SPACES, " ")}


def in_form(form: str, text: str) -> str:
    """`text` in the Unicode form of that name, one of `FORMS`."""
    return unicodedata.normalize(form, text)  # type: ignore[arg-type]


def steps_of(normalizer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a `normalizer` of a tokenizer.json, sequences inside sequences flattened."""
    if not normalizer:
        return []
    if normalizer["type"] == "Sequence":
        return [step for part in normalizer["normalizers"] for step in steps_of(part)]
    return [dict(normalizer)]


def compiled(steps: Iterable[Mapping[str, Any]]) -> Step:
    """All steps as one function. Raises `InputError` for one that is not known."""
    functions = [_step(step) for step in steps]

    def apply(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return apply


def _step(step: Mapping[str, Any]) -> Step:
    kind = step["type"]
    if kind in FORMS:
        return partial(in_form, kind)
    if kind == "Lowercase":  # letter by letter: a sigma at the end of a word is one as any other
        return lambda text: "".join(map(str.lower, text))
    if kind == "StripAccents":
        return lambda text: "".join(c for c in text if not unicodedata.category(c).startswith("M"))
    if kind == "Nmt":
        return lambda text: text.translate(_NMT)
    if kind == "Precompiled":
        table = CharsMap(base64.b64decode(step["precompiled_charsmap"]))
        return table.apply_to_graphemes
    if kind == "Prepend":
        return lambda text: step["prepend"] + text if text else text
    if kind == "Strip":
        left, right = step.get("strip_left", True), step.get("strip_right", True)
        return lambda text: _stripped(text, left, right)
    if kind == "Replace":
        return _replace(step["pattern"], step["content"])
    raise InputError(f"its normalizer has {kind}, which is not supported")


def _stripped(text: str, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _replace(pattern: Mapping[str, str], content: str) -> Step:
    if "String" in pattern:
        return lambda text: text.replace(pattern["String"], content)
    import regex  # takes 50 ms to load

    try:
        rule = regex.compile(pattern["Regex"])
    except regex.error as error:
        raise InputError(f"its normalizer replaces {pattern['Regex']!r}: {error}") from error
    return lambda text: rule.sub(lambda _: content, text)
