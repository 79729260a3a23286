"""Exact duplicates: documents whose texts are equal but for case and spacing, by a hash."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np


def exact_duplicates(texts: Iterable[str]) -> np.ndarray:
    """For every document the number of the first with the same text, (N,) int64.

    >>> exact_duplicates(["Hello, world.", "other", "hello,\\n  world. "]).tolist()
    [0, 1, 0]
    """
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest(text), i) for i, text in enumerate(texts)], np.int64)


def digest(text: str) -> bytes:
    """16 bytes that stand for `normalised(text)`; two texts share them by chance never."""
    text = normalised(text)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def normalised(text: str) -> str:
    """`text` in Unicode's form NFC and lower case, its runs of white space a single space each."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.lower().split())
