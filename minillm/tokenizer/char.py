"""One id per character: the smallest tokenizer, for first experiments.

The vocabulary is the sorted list of characters of the training text. Sequences are long (one
position per character), but there is nothing to learn, and nothing is cut where a reader would
not cut it. A character that the training text did not have is an error, not a silent gap.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from minillm.errors import InputError
from minillm.tokenizer.base import Text, Tokenizer, number_special, to_bytes, to_text


class CharTokenizer(Tokenizer):
    """Characters to ids by a table.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.encode("hole")
    [1, 3, 2, 0]
    >>> tokenizer.decode([1, 0, 2, 2, 3])
    'hello'
    """

    kind = "char"

    def __init__(self, characters: str, special_tokens: dict[str, int] | None = None) -> None:
        if len(set(characters)) != len(characters):
            raise InputError("the characters of a vocabulary must differ from each other")
        self.characters = characters
        self._keep_special(special_tokens, characters)
        self._codes = _codes(characters)
        self._id_of = np.full(max(self._codes, default=0) + 1, -1, np.int32)  # by code point
        self._id_of[self._codes] = np.arange(len(characters))

    @classmethod
    def train(cls, text: Text, special_tokens: Collection[str] = ()) -> CharTokenizer:
        """A tokenizer of the characters of `text`, in the order of their code points."""
        characters = "".join(sorted(set(to_text(to_bytes(text)))))
        if not characters:
            raise InputError("the text is empty: there is no character to learn")
        return cls(characters, number_special(special_tokens, len(characters)))

    def _encode(self, data: bytes) -> np.ndarray:
        text = to_text(data)
        codes = _codes(text)
        ids = np.where(codes < len(self._id_of), self._id_of[codes % len(self._id_of)], -1)
        if (ids < 0).any():
            place = int(np.argmin(ids))
            raise InputError(
                f"character {text[place]!r} at {place} is not in this vocabulary of "
                f"{len(self.characters)} characters"
            )
        return ids.astype(np.int32)

    def token_bytes(self, token: int) -> bytes:
        if token in self._special_bytes:
            return self._special_bytes[token]
        if not 0 <= token < len(self.characters):
            raise self._out_of_range(token)
        return self.characters[token].encode()

    def _size(self) -> int:
        return len(self.characters)

    def _to_json(self) -> dict[str, Any]:
        return {"characters": self.characters}

    @classmethod
    def _from_json(cls, content: dict[str, Any], special_tokens: dict[str, int]) -> CharTokenizer:
        return cls(str(content["characters"]), special_tokens)


def _codes(text: str) -> np.ndarray:
    """The code points of `text`."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
