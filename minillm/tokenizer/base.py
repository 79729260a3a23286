"""What every tokenizer can do: text to ids and back, special tokens, saving.

A tokenizer is a table of pieces (bytes) and a rule that cuts a text into pieces. The kinds differ
in the rule alone, so each subclass brings four things: `_encode(data)` for text without special
tokens, `token_bytes(id)`, `_size()` and `_to_json()` / `_from_json()`. The rest is here.

Special tokens (`<|endoftext|>`, `<|user|>`, ...) are ids without bytes of their own. A text that
spells one is ordinary text unless the caller says otherwise, so that nobody can close a turn or end
a document by typing the right characters.
"""

from __future__ import annotations

import codecs
import json
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minillm import files
from minillm.errors import InputError

Text = str | bytes
Ids = Iterable[int] | np.ndarray
CHECKED = 1 << 16  # bytes looked at together when a file is checked


class Tokenizer(ABC):
    """Common part of all tokenizers. `special_tokens` maps the spelling of each to its id."""

    kind: ClassVar[str]  # its name in saved files
    special_tokens: dict[str, int]
    front = b""  # what decoding takes off the front of a text: it stands before words, between them

    # ------------------------------------------------------------------ what a kind brings

    @abstractmethod
    def _encode(self, data: bytes) -> np.ndarray:
        """Ids (int32) of `data`, in which nothing is a special token."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that `token` adds to a text (a special token: its spelling).

        Raises `InputError` for an id that is out of range.
        """

    @abstractmethod
    def _size(self) -> int:
        """One more than the highest id of an ordinary token."""

    @abstractmethod
    def _to_json(self) -> dict[str, Any]:
        """All that `_from_json` needs, as JSON values; special tokens are added by `save`."""

    @classmethod
    @abstractmethod
    def _from_json(cls, content: dict[str, Any], special_tokens: dict[str, int]) -> Tokenizer:
        """The tokenizer that `_to_json` described."""

    # ------------------------------------------------------------------ encoding

    def encode(self, text: Text, allowed_special: str | Collection[str] = "none") -> list[int]:
        """The ids of `text`.

        Args:
            text: a string, or bytes in UTF-8 (byte-level kinds take any bytes).
            allowed_special: which special tokens their spelling in `text` may become: "none" (the
                spelling is ordinary text), "all", a set of spellings, or "refuse" (an error where
                `text` spells one).

        Raises `InputError` for a lone surrogate, and where the kind has no token for a character.
        """
        return self._numbers[self.encode_array(text, allowed_special)].tolist()

    def encode_array(
        self, text: Text, allowed_special: str | Collection[str] = "none"
    ) -> np.ndarray:
        """`encode`, as an int32 array; the faster call for long texts."""
        data = to_bytes(text)
        allowed = self._allowed(data, allowed_special)
        if not allowed:
            return self._encode(data)
        parts = [
            np.array([allowed[piece]], np.int32) if special
            else self._encode_later(piece) if number
            else self._encode(piece)
            for number, (piece, special) in enumerate(split_special(data, allowed))
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _encode_later(self, data: bytes) -> np.ndarray:
        """`_encode` of what stands behind a special token."""
        return self._encode(data)

    def encode_batch(
        self, texts: Iterable[Text], allowed_special: str | Collection[str] = "none"
    ) -> list[np.ndarray]:
        """`encode_array` of every text, in order."""
        return [self.encode_array(text, allowed_special) for text in texts]

    def encode_lists(
        self, texts: Iterable[Text], allowed_special: str | Collection[str] = "none"
    ) -> list[list[int]]:
        """`encode` of every text, in order; `encode_batch` is faster and takes less memory."""
        return [self._numbers[ids].tolist() for ids in self.encode_batch(texts, allowed_special)]

    @cached_property
    def _numbers(self) -> np.ndarray:
        """Every id as a number of Python, for lists to share; new ones take thrice as long."""
        return np.array(range(self.vocab_size), object)

    def _allowed(self, data: bytes, wanted: str | Collection[str]) -> dict[bytes, int]:
        """The special tokens that may be recognised in `data`, spelled in bytes."""
        if isinstance(wanted, str):
            if wanted == "none":
                return {}
            if wanted not in ("all", "refuse"):
                raise InputError(
                    f"allowed_special is {wanted!r}; it takes 'none', 'all', 'refuse' or a set"
                )
            names: Collection[str] = self.special_tokens
        else:
            names = wanted
        for name in names:
            if name not in self.special_tokens:
                raise InputError(f"{name!r} is not a special token of this tokenizer")
            if wanted == "refuse" and name.encode() in data:
                raise InputError(
                    f"the text spells the special token {name!r}; pass allowed_special='none' "
                    "to read it as ordinary text, or 'all' to let it become the token"
                )
        if wanted == "refuse":
            return {}
        return {name.encode(): self.special_tokens[name] for name in names}

    # ------------------------------------------------------------------ decoding

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes that `ids` stand for. Raises `InputError` for an id that is out of range."""
        return bytes(self._decode(ids))

    def _decode(self, ids: Ids) -> bytes | memoryview:
        """`decode_bytes`, or the memory that holds them."""
        return b"".join(map(self.token_bytes, to_ids(ids).tolist())).removeprefix(self.front)

    def decode(self, ids: Ids, errors: str = "replace") -> str:
        """The text that `ids` stand for.

        Bytes that are not UTF-8 (the ids may cut a character in two) become U+FFFD, or raise
        `InputError` with `errors="strict"`.
        """
        try:
            return str(self._decode(ids), "utf-8", errors)
        except UnicodeDecodeError as error:
            raise InputError(f"these ids are not valid UTF-8: {error}") from error

    # ------------------------------------------------------------------ size, special tokens, files

    @property
    def vocab_size(self) -> int:
        """One more than the highest id, special tokens included: the rows an embedding needs."""
        return max([self._size(), *(token + 1 for token in self.special_tokens.values())])

    def special(self, name: str) -> int:
        """The id of special token `name`. Raises `InputError` where there is none."""
        if name not in self.special_tokens:
            known = ", ".join(self.special_tokens) or "none at all"
            raise InputError(f"this tokenizer has no special token {name!r}; it has {known}")
        return self.special_tokens[name]

    def _keep_special(
        self, special_tokens: Mapping[str, int] | None, tokens: Sequence[object]
    ) -> None:
        """Keep `special_tokens`, which have to fit with the ordinary `tokens`: `check_special`."""
        self.special_tokens = dict(special_tokens or {})
        check_special(self.special_tokens, tokens)

    @cached_property
    def _special_bytes(self) -> dict[int, bytes]:
        """The spelling of each special token, by id."""
        return {number: name.encode() for name, number in self.special_tokens.items()}

    def _out_of_range(self, token: int) -> InputError:
        return InputError(f"token id {token} is not in this vocabulary of {self.vocab_size}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to one JSON file; `minillm.tokenizer.load` reads it."""
        content = {
            "format": "minillm-tokenizer",
            "version": 1,
            "kind": self.kind,
            **self._to_json(),
            "special_tokens": self.special_tokens,
        }
        files.write_text(path, json.dumps(content, ensure_ascii=False, indent=None) + "\n")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size:,} tokens)"


# ---------------------------------------------------------------------- texts and ids


def to_bytes(text: Text) -> bytes:
    """`text` in UTF-8. Raises `InputError` for a lone surrogate, which no UTF-8 can hold."""
    if isinstance(text, str):
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the text has a lone surrogate U+{ord(text[error.start]):04X} at character "
                f"{error.start}, which is not valid Unicode; read the file with errors='replace', "
                "or pass its bytes"
            ) from error
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    raise InputError(f"a text is str or bytes, not {type(text).__name__}")


def to_text(data: bytes) -> str:
    """`data` as a string. Raises `InputError` where it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte {error.start} (0x{data[error.start]:02x}) is not valid UTF-8; decode the text "
            "with errors='replace', or use a byte-level tokenizer, which takes any bytes"
        ) from error


def read_bytes(path: str | os.PathLike[str], errors: str = "strict") -> bytes:
    """The content of a text file.

    Args:
        path: the file.
        errors: what to do with bytes that are not UTF-8: "strict" raises `InputError` with their
            place, "replace" puts U+FFFD, "bytes" keeps them (for byte-level tokenizers).
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return check_utf8(data, errors, path)


def check_utf8(data: bytes, errors: str, path: str | os.PathLike[str], offset: int = 0) -> bytes:
    """`data`, which stands at `offset` in the file `path`, as `read_bytes` would return it."""
    if errors == "bytes":
        return data
    if errors == "replace":
        return data.decode("utf-8", "replace").encode()
    if errors != "strict":
        raise InputError(f"errors is {errors!r}; it takes 'strict', 'replace' or 'bytes'")
    place, view = 0, memoryview(data)
    while place < len(data):  # a little at a time: as one string it could take five times the room
        part = view[place : place + CHECKED]
        try:
            place += codecs.utf_8_decode(part, "strict", place + CHECKED >= len(data))[1]
        except UnicodeDecodeError as error:
            place += error.start
            raise InputError(
                f"{path} is not UTF-8 text: byte 0x{data[place]:02x} at {offset + place:,}; "
                "choose errors 'replace' or 'bytes'"
            ) from error
    return data


def to_ids(ids: Ids) -> np.ndarray:
    """`ids` as an array of whole numbers of one dimension: uint32, int32 or int64."""
    if not isinstance(ids, np.ndarray):
        ids = ids if isinstance(ids, list | tuple) else list(ids)
        try:
            return np.frombuffer(array("I", ids), np.uint32)  # twice as fast as np.array
        except (TypeError, OverflowError):  # no whole numbers, or some out of range
            ids = np.array(ids, None if ids else np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InputError(f"ids are a list of whole numbers, not shape {ids.shape} of {ids.dtype}")
    return ids if ids.dtype in (np.int32, np.uint32) else ids.astype(np.int64, copy=False)


def split_special(data: bytes, special: Mapping[bytes, int]) -> Iterator[tuple[bytes, bool]]:
    """Cut `data` at the special tokens it spells: (piece, whether it is one), leftmost, longest."""
    import regex  # takes 50 ms to load, and most texts are encoded without

    longest_first = sorted(special, key=len, reverse=True)
    pattern = regex.compile(b"(" + b"|".join(map(regex.escape, longest_first)) + b")")
    for number, piece in enumerate(pattern.split(data)):
        if piece:
            yield piece, number % 2 == 1


def number_special(names: Collection[str], first: int) -> dict[str, int]:
    """Ids for special tokens, from `first` on. Raises `InputError` for doubles, empty names."""
    names = list(names)
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"a special token is a string that is not empty, not {name!r}")
        if names.count(name) > 1:
            raise InputError(f"special token {name!r} is given twice")
    return {name: first + number for number, name in enumerate(names)}


def check_special(special_tokens: Mapping[str, int], tokens: Sequence[object]) -> None:
    """Raises `InputError` where a special token has the id of another, or of an ordinary token.

    `tokens` are the ordinary ones, by id: None for ids that are free. One that is spelled as the
    special token is that token.
    """
    taken: dict[int, str] = {}
    for name, number in special_tokens.items():
        if number < 0:
            raise InputError(f"special token {name!r} has the negative id {number}")
        if number in taken:
            raise InputError(f"special tokens {taken[number]!r} and {name!r} share id {number}")
        if number < len(tokens) and tokens[number] not in (None, name):
            raise InputError(
                f"special token {name!r} has id {number}, which is the learned token "
                f"{tokens[number]!r}"
            )
        taken[number] = name
