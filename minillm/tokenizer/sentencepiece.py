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
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minillm.errors import InputError
from minillm.tokenizer.base import Text, Tokenizer, number_special, to_text
from minillm.tokenizer.bpe_counting import Progress
from minillm.tokenizer.bpe_encoding import Machine, build_machine
from minillm.tokenizer.bpe_texts import encode_texts
from minillm.tokenizer.charsmap import CharsMap
from minillm.tokenizer.normalizing import compiled, in_form
from minillm.tokenizer.reading import lines_of
from minillm.tokenizer.scanner import WHOLE
from minillm.tokenizer.unigram import PENALTY, best_cut, trie_of
from minillm.tokenizer.unigram_training import learn_pieces
from minillm.tokenizer.vocabulary import Tokens, merges_of_ranks, merges_that_happen

SPACE = "▁"
UNKNOWN = "<unk>"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WORD = re.compile(f"{SPACE}?[^{SPACE}]+|{SPACE}+")
_SPACES = re.compile(" {2,}")
_CUT = re.compile(f"{SPACE}?[^{SPACE}]+|{SPACE}")  # every space begins a word


@dataclass(frozen=True)
class Spaces:
    """What happens to a text before it is cut.

    prefix: a space is put in front of texts that are not empty; twice: even of those that start
    with one; first: but not to what stands behind a special token. collapse: runs of spaces become
    one, and those at both ends go. normal_form: a Unicode form that texts are brought to first, ""
    for none. split: no piece reaches over a space; every word is cut by itself.
    """

    prefix: bool = True
    twice: bool = True
    collapse: bool = False
    normal_form: str = ""
    first: bool = False
    split: bool = False

    def mark(self, text: str) -> str:
        """`text` ready to be cut, with ▁ for spaces."""
        if self.normal_form:
            text = in_form(self.normal_form, text)
        if self.collapse:
            text = _SPACES.sub(" ", text).strip(" ")
        text = text.replace(" ", SPACE)
        if self.prefix and text and (self.twice or not text.startswith(SPACE)):
            text = SPACE + text
        # SentencePiece itself takes any ▁ at the end for a space.
        return text.rstrip(SPACE) if self.collapse and self.twice else text


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
        defined: Collection[str] = (),
        merges: Iterable[tuple[int, int]] | None = None,
        steps: Iterable[Mapping[str, Any]] = (),
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
            defined: pieces defined by hand: wherever a text has one, it is a token, and neither
                normalised nor merged.
            merges: for BPE, the pairs of ids that merge, in order; None: any two pieces that
                together are a piece, the one with the highest score first.
            steps: what is done to a text before all that (`normalizing.py`).
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
        self.front = b" " if self.spaces.prefix else b""
        self.defined = sorted(defined, key=lambda piece: (-len(piece), piece))
        self.merges = None if merges is None else [(int(a), int(b)) for a, b in merges]
        self.steps = [dict(step) for step in steps]
        self._prepare = compiled(self.steps)
        self._sort_pieces()
        self._check()

    def _sort_pieces(self) -> None:
        """Tell the pieces that stand for bytes from those that may be found in a text."""
        held = {*self.special_tokens.values(), self.unknown}
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

    def _check(self) -> None:
        """Raise `InputError` where merges or pieces defined by hand are not of the vocabulary."""
        for a, b in self.merges or ():
            both = [self.pieces[z] if 0 <= z < len(self.pieces) else "" for z in (a, b)]
            if not all(both) or "".join(both).encode() not in self._text:
                raise InputError(f"merge of ids {a} and {b} makes {''.join(both)!r}, no piece")
        known = set(self.pieces)
        for piece in self.defined:
            if not piece or piece not in known:
                raise InputError(f"{piece!r} is defined by hand, but not in the vocabulary")

    @classmethod
    def train(
        cls,
        texts: Text | os.PathLike[str] | Iterable[Text | os.PathLike[str]],
        vocab_size: int,
        special_tokens: Collection[str] = (),
        *,
        normal_form: str = "NFKC",
        longest: int = 16,
        errors: str = "strict",
        progress: Progress | None = None,
    ) -> SentencePieceTokenizer:
        """Learn a unigram vocabulary: see `unigram_training.py`.

        Args:
            texts: a text, a file (a `Path`), or any number of either.
            vocab_size: ids in all: `<unk>`, the pieces, and the special tokens at the end.
            special_tokens: spellings that get ids of their own.
            normal_form: the Unicode form that texts are brought to.
            longest: no piece has more characters.
            errors: for files that are not UTF-8: "strict" or "replace".
            progress: called with (stage, done, total) after every round.
        """
        spaces = Spaces(prefix=True, twice=False, collapse=True, normal_form=normal_form)
        words: Counter[str] = Counter()
        for source in [texts] if isinstance(texts, str | bytes | os.PathLike) else texts:
            for text in lines_of(source, errors):
                for line in text.splitlines():
                    words.update(_WORD.findall(spaces.mark(line)))
        if not words:
            raise InputError("the text is empty: there is nothing to learn a vocabulary from")
        room = vocab_size - 1 - len(special_tokens)
        found = learn_pieces(words, room, longest, progress)
        pieces, scores = [UNKNOWN, *found], [0.0, *found.values()]
        special = number_special(special_tokens, len(pieces))
        return cls(pieces, scores, "unigram", special, spaces=spaces)

    # ---------------------------------------------------------------- encoding

    @property
    def has_bytes(self) -> bool:
        """Whether there are pieces for bytes."""
        return bool(self._bytes)

    @cached_property
    def _trie(self) -> tuple[np.ndarray, np.ndarray]:
        return trie_of(self._text)

    @cached_property
    def _tokens(self) -> Tokens:
        """The UTF-8 of the pieces that a text may have."""
        tokens: Tokens = [None] * len(self.pieces)
        for piece, number in self._text.items():
            tokens[number] = piece
        return tokens

    @cached_property
    def _letters(self) -> list[int]:
        """Pieces of one character."""
        return [number for piece, number in self._text.items() if len(piece.decode()) == 1]

    @cached_property
    def all_merges(self) -> np.ndarray:
        """The pairs of ids that merge, in order, (M, 2) int32."""
        if self.merges is not None:
            made = [self._text[(self.pieces[a] + self.pieces[b]).encode()] for a, b in self.merges]
            ranks = [*range(len(made))]
            for number in range(1, len(made)):  # ways to make the same piece have the same rank
                if made[number] == made[number - 1]:
                    ranks[number] = ranks[number - 1]
            return merges_that_happen(self._tokens, self._letters, self.merges, made, ranks)
        longer = set(self._text.values()) - set(self._letters) - set(self._defined_ids.values())
        order = sorted(longer, key=lambda number: (-self.scores[number], number))
        return merges_of_ranks(self._tokens, self._text, self._letters, order)

    @cached_property
    def _machine(self) -> Machine:
        """The BPE model: tokens are the UTF-8 of pieces, symbols those of one character."""
        tokens, merges = self._tokens, self.all_merges
        made = np.array(
            [self._text[(tokens[a] or b"") + (tokens[b] or b"")] for a, b in merges.tolist()],
            np.int32,
        )
        single = np.array([self._bytes.get(byte, self.unknown) for byte in range(256)], np.int32)
        alone = np.array(sorted({*self._letters, *single.tolist()}), np.int32)
        return build_machine(tokens, alone, merges, made, single, whole_words=False)

    def _encode(self, data: bytes) -> np.ndarray:
        return self._encode_marked(self._mark(to_text(data), self.spaces))

    def _encode_later(self, data: bytes) -> np.ndarray:
        spaces = replace(self.spaces, prefix=False) if self.spaces.first else self.spaces
        return self._encode_marked(self._mark(to_text(data), spaces))

    def _encode_marked(self, marked: str) -> np.ndarray:
        """The ids of a text that is normalised."""
        cut = self._merge if self.model == "bpe" else self._cut
        words = _CUT.findall(marked) if self.spaces.split else [marked] if marked else []
        return np.concatenate([np.empty(0, np.int32), *map(cut, words)])

    def _mark(self, text: str, spaces: Spaces) -> str:
        """`text` normalised, with ▁ for spaces."""
        text = self._prepare(text)
        if self.charsmap:
            keep = set(self.defined)
            text = "".join(
                part if part in keep else self.charsmap.apply(part) for part in self._parts(text)
            )
        return spaces.mark(text)

    def _parts(self, text: str) -> list[str]:
        """`text` cut at the pieces defined by hand, which are parts of their own."""
        if not self.defined:
            return [text]
        return [part for part in self._defined.split(text) if part]

    @cached_property
    def _defined(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, self.defined)) + ")")

    def _merge(self, marked: str) -> np.ndarray:
        """The ids of a text under the BPE model."""
        ids = []
        for part in self._parts(marked):
            data = np.frombuffer(part.encode(), np.uint8)
            if part in self._defined_ids:
                ids.append(np.array([self._defined_ids[part]], np.int32))
            else:
                ids.append(encode_texts(self._machine, WHOLE, data, [len(data)])[0])
        return self._fused(np.concatenate(ids))

    @cached_property
    def _defined_ids(self) -> dict[str, int]:
        return {piece: self._text[piece.encode()] for piece in self.defined}

    def _cut(self, text: str) -> np.ndarray:
        """The ids of a text under the unigram model."""
        marked = text.encode()
        trie, piece_ids = self._trie
        cut = best_cut(trie, piece_ids, *self._odds, marked)
        if not self._bytes:
            return self._fused(np.where(cut[:, 0] < 0, self.unknown, cut[:, 0]).astype(np.int32))
        ids, place = [], 0
        for piece, size in cut.tolist():
            part = marked[place : place + size]
            ids += [piece] if piece >= 0 else [self._bytes[byte] for byte in part]
            place += size
        return np.array(ids, np.int32)

    @cached_property
    def _odds(self) -> tuple[np.ndarray, float]:
        """The scores that decide, and that of an unknown character.

        A piece defined by hand gets more than any other pieces of its bytes could have together.
        """
        known = list(self._text.values())
        scores = self.scores.copy()
        others = sorted(set(known) - set(self._defined_ids.values())) or known
        for piece, number in self._defined_ids.items():
            scores[number] = len(piece.encode()) * self.scores[others].max() - 0.1
        return scores, float(self.scores[others].min()) - PENALTY

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

    def _size(self) -> int:
        return len(self.pieces)

    def _to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "unknown": self.unknown,
            "spaces": asdict(self.spaces),
            "defined": self.defined,
            "merges": self.merges,
            "steps": self.steps,
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
            [str(piece) for piece in content.get("defined", ())],
            content.get("merges"),
            content.get("steps", ()),
        )
