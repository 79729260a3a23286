"""Token shards: a tokenized corpus on disk, read through memory maps.

    data/
      index.json         vocabulary size, element type, per split its shards and their lengths,
                         and whether the mark of a new text begins each document
      train-00000.bin    token ids, little-endian uint16, or uint32 for vocabularies above 65,536
      train-00000.documents  for each document its tokens, its collection, its weight
      validation-00000.bin

A corpus larger than memory trains as well as a small one: the system reads in the pages that a
batch touches and forgets them again. The index is written last, so a folder whose writer was
killed has no index and is not mistaken for a whole one.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from minillm import files
from minillm.errors import InputError

INDEX = "index.json"
SHARD_TOKENS = 2**27  # 256 MiB of uint16
# Of a document: its tokens, the number of its collection, and how often it is to be seen beside
# others of that collection. Shards of a text that was never parted into documents have none.
DOCUMENT = np.dtype([("tokens", "<u4"), ("collection", "<u2"), ("weight", "<f4")])


def write_tokens(
    folder: str | os.PathLike[str],
    split: str,
    arrays: np.ndarray | Iterable[np.ndarray],
    vocab_size: int,
    shard_tokens: int = SHARD_TOKENS,
) -> int:
    """Write one split of a corpus as shards and add it to the folder's index.

    Args:
        folder: made if it is missing; may hold other splits of the same vocabulary.
        split: "train", "validation", or any other file name.
        arrays: token ids, in one array or in pieces that come one at a time.
        vocab_size: every id must lie below it.
        shard_tokens: the most tokens in one file.

    Returns the number of tokens written. Raises `InputError` for an id out of range, and where the
    folder holds tokens of another vocabulary.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    if (folder / INDEX).exists():
        index = read_index(folder)
        if index["vocab_size"] != vocab_size:
            raise InputError(
                f"{folder} holds tokens of a vocabulary of {index['vocab_size']}, not {vocab_size}"
            )
        splits = index["splits"]
    shards: list[dict[str, Any]] = []
    pieces = [arrays] if isinstance(arrays, np.ndarray) else arrays
    checked = _checked(pieces, vocab_size, token_dtype(vocab_size))
    for tokens in _blocks(checked, shard_tokens):
        name = f"{split}-{len(shards):05d}.bin"
        with files.replacing(folder / name) as temporary:
            tokens.tofile(temporary)
        shards.append({"file": name, "tokens": len(tokens)})
    splits[split] = shards
    write_index(folder, vocab_size, splits)
    return sum(shard["tokens"] for shard in shards)


def write_shard(
    path: Path, documents: Iterable[np.ndarray], vocab_size: int, about: list[tuple]
) -> int:
    """Write the tokens of `documents` to one file, and `about` them (DOCUMENT) to one beside it.

    `about` may grow while the documents are made. Returns the number of tokens. A shard counts only
    when `write_index` names it.
    """
    count, dtype = 0, token_dtype(vocab_size)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for tokens in _checked(documents, vocab_size, dtype):
            file.write(tokens.tobytes())
            count += len(tokens)
    with files.replacing(path.with_suffix(".documents")) as temporary:
        np.array(about, DOCUMENT).tofile(temporary)
    return count


def write_index(
    folder: str | os.PathLike[str],
    vocab_size: int,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    **more: Any,
) -> None:
    """Write the index of a folder whose shards are there: per split, their files and tokens."""
    index = {
        "version": 1,
        "vocab_size": vocab_size,
        "dtype": token_dtype(vocab_size),
        "splits": splits,
        **more,
    }
    files.write_text(Path(folder) / INDEX, json.dumps(index, indent=2) + "\n")


def token_dtype(vocab_size: int) -> str:
    """The type of an id of a vocabulary."""
    return "<u2" if vocab_size <= 2**16 else "<u4"


def _checked(pieces: Iterable[np.ndarray], vocab_size: int, dtype: str) -> Iterator[np.ndarray]:
    for piece in pieces:
        piece = np.asarray(piece)
        if len(piece) and not 0 <= int(piece.min()) <= int(piece.max()) < vocab_size:
            wrong = piece[(piece < 0) | (piece >= vocab_size)][0]
            raise InputError(f"token id {wrong} is outside the vocabulary of {vocab_size}")
        yield piece.astype(dtype)


def _blocks(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same tokens in arrays of `size`; the last may be shorter."""
    waiting: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        while count + len(piece) >= size:
            yield np.concatenate([*waiting, piece[: size - count]])
            piece = piece[size - count :]
            waiting, count = [], 0
        waiting.append(piece)
        count += len(piece)
    if count:
        yield np.concatenate(waiting)


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The index of a folder of shards. Raises `InputError` where there is none."""
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        needed = {key: index[key] for key in ("vocab_size", "dtype", "splits")}
        return {"collections": [""], "mixture": {}, "marked": True} | index | needed
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no folder of token shards: it has no {INDEX}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); write the shards again") from error


class TokenDataset:
    """One split of a folder of shards: a long sequence of token ids. `len()` counts them."""

    def __init__(self, folder: str | os.PathLike[str], split: str) -> None:
        """Open the shards of `split`. Raises `InputError` where one is missing or cut off."""
        index = read_index(folder)
        if split not in index["splits"]:
            raise InputError(f"{folder} has no split {split!r}, only {', '.join(index['splits'])}")
        self.folder, self.split, self.vocab_size = Path(folder), split, index["vocab_size"]
        self.collections, self.mixture = index["collections"], index["mixture"]
        self.marked = index["marked"]  # whether documents begin with the mark of a new text
        self._about = [shard.get("documents") for shard in index["splits"][split]]
        dtype = np.dtype(index["dtype"])
        self._shards = []
        for shard in index["splits"][split]:
            path, wanted = self.folder / shard["file"], shard["tokens"] * dtype.itemsize
            found = path.stat().st_size if path.exists() else 0
            if found != wanted:
                raise InputError(f"{path} has {found} bytes, but its index says {wanted}")
            mapped = np.memmap(path, dtype=dtype, mode="r")
            self._shards.append(np.asarray(mapped))  # a plain view: slices of it cost less
        self._ends = list(accumulate(len(shard) for shard in self._shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def documents(self) -> np.ndarray:
        """What is known of each document, (N,) of `DOCUMENT`, in the order of their tokens.

        Raises `InputError` for shards that do not tell one document from the next.
        """
        if not all(self._about):
            raise InputError(
                f"the shards in {self.folder} do not say where documents begin, which packing"
                " needs; those that `minillm data build` makes do"
            )
        parts = [np.fromfile(self.folder / name, DOCUMENT) for name in self._about]
        found = np.concatenate([np.empty(0, DOCUMENT), *parts])
        if int(found["tokens"].sum(dtype=np.int64)) != len(self):
            raise InputError(f"{self.folder}: documents and tokens do not agree; build it again")
        return found

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens `start` to `stop` as an int32 array (stop - start,), across shards."""
        out = np.empty(max(0, min(stop, len(self)) - start), np.int32)
        first = bisect_right(self._ends, start)
        filled = 0
        while filled < len(out):
            shard = self._shards[first]
            offset = start + filled - (self._ends[first] - len(shard))
            part = shard[offset : offset + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled, first = filled + len(part), first + 1
        return out
