"""Near duplicates among more documents than fit in memory, by signatures in files.

    texts of a shard  ->  its signature file         write_signatures, in any process, once each
    all files         ->  clusters                   near_duplicates_of_files

A file is 256 bytes that say how it was made (JSON, padded by spaces), then for every document its
fingerprint (2 uint64) and its signature (uint32), all little-endian. They are read in blocks.

The keys of all bands are sorted outside of memory: every key goes into the file of its band and
range (the upper bits are a hash, so ranges fill evenly), each file is sorted by itself, and what
shares a bucket with nothing is dropped. In memory is one such file at a time, the texts that are
being compared, and 8 bytes per document, its pointer (clusters.py).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minillm import files
from minillm.data.dedup.bands import (
    band_keys,
    check_threshold,
    choose_bands,
    index_bits,
    shared_only,
    with_index,
)
from minillm.data.dedup.clusters import smallest_of_cluster, unite
from minillm.data.dedup.minhash import sketch
from minillm.data.dedup.near import judge, least_agreement
from minillm.errors import InputError

HEAD = 256  # bytes before the first document
FORMAT = "minillm signatures 1"
TEXT_AT_ONCE = 1 << 24  # characters of text between two writes
BYTES_PER_KEY = 32  # that sorting a file of keys takes at its peak
Blocks = Iterator[tuple[np.ndarray, np.ndarray]]  # numbers of documents, and their records


def write_signatures(
    path: str | os.PathLike[str],
    texts: Iterable[str],
    permutations: int = 128,
    ngram: int = 5,
    seed: int = 0,
) -> int:
    """Write the signature file of a shard's `texts`, whole or not at all; returns their number.

    The settings are those of `near_duplicates`, and must be the same for all shards.
    """
    settings = {"format": FORMAT, "permutations": permutations, "ngram": ngram, "seed": seed}
    head = json.dumps(settings).encode()
    count = 0
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        file.write(head.ljust(HEAD - 1) + b"\n")
        for some in portions(texts):
            records = np.empty(len(some), _record(permutations))
            records["signature"], records["mark"] = sketch(some, permutations, ngram, seed)
            file.write(records.tobytes())
            count += len(some)
    return count


def _record(permutations: int) -> np.dtype:
    return np.dtype([("mark", "<u8", (2,)), ("signature", "<u4", (permutations,))])


def portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in the same order, about `TEXT_AT_ONCE` characters at a time; the last may be none."""
    some, size = [], 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= TEXT_AT_ONCE:
            yield some
            some, size = [], 0
    yield some


def near_duplicates_of_files(
    paths: Sequence[str | os.PathLike[str]],
    texts: Sequence[str] | None = None,
    threshold: float = 0.8,
    memory: int = 1 << 28,
    folder: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Find near duplicates among the documents of all signature files, taken in this order.

    Args:
        paths: files that `write_signatures` made.
        texts: anything that gives the text of document i as `texts[i]`, to verify pairs by their
            true similarity. Without it, signatures alone decide, which a pair near the threshold
            may escape or slip through.
        threshold: Jaccard similarity from which two documents are the same.
        memory: bytes for keys and records; besides them, 8 bytes per document are in use, and
            some 100 MB for texts that are compared. Arrays of many sizes come and go: after
            `backend.return_freed_memory` the heap has no holes that add to it.
        folder: where temporary files go, about `8 * bands` bytes per document; by default the
            system's place for them.

    Returns for every document the smallest number in its cluster, (N,) int64. Raises `InputError`
    for a file that is damaged or was made with other settings.
    """
    check_threshold(threshold)
    shards = SignatureFiles(paths)
    roots, bits = np.arange(len(shards)), index_bits(len(shards))
    parts = max(1, -(-len(shards) * (shards.record.itemsize + BYTES_PER_KEY) // memory))
    rows_at_once = max(1, memory // 4 // shards.record.itemsize)
    bands, rows = choose_bands(threshold, shards.permutations)

    def fingerprint_keys() -> Iterator[np.ndarray]:
        for documents, records in shards.blocks(rows_at_once):
            some = records["mark"].any(axis=1)
            yield with_index(records["mark"][some, 0], documents[some], bits)[None]

    def keys_of_bands() -> Iterator[np.ndarray]:
        for documents, records in shards.blocks(rows_at_once):
            some = (roots[documents] == documents) & records["mark"].any(axis=1)
            signatures = np.ascontiguousarray(records["signature"][some])
            yield band_keys(signatures, documents[some], bands, rows, bits)

    def spilled(keys: Iterator[np.ndarray], count: int) -> SpilledKeys:
        return SpilledKeys(Path(spill), keys, count, parts, bits)

    with tempfile.TemporaryDirectory(".tmp", ".minillm-keys-", folder) as spill:
        unite(roots, spilled(fingerprint_keys(), 1), bits, shards.marks_of, 2, judge(None))
    with tempfile.TemporaryDirectory(".tmp", ".minillm-keys-", folder) as spill:
        least = least_agreement(threshold, shards.permutations, verified=texts is not None)
        alike = judge(texts, threshold, shards.ngram)
        unite(roots, spilled(keys_of_bands(), bands), bits, shards.signatures_of, least, alike)
    return smallest_of_cluster(roots)


class SignatureFiles:
    """Signature files one after the other, as one numbered collection of documents."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Look at the files. Raises `InputError` for one that is damaged or unlike the first."""
        if isinstance(paths, str | bytes | os.PathLike):
            raise InputError(f"one path was given ({paths!r}); a list of signature files is needed")
        settings = [_settings(Path(path)) for path in paths]
        for path, other in zip(paths, settings, strict=True):
            if other != settings[0]:
                raise InputError(
                    f"{path} was made with {_told(other)}, {paths[0]} with {_told(settings[0])}; "
                    "signatures can be compared only where both are the same"
                )
        first = settings[0] if settings else {"permutations": 1, "ngram": 1}
        self.permutations, self.ngram = first["permutations"], first["ngram"]
        self.record = _record(self.permutations)
        self._paths = [Path(path) for path in paths]
        self._lengths = [_length(path, self.record) for path in self._paths]
        self._ends = np.cumsum([0, *self._lengths])[1:]

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def blocks(self, rows: int) -> Blocks:
        """All documents, so many at a time: their numbers (n,) and their records."""
        first = 0
        for path in self._paths:
            with path.open("rb") as file:
                file.seek(HEAD)
                while len(records := np.fromfile(file, self.record, rows)):
                    yield np.arange(first, first + len(records)), records
                    first += len(records)

    def signatures_of(self, documents: np.ndarray) -> np.ndarray:
        """The signatures of documents (n,) in any order, (n, permutations) uint32."""
        return self._take("signature", documents)

    def marks_of(self, documents: np.ndarray) -> np.ndarray:
        """The fingerprints of documents (n,) in any order, (n, 2) uint64."""
        return self._take("mark", documents)

    def _take(self, field: str, documents: np.ndarray) -> np.ndarray:
        out = np.empty((len(documents), *self.record[field].shape), self.record[field].base)
        home = np.searchsorted(self._ends, documents, side="right")
        for number in np.unique(home).tolist():
            chosen = home == number
            first = int(self._ends[number]) - self._lengths[number]
            # Mapped for this moment only: what stays mapped counts as memory in use.
            file = np.memmap(self._paths[number], self.record, mode="r", offset=HEAD)
            out[chosen] = file[field][documents[chosen] - first]
        return out


def _settings(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            settings = json.loads(file.read(HEAD))
        if settings["format"] != FORMAT:
            raise ValueError(settings["format"])
        return {key: int(settings[key]) for key in ("permutations", "ngram", "seed")}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no signature file; make it with write_signatures") from error


def _told(settings: dict[str, Any]) -> str:
    return "{permutations} permutations of {ngram}-grams, seed {seed}".format(**settings)


def _length(path: Path, record: np.dtype) -> int:
    """How many documents a file holds."""
    size = path.stat().st_size - HEAD
    if size % record.itemsize:
        raise InputError(f"{path} ends within a document; write it again")
    return size // record.itemsize


class SpilledKeys:
    """The keys of every band in files, by range; iterating gives those that share a bucket."""

    def __init__(
        self, folder: Path, blocks: Iterable[np.ndarray], bands: int, parts: int, bits: int
    ) -> None:
        """Write `blocks` of keys, each (bands, n), to `folder`, and sort file by file."""
        self._paths = [
            [folder / f"{band}-{part}.keys" for part in range(parts)] for band in range(bands)
        ]
        edges = np.array([(part << 64) // parts for part in range(1, parts)], np.uint64)
        for block in blocks:
            for keys, paths in zip(block, self._paths, strict=True):
                keys = np.sort(keys)
                for piece, path in zip(
                    np.split(keys, np.searchsorted(keys, edges)), paths, strict=True
                ):
                    with path.open("ab") as file:
                        piece.tofile(file)
        for path in self._all():
            shared_only(np.fromfile(path, np.uint64), bits).tofile(path)

    def _all(self) -> Iterator[Path]:
        return (path for paths in self._paths for path in paths if path.exists())

    def __iter__(self) -> Iterator[np.ndarray]:
        return (np.fromfile(path, np.uint64) for path in self._all())
