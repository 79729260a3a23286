"""Locality-sensitive hashing: which documents are worth comparing, by bands of their signatures.

A signature is cut into b bands of r numbers. Two documents are candidates when all r numbers of
some band agree, so of two with Jaccard similarity s

    P(candidates) = 1 - (1 - s^r)^b                                             the "S-curve"

become candidates: nearly none far below a threshold, nearly all above it. Which b and r do that
best is found by trying all of them (`choose_bands`).

A band's key is a number of 64 bits: the upper ones a hash of the band, the lower ones the number of
the document. Sorted, equal bands lie side by side, and the order is one and the same on every
machine, because no two keys are equal. Source: Leskovec, Rajaraman and Ullman, "Mining of massive
datasets", section 3.4.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.data.dedup.words import SEED, finish, finish_reference
from minillm.errors import InputError
from minillm.jit import jit, prange

STEPS = 1000  # of the sums that stand for integrals over the similarity


def s_curve(similarity: Array, bands: int, rows: int) -> Array:
    """The chance that documents of `similarity` (any shape, 0 to 1) become candidates.

    >>> float(s_curve(np.float64(0.8), bands=21, rows=6).round(4))
    0.9983
    """
    return 1 - (1 - similarity**rows) ** bands


@cache
def choose_bands(
    threshold: float,
    permutations: int = 128,
    false_positives: float = 1.0,
    false_negatives: float = 1000.0,
) -> tuple[int, int]:
    """The number of bands and the rows of each that make the fewest mistakes.

    With all similarities equally likely, the mistakes are two areas at the S-curve: below it left
    of the threshold (false positives), above it right of the threshold (false negatives). The sum
    of both, weighted, is made as small as `bands * rows <= permutations` allows. The weights given
    are for candidates that are verified afterwards: a false one costs a comparison, a missed one is
    lost. Where nothing is verified, equal weights are the better choice.

    >>> choose_bands(0.8), choose_bands(0.8, false_negatives=1.0)
    ((21, 6), (9, 13))
    """
    check_threshold(threshold)
    if permutations < 1 or false_positives < 0 or false_negatives < 0:
        raise InputError(
            f"{permutations} permutations, weights {false_positives} and {false_negatives}; "
            "at least one permutation and no negative weight are needed"
        )
    similarity = (np.arange(STEPS) + 0.5) / STEPS
    below = similarity < threshold
    best, choice = np.inf, (1, permutations)
    for rows in range(1, permutations + 1):
        for bands in range(1, permutations // rows + 1):
            curve = s_curve(similarity, bands, rows)
            wrong = false_positives * curve[below].sum()
            wrong += false_negatives * (1 - curve[~below]).sum()
            if wrong < best:
                best, choice = wrong, (bands, rows)
    return choice


def check_threshold(threshold: float) -> None:
    """Raise `InputError` where `threshold` is no similarity above 0."""
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold is {threshold}; similarities lie above 0 and up to 1")


def show_s_curve(bands: int, rows: int, threshold: float, width: int = 50) -> str:
    """The S-curve as lines of text, one for every 0.05 of similarity, the threshold marked."""
    lines = [f"{bands} bands of {rows} rows; chance that two documents are compared, by similarity"]
    for step in range(21):
        similarity = step / 20
        chance = float(s_curve(np.float64(similarity), bands, rows))
        mark = "  <- threshold" if abs(similarity - threshold) < 0.025 else ""
        bar = "#" * round(chance * width)
        lines.append(f"{similarity:5.2f} {chance:8.4f} {bar:<{width}}{mark}")
    return "\n".join(line.rstrip() for line in lines)


# ---------------------------------------------------------------------------------- keys


def index_bits(documents: int) -> int:
    """How many lower bits of a key hold the number of one of so many documents."""
    return max(1, (documents - 1).bit_length())


def band_keys(
    signatures: np.ndarray, documents: np.ndarray, bands: int, rows: int, bits: int
) -> np.ndarray:
    """The keys of every band, (bands, n) uint64.

    `signatures` are (n, permutations) uint32, those of `documents` (n,), whose numbers take `bits`.
    """
    signatures, documents = np.asarray(signatures), documents.astype(np.uint64)
    if not backend.fast(signatures):
        return keys_reference(signatures, documents, bands, rows, bits)
    out = np.empty((bands, len(documents)), np.uint64)
    with np.errstate(over="ignore"):
        _keys(signatures, documents, rows, np.uint64(bits), out)
    return out


def keys_reference(
    signatures: np.ndarray, documents: np.ndarray, bands: int, rows: int, bits: int
) -> np.ndarray:
    """`band_keys` as array code."""
    parts = signatures[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    values = np.full(parts.shape[:2], SEED)
    for row in range(rows):
        values = finish_reference(values ^ parts[:, :, row])
    return with_index(values.T, documents, bits)


def with_index(values: np.ndarray, documents: np.ndarray, bits: int) -> np.ndarray:
    """Hashes (..., n) uint64 with their lower `bits` replaced by the numbers of documents (n,)."""
    return values >> np.uint64(bits) << np.uint64(bits) | documents.astype(np.uint64)


def shared_only(keys: np.ndarray, bits: int) -> np.ndarray:
    """`keys` in order, without those whose upper part no other has: the buckets to look into."""
    keys = np.sort(keys)
    upper = keys >> np.uint64(bits)
    same = upper[1:] == upper[:-1]
    kept = np.zeros(len(keys), bool)
    kept[1:] |= same
    kept[:-1] |= same
    return keys[kept]


@jit(parallel=True)
def _keys(signatures, documents, rows, bits, out):
    # One pass over the signatures, in parallel; each band's hash stays in a register.
    for i in prange(signatures.shape[0]):
        for band in range(out.shape[0]):
            value = SEED
            for row in range(band * rows, (band + 1) * rows):
                value = finish(value ^ np.uint64(signatures[i, row]))
            out[band, i] = value >> bits << bits | documents[i]
