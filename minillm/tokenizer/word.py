"""One id per word, space or punctuation mark, and `<unk>` for what was never seen.

A text is cut into runs of letters and digits, runs of white space, and single other characters, so
that the pieces joined are the text again. The vocabulary holds the most frequent pieces. Word
vocabularies are large and still meet unknown words every day: that is what byte pairs solve.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np

from minillm.errors import InputError
from minillm.tokenizer.base import Text, Tokenizer, number_special, to_bytes, to_text

UNKNOWN = "<unk>"
_PIECE = re.compile(r"\w+|\s+|[^\w\s]")


class WordTokenizer(Tokenizer):
    """Words to ids by a table; id 0 is `<unk>`.

    >>> tokenizer = WordTokenizer.train("to be or not to be")
    >>> tokenizer.words
    ['<unk>', ' ', 'be', 'to', 'not', 'or']
    >>> tokenizer.decode(tokenizer.encode("to see or be"))
    'to <unk> or be'
    """

    kind = "word"

    def __init__(self, words: list[str], special_tokens: dict[str, int] | None = None) -> None:
        if not words or words[0] != UNKNOWN:
            raise InputError(f"the first word of a vocabulary is {UNKNOWN!r}")
        self.words = words
        self._keep_special(special_tokens, words)
        self._id_of = {word: number for number, word in enumerate(words)}
        if len(self._id_of) != len(words):
            twice = next(word for word, count in Counter(words).items() if count > 1)
            raise InputError(f"word {twice!r} is in the vocabulary twice")

    @classmethod
    def train(
        cls,
        text: Text,
        vocab_size: int | None = None,
        special_tokens: Collection[str] = (),
        min_frequency: int = 1,
    ) -> WordTokenizer:
        """A tokenizer of the pieces of `text`.

        Args:
            text: what to learn from.
            vocab_size: at most so many ids, `<unk>` and special tokens included; None for all.
            special_tokens: spellings that get ids of their own, after the words.
            min_frequency: leave out pieces seen less often.

        The most frequent come first; those seen equally often in the order of their code points.
        """
        counts = Counter(_PIECE.findall(to_text(to_bytes(text))))
        if not counts:
            raise InputError("the text is empty: there is no word to learn")
        room = len(counts) if vocab_size is None else vocab_size - 1 - len(special_tokens)
        if room < 1:
            raise InputError(
                f"a vocabulary of {vocab_size} has no room for words beside {UNKNOWN} and "
                f"{len(special_tokens)} special tokens"
            )
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        words = [word for word, count in ranked[:room] if count >= min_frequency]
        return cls([UNKNOWN, *words], number_special(special_tokens, 1 + len(words)))

    def _encode(self, data: bytes) -> np.ndarray:
        pieces = _PIECE.findall(to_text(data))
        return np.fromiter((self._id_of.get(piece, 0) for piece in pieces), np.int32, len(pieces))

    def token_bytes(self, token: int) -> bytes:
        if token in self._special_bytes:
            return self._special_bytes[token]
        if not 0 <= token < len(self.words):
            raise self._out_of_range(token)
        return self.words[token].encode()

    def _size(self) -> int:
        return len(self.words)

    def _to_json(self) -> dict[str, Any]:
        return {"words": self.words}

    @classmethod
    def _from_json(cls, content: dict[str, Any], special_tokens: dict[str, int]) -> WordTokenizer:
        return cls([str(word) for word in content["words"]], special_tokens)
