"""Token shards: a tokenized corpus on disk, read through memory maps.

    data/
      index.json         vocabulary size, element type, and per split its shards and their lengths
      train-00000.bin    token ids, little-endian uint16, or uint32 for vocabularies above 65,536
      validation-00000.bin

A corpus larger than memory trains as well as a small one: the system reads in the pages that a
batch touches and forgets them again. The index is written last, so a folder whose writer was
killed has no index and is not mistaken for a whole one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minillm import files
from minillm.errors import InputError

INDEX = "index.json"
SHARD_TOKENS = 2**27  # 256 MiB of uint16


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
    dtype = "<u2" if vocab_size <= 2**16 else "<u4"
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
    for tokens in _blocks(_checked(pieces, vocab_size, dtype), shard_tokens):
        name = f"{split}-{len(shards):05d}.bin"
        with files.replacing(folder / name) as temporary:
            tokens.tofile(temporary)
        shards.append({"file": name, "tokens": len(tokens)})
    splits[split] = shards
    index = {"version": 1, "vocab_size": vocab_size, "dtype": dtype, "splits": splits}
    files.write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
    return sum(shard["tokens"] for shard in shards)


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
        return {key: index[key] for key in ("vocab_size", "dtype", "splits")}
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
        dtype = np.dtype(index["dtype"])
        self._shards = []
        for shard in index["splits"][split]:
            path, wanted = self.folder / shard["file"], shard["tokens"] * dtype.itemsize
            found = path.stat().st_size if path.exists() else 0
            if found != wanted:
                raise InputError(f"{path} has {found} bytes, but its index says {wanted}")
            self._shards.append(np.memmap(path, dtype=dtype, mode="r"))
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens `start` to `stop` as an int32 array (stop - start,), across shards."""
        out = np.empty(max(0, min(stop, len(self)) - start), np.int32)
        first = int(np.searchsorted(self._ends, start, side="right"))
        filled = 0
        while filled < len(out):
            shard = self._shards[first]
            offset = start + filled - (int(self._ends[first]) - len(shard))
            part = shard[offset : offset + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled, first = filled + len(part), first + 1
        return out
