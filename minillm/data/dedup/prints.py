"""Which documents share a passage with an earlier one, among more of them than fit in memory.

Suffixes are sorted in memory, a batch of documents at a time (passages.py). Which earlier documents
have to lie before a batch, so that passages are found across batches too, is told by fingerprints:

    with k = least / 2 and w = least - k + 1, of any w neighbouring runs of k bytes the one with the
    smallest hash is a fingerprint (of equal ones the last)

Two texts that share `least` bytes share w neighbouring runs, and so the smallest of them: none is
missed. About 2 / (w + 1) of all runs are fingerprints, one for every 50 bytes where `least` is 200.
That two texts share one says only that k bytes are the same, so the batch decides.

Of all documents with a fingerprint only the first is named, or a licence would name every page. So
across batches a passage is found as far as some first document has it: where others share a few
bytes more around it, or share what begins like an older text but goes on otherwise, that is left.
Source: Schleimer, Wilkerson and Aiken 2003, "Winnowing: local algorithms for document
fingerprinting".

    hash of a run    finish(b_1 B^(k-1) + ... + b_k)  mod 2^64                 B, finish: words.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from minillm import backend, files
from minillm.data.dedup.bands import index_bits, with_index
from minillm.data.dedup.signature_files import BYTES_PER_KEY, SpilledKeys, portions
from minillm.data.dedup.words import BASE, batches, finish, finish_reference
from minillm.jit import jit

PRINT = np.dtype([("hash", "<u8"), ("document", "<u4")])
ROWS = 1 << 20  # fingerprints read at a time


def fingerprints(texts: Sequence[str], least_bytes: int) -> np.ndarray:
    """The fingerprints of texts: (n,) of PRINT, in the order of the texts, with their numbers."""
    run = max(1, least_bytes // 2)
    window = least_bytes - run + 1
    found = [np.empty(0, PRINT)]
    for first, data, ends in batches(texts):
        if backend.fast(data):
            out = np.empty(len(data), PRINT)
            with np.errstate(over="ignore"):  # without compilation, NumPy would warn
                count = _fingerprints(data, ends, run, window, out["hash"], out["document"])
            out = out[:count].copy()
        else:
            out = prints_reference(data, ends, run, window)
        out["document"] += first
        found.append(out)
    return np.concatenate(found)


def write_fingerprints(path: Path, texts: Iterable[str], least_bytes: int) -> None:
    """Write the fingerprints of a shard's texts to a file, whole or not at all."""
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        first = 0
        for some in portions(texts):
            found = fingerprints(some, least_bytes)
            found["document"] += first
            file.write(found.tobytes())
            first += len(some)


def earlier_sharers(
    paths: Sequence[Path], firsts: np.ndarray, kept: np.ndarray, memory: int, folder: Path
) -> np.ndarray:
    """Of documents in which passages may be that stood before, the first that has the passage.

    Args:
        paths: files that `write_fingerprints` made.
        firsts: the number of the first document of each file.
        kept: which of all documents (N,) count, bool.
        memory: bytes for fingerprints that are sorted at a time.
        folder: where temporary files go, 8 bytes for each fingerprint.

    Returns (n, 2) int64, sorted, each pair once: a document, and an earlier one. For each
    fingerprint only the first document that has it is named.
    """
    bits = index_bits(len(kept))
    total = sum(path.stat().st_size for path in paths) // PRINT.itemsize
    parts = max(1, -(-total * BYTES_PER_KEY // memory))

    def keys() -> Iterator[np.ndarray]:
        for path, first in zip(paths, firsts.tolist(), strict=True):
            with path.open("rb") as file:
                while len(some := np.fromfile(file, PRINT, ROWS)):
                    documents = some["document"].astype(np.int64) + first
                    counted = kept[documents]
                    yield with_index(some["hash"][counted], documents[counted], bits)[None]

    pairs = np.empty((0, 2), np.int64)
    with tempfile.TemporaryDirectory(".tmp", ".minillm-keys-", folder) as spill:
        for shared in SpilledKeys(Path(spill), keys(), 1, parts, bits):
            documents = (shared & np.uint64(2**bits - 1)).astype(np.int64)
            new = np.ones(len(shared), bool)
            new[1:] = np.diff(shared >> np.uint64(bits)) != 0
            earliest = documents[np.flatnonzero(new)[np.cumsum(new) - 1]]
            others = documents != earliest
            found = np.stack([documents[others], earliest[others]], axis=1)
            pairs = np.unique(np.concatenate([pairs, found]), axis=0)
    return pairs


def texts_before(
    pairs: np.ndarray, begin: int, end: int, text_of: Callable[[int], str], most: int
) -> list[str]:
    """Texts of documents before `begin` that share something with documents `begin` to `end`.

    Those that most documents share come first, until there are `most` characters.
    """
    low, high = np.searchsorted(pairs[:, 0], [begin, end])
    before = pairs[low:high, 1]
    documents, counts = np.unique(before[before < begin], return_counts=True)
    texts, size = [], 0
    for document in documents[np.argsort(-counts, kind="stable")].tolist():
        text = text_of(document)
        size += len(text)
        if size > most:
            break
        texts.append(text)
    return texts


# ------------------------------------------------------------------------------- reference


def prints_reference(data: np.ndarray, ends: np.ndarray, run: int, window: int) -> np.ndarray:
    """The fingerprints of texts that lie end to end in `data` (uint8), by their definition."""
    found: list[tuple[int, int]] = []
    begin = 0
    for number, end in enumerate(ends.tolist()):
        text = data[begin:end].astype(np.uint64)
        count = len(text) - run + 1
        hashes = np.zeros(max(0, count), np.uint64)
        for k in range(run if count > 0 else 0):
            hashes = hashes * BASE + text[k : k + count]
        hashes = finish_reference(hashes)
        chosen = {
            max(range(at, at + window), key=lambda i: (-int(hashes[i]), i))
            for at in range(count - window + 1)
        }
        found += [(int(hashes[i]), number) for i in sorted(chosen)]
        begin = end
    return np.array(found, PRINT)


# ------------------------------------------------------------------------------- fast twin
#
# A run's hash follows from that of the run before. The smallest in the window is remembered, and
# looked for again only when it leaves the window: once in w/2 steps.


@jit
def _fingerprints(data, ends, run, window, out_hash, out_document):
    factor = np.uint64(1)  # B^run
    for _ in range(run):
        factor *= BASE
    recent = np.empty(window, np.uint64)  # the hashes of the window, run i at i % window
    count, begin = 0, 0
    for number in range(ends.size):
        text = data[begin : ends[number]]
        begin = ends[number]
        value, smallest, told = np.uint64(0), 0, -1
        for p in range(text.size):
            value = value * BASE + np.uint64(text[p])
            if p >= run:
                value -= factor * np.uint64(text[p - run])
            i = p - run + 1
            if i < 0:
                continue
            recent[i % window] = finish(value)
            if i - smallest == window:
                smallest += 1
                for j in range(smallest + 1, i + 1):
                    if recent[j % window] <= recent[smallest % window]:
                        smallest = j
            elif recent[i % window] <= recent[smallest % window]:
                smallest = i
            if i >= window - 1 and smallest != told:
                out_hash[count], out_document[count] = recent[smallest % window], number
                count += 1
                told = smallest
    return count
