"""Byte-pair encoding (BPE): frequent neighbours become one token.

Training. Start with one token per byte, so that any text can be written. Count every pair of
neighbouring tokens, merge the most frequent pair into a new token everywhere, and repeat until the
vocabulary is full. `th` is among the first, `the` soon after, ` the` next.

Encoding. Cut the text into words (`patterns.py`), each word into bytes, and merge again in the
order that training found: always the pair that was learned first, leftmost first.

    l o w e r     rank 0 is (e, r)
    l o w er      rank 1 is (l, o)
    lo w er       rank 2 is (lo, w)
    low er        no pair of these is in the list: done

Decoding is joining the bytes of the tokens.

The three functions below are that and nothing else, in plain Python. They count the whole text
again for every merge and search the whole word again at every step, which is quadratic. The class
`BPETokenizer` gives the same results from `bpe_training.py`, where counts are corrected instead of
repeated, and `bpe_encoding.py`, which finds the final tokens without playing through the merges.

Ties in training are broken the same way everywhere: of equally frequent pairs the one with the
smaller left id, then the smaller right id.

Sources: Gage (1994), "A New Algorithm for Data Compression"; Sennrich et al. (2016),
arXiv:1508.07909; on bytes: Radford et al. (2019), "Language Models are Unsupervised Multitask
Learners".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minillm.errors import InputError
from minillm.tokenizer import patterns
from minillm.tokenizer.base import Ids, Text, Tokenizer, number_special, to_bytes, to_ids
from minillm.tokenizer.bpe_counting import Progress, count_words
from minillm.tokenizer.bpe_decoding import Spelling
from minillm.tokenizer.bpe_dropout import encode_with_dropout
from minillm.tokenizer.bpe_encoding import LENGTH, Machine, build_machine
from minillm.tokenizer.bpe_texts import encode_texts
from minillm.tokenizer.bpe_training import lay_out, learn
from minillm.tokenizer.chat import SPECIAL_TOKENS
from minillm.tokenizer.normalizing import in_form
from minillm.tokenizer.printable import from_printable, to_printable
from minillm.tokenizer.scanner import RULES
from minillm.tokenizer.vocabulary import ids_by_bytes, ids_of_merges

Pair = tuple[int, int]


# ------------------------------------------------------------------ the algorithm, plainly


def learn_merges_plainly(
    words: Mapping[bytes, int], n_merges: int, min_frequency: int = 2
) -> list[Pair]:
    """The merges that training finds in `words` (each with its number of occurrences).

    Merge i joins two ids into id 256 + i. Fewer than `n_merges` come back where no pair occurs
    `min_frequency` times any more.

    >>> learn_merges_plainly({b"low": 5, b"lower": 2, b"newer": 3}, 3)
    [(108, 111), (256, 119), (101, 114)]
    """
    tokens = {word: list(word) for word in words}
    merges: list[Pair] = []
    while len(merges) < n_merges:
        counts: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in pairwise(tokens[word]):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < min_frequency:
            break
        tokens = {word: replace(ids, best, 256 + len(merges)) for word, ids in tokens.items()}
        merges.append(best)
    return merges


def replace(ids: list[int], pair: Pair, new: int) -> list[int]:
    """`ids` with every occurrence of `pair`, from the left, replaced by `new`.

    >>> replace([1, 1, 1, 2], (1, 1), 7)
    [7, 1, 2]
    """
    result: list[int] = []
    for token in ids:
        if result and (result[-1], token) == pair:
            result[-1] = new
        else:
            result.append(token)
    return result


def merge_plainly(ids: list[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """The tokens of one word that starts as `ids`.

    Args:
        ids: one id per byte.
        ranks: for each pair that merges, its rank and the id it becomes.
    """
    ids = list(ids)
    never = (len(ranks), -1)
    while len(ids) > 1:
        places = range(len(ids) - 1)
        best = min(places, key=lambda place: ranks.get((ids[place], ids[place + 1]), never)[0])
        pair = (ids[best], ids[best + 1])
        if pair not in ranks:
            break
        ids[best : best + 2] = [ranks[pair][1]]
    return ids


# ------------------------------------------------------------------ the tokenizer


class BPETokenizer(Tokenizer):
    """Byte-level BPE: any bytes go in, and come out again.

    >>> tokenizer = BPETokenizer.train("low low lower lowest newest " * 9, 262, ())
    >>> [tokenizer.token_bytes(token) for token in tokenizer.encode("lowest of all")]
    [b'low', b'est', b' ', b'o', b'f', b' ', b'a', b'l', b'l']
    """

    kind = "bpe"

    def __init__(
        self,
        tokens: Sequence[bytes | None],
        merges: Iterable[Pair],
        special_tokens: dict[str, int] | None = None,
        pattern: str = "gpt4",
        whole_words: bool = False,
        normal_form: str = "",
    ) -> None:
        """A tokenizer of a given vocabulary.

        Args:
            tokens: the bytes of each id; None for ids that are not in use or special.
            merges: pairs of ids in the order in which they merge; the joined bytes must be a token.
            special_tokens: spelling to id.
            pattern: a name of `patterns.PATTERNS` or a regular expression.
            whole_words: a word that is itself a token is never cut, even where no merges make it
                (tiktoken does so, and Hugging Face with `ignore_merges`).
            normal_form: "NFC", "NFD", "NFKC" or "NFKD": the Unicode form that texts are brought to
                first (Qwen: NFC); "" to leave them alone.

        Raises `InputError` where these contradict each other.
        """
        patterns.compiled(pattern)
        self.tokens = list(tokens)
        self.merges: np.ndarray = np.asarray(list(merges), np.int32).reshape(-1, 2)
        self.special_tokens = dict(special_tokens or {})
        self.pattern = patterns.name_of(pattern)
        self.whole_words = whole_words
        self.normal_form = normal_form
        if normal_form not in ("", "NFC", "NFD", "NFKC", "NFKD"):
            raise InputError(f"unknown Unicode form {normal_form!r}; it is NFC, NFD, NFKC or NFKD")
        self._id_of = ids_by_bytes(self.tokens, self.special_tokens)
        self._symbols = [number for token, number in self._id_of.items() if len(token) == 1]
        self.merged_ids = ids_of_merges(self.tokens, self._id_of, self.merges, self._symbols)

    @classmethod
    def of_bytes(cls, special_tokens: Collection[str] = (), pattern: str = "gpt4") -> BPETokenizer:
        """The tokenizer without merges: one id per byte."""
        return cls.from_merges((), special_tokens, pattern)

    @classmethod
    def from_merges(
        cls, merges: Iterable[Pair], special_tokens: Collection[str] = (), pattern: str = "gpt4"
    ) -> BPETokenizer:
        """A tokenizer of bytes 0 to 255 and, from 256 on, what `merges` make; then the specials."""
        tokens = [bytes([byte]) for byte in range(256)]
        pairs = [(int(a), int(b)) for a, b in merges]
        for a, b in pairs:
            tokens.append(tokens[a] + tokens[b])
        return cls(tokens, pairs, number_special(special_tokens, len(tokens)), pattern)

    @classmethod
    def train(
        cls,
        texts: Text | os.PathLike[str] | Iterable[Text | os.PathLike[str]],
        vocab_size: int,
        special_tokens: Collection[str] = SPECIAL_TOKENS,
        pattern: str = "gpt4",
        *,
        min_frequency: int = 2,
        max_token_length: int = 0,
        errors: str = "strict",
        progress: Progress | None = None,
    ) -> BPETokenizer:
        """Learn a vocabulary from texts.

        Args:
            texts: a text (str or bytes), a file (a `Path`), or any number of either.
            vocab_size: ids in all: 256 bytes, the merges, and the special tokens at the end. Fewer
                come out where the text has no more pairs to merge.
            special_tokens: spellings that get ids of their own.
            pattern: how texts are cut into words: a name of `patterns.PATTERNS` or a regular
                expression.
            min_frequency: pairs seen less often are not merged.
            max_token_length: no token gets longer than so many bytes; 0 for no limit.
            errors: for files that are not UTF-8: "strict", "replace" or "bytes" (keep the bytes).
            progress: called with (stage, done, total) a few times a second.

        Raises `InputError` for a vocabulary too small for the bytes and the special tokens, for an
        empty text, and for a file that cannot be read.
        """
        special = number_special(special_tokens, 0)
        least = 256 + len(special)
        if vocab_size < least:
            raise InputError(
                f"a vocabulary of {vocab_size} is too small: it takes at least {least}, for 256 "
                f"bytes and {len(special)} special tokens"
            )
        sources = [texts] if isinstance(texts, str | bytes | os.PathLike) else texts
        laid_out = lay_out(count_words(sources, pattern, errors, progress))
        if not len(laid_out[1]):
            raise InputError("the text is empty: there is nothing to learn a vocabulary from")
        merges = learn(laid_out, vocab_size - least, min_frequency, max_token_length, progress)
        return cls.from_merges(merges.tolist(), special_tokens, pattern)

    # ---------------------------------------------------------------- encoding and decoding

    @cached_property
    def _machine(self) -> Machine:
        """The vocabulary as the compiled loops want it."""
        # A byte that has no token becomes an id of its own, one past the last, and then an error.
        single = np.full(256, len(self.tokens), np.int32)
        for number in self._symbols:
            single[(self.tokens[number] or b"")[0]] = number
        symbols = np.array([*self._symbols, len(self.tokens)], np.int32)
        return build_machine(
            [*self.tokens, None], symbols, self.merges, self.merged_ids, single, self.whole_words
        )

    def _encode(self, data: bytes) -> np.ndarray:
        data = self._normal(data)
        return self._encode_joined(data, [len(data)])[0]

    def _normal(self, data: bytes) -> bytes:
        """`data` in the Unicode form of this vocabulary; bytes that are not UTF-8 stay."""
        if not self.normal_form or data.isascii():
            return data
        text = in_form(self.normal_form, data.decode("utf-8", "surrogateescape"))
        return text.encode("utf-8", "surrogateescape")

    def encode_batch(
        self, texts: Iterable[Text], allowed_special: str | Collection[str] = "none"
    ) -> list[np.ndarray]:
        """`encode_array` of every text, in order, many at a time and on all threads."""
        pieces = [to_bytes(text) for text in texts]
        if any(self._allowed(data, allowed_special) for data in pieces[:1]):
            return [self.encode_array(data, allowed_special) for data in pieces]
        for data in pieces:
            self._allowed(data, allowed_special)
        pieces = [self._normal(data) for data in pieces]
        return self._encode_joined(b"".join(pieces), list(accumulate(map(len, pieces))))

    def _encode_joined(self, data: bytes, ends: Sequence[int]) -> list[np.ndarray]:
        """The ids of texts that lie in `data` end to end."""
        machine, text = self._machine, np.frombuffer(data, np.uint8)
        rules, words = self._words(ends, data)
        ids, places, counts = encode_texts(machine, rules, text, words)
        self._refuse_unknown(ids, data)
        if len(ends) == 1:
            return [ids]
        totals = np.concatenate([[0], np.cumsum(counts)])
        borders = totals[np.searchsorted(places, ends, "right")].tolist()
        return [ids[a:b] for a, b in pairwise([0, *borders])]

    def _words(self, ends: Sequence[int], data: bytes) -> tuple[int, Sequence[int]]:
        """The rules for the scanner, and where it is to take a text to end."""
        rules = RULES.get(self.pattern)
        if rules is not None:
            return rules, ends
        # A pattern of one's own: `regex` cuts, and each word counts as a text.
        return RULES["whole"], patterns.word_ends(data, ends, self.pattern)

    def _refuse_unknown(self, ids: np.ndarray, data: bytes) -> None:
        if len(ids) and ids.max() == len(self.tokens):
            where = int(self._machine.tokens[ids[: np.argmax(ids)], LENGTH].sum())
            raise InputError(f"byte 0x{data[where]:02x} has no token in this vocabulary")

    def encode_with_offsets(self, text: Text) -> tuple[np.ndarray, np.ndarray]:
        """The ids of `text`, and where each token stands in it.

        Returns ids (N,) int32 and spans (N, 2) int64, begin and end: in characters where `text` is
        a string (a token that has part of a character spans all of it), else in bytes.
        """
        if self.normal_form:
            raise InputError(
                f"no offsets: this vocabulary brings texts to {self.normal_form} first"
            )
        data = to_bytes(text)
        ids = self._encode(data)
        ends = np.cumsum(self._machine.tokens[ids, LENGTH], dtype=np.int64)
        begins = np.concatenate([[0], ends])[:-1].astype(np.int64)
        if isinstance(text, str):  # characters begin at bytes that continue none
            starts = np.frombuffer(data, np.uint8) & 0xC0 != 0x80
            before = np.concatenate([[0], np.cumsum(starts)])
            inside = np.append(~starts, False)
            begins, ends = before[begins] - inside[begins], before[ends]
        return ids, np.stack([begins, ends], axis=1)

    def encode_with_dropout(
        self, text: Text, dropout: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Ids (int32) of `text`, cut in a random way: see `bpe_dropout.py`.

        `dropout` is the probability with which a merge is left out, 0 to 1.
        """
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout is a probability from 0 to 1, not {dropout}")
        if dropout == 0:
            return self.encode_array(text)
        data = self._normal(to_bytes(text))
        rules, ends = self._words([len(data)], data)
        ids = encode_with_dropout(
            self._machine, self.merged_ids, rules, np.frombuffer(data, np.uint8),
            np.asarray(ends, np.int64), dropout, rng,
        )  # fmt: skip
        self._refuse_unknown(ids, data)
        return ids

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling(self.tokens, self._special_bytes)

    def _decode(self, ids: Ids) -> memoryview:
        result = self._spelling.join(to_ids(ids))
        if isinstance(result, int):
            raise self._out_of_range(result)
        return result.data

    def token_bytes(self, token: int) -> bytes:
        return self.decode_bytes([token])

    def _size(self) -> int:
        return len(self.tokens)

    # ---------------------------------------------------------------- files

    def _to_json(self) -> dict[str, Any]:
        return {
            "pattern": self.pattern,
            "whole_words": self.whole_words,
            "normal_form": self.normal_form,
            "tokens": [None if token is None else to_printable(token) for token in self.tokens],
            "merges": self.merges.tolist(),
        }

    @classmethod
    def _from_json(cls, content: dict[str, Any], special_tokens: dict[str, int]) -> BPETokenizer:
        tokens = [None if token is None else from_printable(token) for token in content["tokens"]]
        merges = [(int(a), int(b)) for a, b in content["merges"]]
        pattern, whole = str(content["pattern"]), bool(content["whole_words"])
        return cls(tokens, merges, special_tokens, pattern, whole, str(content["normal_form"]))
