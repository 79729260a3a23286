"""WordPiece, BERT's tokenizer: words, and pieces of words that carry "##" inside a word.

    unaffable  ->  un ##aff ##able

Encoding takes the longest piece that the word starts with, then the longest that the rest starts
with, and so on; a word that cannot be covered is `[UNK]` as a whole. There is no merge order, only
the set of pieces.

Before that the text is normalised as BERT does it: control characters go, white space becomes a
space, Chinese characters stand alone, accents and case go (where the vocabulary is uncased), and
words end at white space and punctuation. So decoding gives a readable text, not the same text.

Training merges the most frequent pairs of pieces, as for byte pairs, with letters inside a word
("##a") apart from letters at its start ("a").

Sources: Schuster and Nakajima (2012), "Japanese and Korean voice search"; Devlin et al. (2018),
arXiv:1810.04805; https://github.com/google-research/bert, tokenization.py.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any

import numpy as np

from minillm.errors import InputError
from minillm.tokenizer.base import Tokenizer, to_text
from minillm.tokenizer.bpe_training import lay_out, learn
from minillm.tokenizer.reading import Source, lines_of

INSIDE = "##"
UNKNOWN = "[UNK]"
SPECIAL_TOKENS = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
LONGEST = 100  # characters; a longer word is unknown

_CONTROL = r"[\p{Cc}\p{Cf}\p{Co}\ufffd--[\t\n\r]]"
_CHINESE = (
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
    "\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
)
_WORD = r"[\p{P}$+<=>^`|~]|[^\s\p{P}$+<=>^`|~]+"


class WordPieceTokenizer(Tokenizer):
    """Pieces of words to ids.

    >>> pieces = ["[UNK]", "un", "##aff", "##able", "!"]
    >>> tokenizer = WordPieceTokenizer(pieces, {"[UNK]": 0})
    >>> tokenizer.encode("Unaffable! Unkind!")
    [1, 2, 3, 4, 0, 4]
    >>> tokenizer.decode([1, 2, 3, 4])
    'unaffable !'
    """

    kind = "wordpiece"
    front = b" "

    def __init__(
        self,
        pieces: list[str],
        special_tokens: dict[str, int] | None = None,
        lowercase: bool = True,
        strip_accents: bool | None = None,
    ) -> None:
        """A tokenizer of a given vocabulary.

        Args:
            pieces: one for each id, "##" in front of those inside words; `[UNK]` is among them.
            special_tokens: spelling to id, the ids among those of `pieces`.
            lowercase: whether texts are brought to lower case.
            strip_accents: whether accents are removed; None: where `lowercase` is set.
        """
        self.pieces = list(pieces)
        self.lowercase = lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        self._id_of = {piece: number for number, piece in enumerate(self.pieces)}
        if len(self._id_of) < len(self.pieces):
            twice, _ = Counter(self.pieces).most_common(1)[0]
            raise InputError(f"piece {twice!r} is in the vocabulary twice")
        if UNKNOWN not in self._id_of:
            raise InputError(f"a WordPiece vocabulary needs the piece {UNKNOWN}")
        self._keep_special(special_tokens, self.pieces)
        for name, number in self.special_tokens.items():
            if self._id_of.get(name, number) != number:
                raise InputError(f"special token {name!r} has id {number}, the piece another")
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls,
        texts: Source | Iterable[Source],
        vocab_size: int,
        special_tokens: Collection[str] = SPECIAL_TOKENS,
        *,
        errors: str = "strict",
        lowercase: bool = True,
        min_frequency: int = 2,
        alphabet: int = 1000,
    ) -> WordPieceTokenizer:
        """Learn a vocabulary: special tokens, single characters, then merged pieces.

        Args:
            texts: a text, a file (a `Path`), or any number of either.
            vocab_size: ids in all; fewer come out where there are no more pairs to merge.
            special_tokens: ids from 0 on; `[UNK]` has to be one of them.
            errors: for files that are not UTF-8: "strict" or "replace".
            lowercase: see the class; accents go with the case.
            min_frequency: pairs seen less often are not merged.
            alphabet: keep the most frequent characters, at most so many; words with others are
                left out, and will be unknown.
        """
        if UNKNOWN not in special_tokens:
            raise InputError(f"a WordPiece vocabulary needs the special token {UNKNOWN}")
        special = {name: number for number, name in enumerate(special_tokens)}
        blank = cls(list(special_tokens), special, lowercase)
        words: Counter[str] = Counter()
        for source in [texts] if isinstance(texts, str | bytes | os.PathLike) else texts:
            for line in lines_of(source, errors):
                words.update(blank.words(line))
        if not words:
            raise InputError("the text is empty: there is nothing to learn a vocabulary from")
        letters: Counter[str] = Counter()
        for word, count in words.items():
            for letter in word:
                letters[letter] += count
        kept = {letter for letter, _ in sorted(letters.items(), key=_most_frequent)[:alphabet]}
        words = Counter({word: n for word, n in words.items() if kept.issuperset(word)})
        symbols = sorted({*(word[0] for word in words)})
        symbols += sorted({INSIDE + letter for word in words for letter in word[1:]})
        room = vocab_size - len(special) - len(symbols)
        if room < 0:
            raise InputError(
                f"a vocabulary of {vocab_size} is too small: it takes at least "
                f"{len(special) + len(symbols)}, for {len(special)} special tokens and "
                f"{len(symbols)} characters; or lower `alphabet`, now {alphabet}"
            )
        pieces = [*special_tokens, *symbols]
        for a, b in _learn(words, symbols, room, min_frequency).tolist():
            first = len(special)
            pieces.append(pieces[first + a] + pieces[first + b].removeprefix(INSIDE))
        return cls(list(dict.fromkeys(pieces)), special, lowercase)

    # ---------------------------------------------------------------- encoding and decoding

    @cached_property
    def _patterns(self) -> tuple[Any, Any, Any]:
        import regex  # takes 50 ms to load

        return (
            regex.compile(_CONTROL, regex.V1), regex.compile(_CHINESE), regex.compile(_WORD)
        )  # fmt: skip

    def words(self, text: str) -> list[str]:
        """The words of `text`, normalised."""
        control, chinese, word = self._patterns
        text = chinese.sub(r" \g<0> ", control.sub("", text))
        if self.strip_accents:
            text = unicodedata.normalize("NFD", text)
            if not text.isascii():
                text = "".join(c for c in text if unicodedata.category(c) != "Mn")
        if self.lowercase:  # letter by letter: a sigma at the end of a word is one as any other
            text = text.lower() if "Σ" not in text else "".join(map(str.lower, text))
        return word.findall(text)

    def _encode(self, data: bytes) -> np.ndarray:
        ids: list[int] = []
        for word in self.words(to_text(data)):
            known = self._cache.get(word)
            if known is None:
                known = self._cache[word] = self._cut(word)
            ids += known
        return np.array(ids, np.int32)

    def _cut(self, word: str) -> list[int]:
        """The pieces of one word, the longest first; `[UNK]` where they do not cover it."""
        if len(word) > LONGEST:
            return [self._id_of[UNKNOWN]]
        ids: list[int] = []
        begin = 0
        while begin < len(word):
            front = INSIDE if begin else ""
            for end in range(len(word), begin, -1):
                piece = self._id_of.get(front + word[begin:end])
                if piece is not None:
                    ids.append(piece)
                    begin = end
                    break
            else:
                return [self._id_of[UNKNOWN]]
        return ids

    def token_bytes(self, token: int) -> bytes:
        if 0 <= token < len(self.pieces):
            piece = self.pieces[token]
            inside = piece.startswith(INSIDE) and len(piece) > len(INSIDE)
            return piece.removeprefix(INSIDE).encode() if inside else f" {piece}".encode()
        for name, number in self.special_tokens.items():
            if number == token:
                return f" {name}".encode()
        raise self._out_of_range(token)

    def _size(self) -> int:
        return len(self.pieces)

    # ---------------------------------------------------------------- files

    def _to_json(self) -> dict[str, Any]:
        return {
            "pieces": self.pieces,
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
        }

    @classmethod
    def _from_json(
        cls, content: dict[str, Any], special_tokens: dict[str, int]
    ) -> WordPieceTokenizer:
        pieces = [str(piece) for piece in content["pieces"]]
        return cls(
            pieces, special_tokens, bool(content["lowercase"]), bool(content["strip_accents"])
        )


def _most_frequent(item: tuple[str, int]) -> tuple[int, str]:
    """Sorts counts: the most frequent first, equally frequent ones by code point."""
    return -item[1], item[0]


def _learn(
    words: Counter[str], symbols: list[str], n_merges: int, min_frequency: int
) -> np.ndarray:
    """The merges of pieces, as `bpe_training` learns them; ids count from the first symbol."""
    number = {symbol: index for index, symbol in enumerate(symbols)}
    spelled = [
        number[letter if place == 0 else INSIDE + letter]
        for word in words
        for place, letter in enumerate(word)
    ]
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    counts = np.fromiter(words.values(), np.int64, len(words))
    data = np.array(spelled, np.int32)
    laid_out = lay_out((data, lengths, counts))
    return learn(laid_out, n_merges, min_frequency, n_symbols=len(symbols))
