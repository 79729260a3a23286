"""SentencePiece's tokenizers: pieces of text in which a space is a character like any other.

A text is normalised, a space is put in front, and every space is written "▁" (U+2581), so that
pieces may hold spaces and joining them gives the text back. Two models choose the pieces:

    unigram   the most probable cut (unigram.py)
    bpe       characters merged as byte pairs are, the pieces with the highest scores first

A character that no piece has becomes its bytes, where the vocabulary has pieces for bytes
("<0x0A>"), else the piece for the unknown, one for a whole run.

Source: Kudo and Richardson (2018), "SentencePiece", arXiv:1808.06226.
"""

from __future__ import annotations

import base64
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minillm.errors import InputError
from minillm.tokenizer.base import Ids, Text, Tokenizer, number_special, to_text
from minillm.tokenizer.bpe_counting import Progress
from minillm.tokenizer.bpe_encoding import Machine, build_machine
from minillm.tokenizer.bpe_texts import encode_texts
from minillm.tokenizer.charsmap import CharsMap
from minillm.tokenizer.reading import blocks_of
from minillm.tokenizer.scanner import WHOLE
from minillm.tokenizer.unigram import PENALTY, best_cut, trie_of
from minillm.tokenizer.unigram_training import learn_pieces
from minillm.tokenizer.vocabulary import Tokens, merges_of_ranks

SPACE = "▁"
UNKNOWN = "<unk>"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WORD = re.compile(f"{SPACE}?[^{SPACE}]+|{SPACE}+")
_SPACES = re.compile(" {2,}")


@dataclass(frozen=True)
class Spaces:
    """What happens to a text before it is cut.

    prefix: a space is put in front of texts that are not empty; twice: even of those that start
    with one. collapse: runs of spaces become one, and those at both ends go. normal_form: a Unicode
    form that texts are brought to first, "" for none.
    """

    prefix: bool = True
    twice: bool = True
    collapse: bool = False
    normal_form: str = ""

    def mark(self, text: str) -> str:
        """`text` ready to be cut, with ▁ for spaces."""
        if self.normal_form:
            text = unicodedata.normalize(self.normal_form, text)
        if self.collapse:
            text = _SPACES.sub(" ", text).strip(" ")
        text = text.replace(" ", SPACE)
        if self.prefix and text and (self.twice or not text.startswith(SPACE)):
            text = SPACE + text
        return text


class SentencePieceTokenizer(Tokenizer):
    """Pieces with scores to ids.

    >>> pieces = ["<unk>", "▁", "▁a", "b", "c", "▁ab"]
    >>> scores = [0.0, -4.0, -2.0, -3.0, -3.0, -6.0]
    >>> tokenizer = SentencePieceTokenizer(pieces, scores, "unigram")
    >>> [pieces[token] for token in tokenizer.encode("abc b")]
    ['▁a', 'b', 'c', '▁', 'b']
    >>> tokenizer.decode(tokenizer.encode("abc b"))
    'abc b'
    """

    kind = "sentencepiece"

    def __init__(
        self,
        pieces: list[str],
        scores: Collection[float],
        model: str,
        special_tokens: dict[str, int] | None = None,
        unknown: int = 0,
        spaces: Spaces | None = None,
        charsmap: bytes = b"",
    ) -> None:
        """A tokenizer of a given vocabulary.

        Args:
            pieces: one for each id, ▁ for spaces, <0x00> to <0xFF> for bytes.
            scores: one for each id: log-probabilities, or for BPE whatever puts them in order.
            model: "unigram" or "bpe".
            special_tokens: spelling to id; pieces at these ids are in no text.
            unknown: the id of unknown characters.
            spaces: what happens to a text before it is cut.
            charsmap: SentencePiece's table of characters to replace (`charsmap.py`).
        """
        if model not in ("unigram", "bpe"):
            raise InputError(f"the model is 'unigram' or 'bpe', not {model!r}")
        if len(pieces) != len(scores):
            raise InputError(f"there are {len(pieces)} pieces, but {len(scores)} scores")
        if not 0 <= unknown < len(pieces):
            raise InputError(f"the unknown piece has id {unknown}; there are {len(pieces)} pieces")
        twice, count = Counter(pieces).most_common(1)[0]
        if count > 1:
            raise InputError(f"piece {twice!r} is in the vocabulary twice")
        self.pieces, self.model, self.unknown = list(pieces), model, unknown
        self.scores = np.array(scores, np.float64)
        self.special_tokens = dict(special_tokens or {})
        self.spaces = spaces or Spaces()
        self.charsmap = CharsMap(charsmap) if charsmap else None
        held = {*self.special_tokens.values(), unknown}
        self._bytes: dict[int, int] = {}  # byte to id
        self._text: dict[bytes, int] = {}  # pieces that may be found in a text
        for number, piece in enumerate(self.pieces):
            byte = _BYTE.fullmatch(piece)
            if byte:
                self._bytes[int(byte[1], 16)] = number
            elif number not in held and piece:
                self._text[piece.encode()] = number
        if self._bytes and len(self._bytes) < 256:
            raise InputError(f"the vocabulary has {len(self._bytes)} of the 256 pieces for bytes")
        if not self._text:
            raise InputError("the vocabulary has no pieces of text")

    @classmethod
    def train(
        cls,
        texts: Text | os.PathLike[str] | Iterable[Text | os.PathLike[str]],
        vocab_size: int,
        special_tokens: Collection[str] = (),
        *,
        normal_form: str = "NFKC",
        longest: int = 16,
        progress: Progress | None = None,
    ) -> SentencePieceTokenizer:
        """Learn a unigram vocabulary: see `unigram_training.py`.

        Args:
            texts: a text, a file (a `Path`), or any number of either.
            vocab_size: ids in all: `<unk>`, the pieces, and the special tokens at the end.
            special_tokens: spellings that get ids of their own.
            normal_form: the Unicode form that texts are brought to.
            longest: no piece has more characters.
            progress: called with (stage, done, total) after every round.
        """
        spaces = Spaces(prefix=True, twice=False, collapse=True, normal_form=normal_form)
        words: Counter[str] = Counter()
        for source in [texts] if isinstance(texts, str | bytes | os.PathLike) else texts:
            for block in blocks_of(source, "strict"):
                for line in to_text(block).splitlines():
                    words.update(_WORD.findall(spaces.mark(line)))
        if not words:
            raise InputError("the text is empty: there is nothing to learn a vocabulary from")
        room = vocab_size - 1 - len(special_tokens)
        found = learn_pieces(words, room, longest, progress)
        pieces, scores = [UNKNOWN, *found], [0.0, *found.values()]
        special = number_special(special_tokens, len(pieces))
        return cls(pieces, scores, "unigram", special, spaces=spaces)

    # ---------------------------------------------------------------- encoding

    @cached_property
    def _trie(self) -> tuple[np.ndarray, np.ndarray]:
        return trie_of(self._text)

    @cached_property
    def _machine(self) -> Machine:
        """The BPE model: tokens are the UTF-8 of pieces, symbols those of one character."""
        tokens: Tokens = [None] * len(self.pieces)
        for piece, number in self._text.items():
            tokens[number] = piece
        symbols = [number for piece, number in self._text.items() if len(piece.decode()) == 1]
        order = sorted(
            (number for number in self._text.values() if len(self.pieces[number]) > 1),
            key=lambda number: -self.scores[number],
        )
        merges = merges_of_ranks(tokens, self._text, symbols, order)
        made = np.array(
            [self._text[(tokens[a] or b"") + (tokens[b] or b"")] for a, b in merges.tolist()],
            np.int32,
        )
        single = np.array([self._bytes.get(byte, self.unknown) for byte in range(256)], np.int32)
        alone = np.array(sorted({*symbols, *single.tolist()}), np.int32)
        return build_machine(tokens, alone, merges, made, single, whole_words=False)

    def _encode(self, data: bytes) -> np.ndarray:
        text = to_text(data)
        if self.charsmap:
            text = self.charsmap.apply(text)
        marked = self.spaces.mark(text).encode()
        if not marked:
            return np.empty(0, np.int32)
        if self.model == "bpe":
            array = np.frombuffer(marked, np.uint8)
            ids, _, _ = encode_texts(self._machine, WHOLE, array, [len(marked)])
            return self._fused(ids)
        trie, piece_ids = self._trie
        known = self.scores[list(self._text.values())]
        cut = best_cut(trie, piece_ids, self.scores, float(known.min()) - PENALTY, marked)
        if not self._bytes:
            return self._fused(np.where(cut[:, 0] < 0, self.unknown, cut[:, 0]).astype(np.int32))
        ids, place = [], 0
        for piece, size in cut.tolist():
            part = marked[place : place + size]
            ids += [piece] if piece >= 0 else [self._bytes[byte] for byte in part]
            place += size
        return np.array(ids, np.int32)

    def _fused(self, ids: np.ndarray) -> np.ndarray:
        """`ids` with runs of the unknown piece as one."""
        unknown = ids == self.unknown
        again = np.concatenate([[False], unknown[1:] & unknown[:-1]])
        return ids[~again]

    # ---------------------------------------------------------------- decoding and files

    def token_bytes(self, token: int) -> bytes:
        for name, number in self.special_tokens.items():
            if number == token:
                return name.encode()
        if not 0 <= token < len(self.pieces):
            raise self._out_of_range(token)
        byte = _BYTE.fullmatch(self.pieces[token])
        if byte:
            return bytes([int(byte[1], 16)])
        return self.pieces[token].replace(SPACE, " ").encode()

    def _decode(self, ids: Ids) -> bytes:
        data = bytes(super()._decode(ids))
        return data.removeprefix(b" ") if self.spaces.prefix else data

    def _size(self) -> int:
        return len(self.pieces)

    def _to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "unknown": self.unknown,
            "spaces": asdict(self.spaces),
            "charsmap": base64.b64encode(self.charsmap.table).decode() if self.charsmap else "",
            "pieces": self.pieces,
            "scores": self.scores.tolist(),
        }

    @classmethod
    def _from_json(
        cls, content: dict[str, Any], special_tokens: dict[str, int]
    ) -> SentencePieceTokenizer:
        return cls(
            [str(piece) for piece in content["pieces"]],
            [float(score) for score in content["scores"]],
            content["model"],
            special_tokens,
            int(content["unknown"]),
            Spaces(**content["spaces"]),
            base64.b64decode(content["charsmap"]),
        )
