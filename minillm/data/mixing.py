"""Mixing: how often each document is seen in one pass over a corpus of several collections.

A collection is seen `epochs` times in a pass, or, where the recipe gives weights, as often as makes
it up to its share of all tokens while a pass stays as long as the corpus. Within a collection,
documents share that in proportion to their own weight (their quality, say).

1.3 times means once, and with the chance of 0.3 once more. Who gets the additional turn follows
from the seed, the pass and the document's number in the corpus: not from how many shards there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def times_seen(
    documents: np.ndarray,
    collections: Sequence[str],
    weights: Mapping[str, float],
    epochs: Mapping[str, float],
) -> np.ndarray:
    """The mean number of times that each document is seen in a pass, (N,) float64.

    Args:
        documents: records with `tokens`, `collection` and `weight` (`shards.DOCUMENT`).
        collections: the names of the collections.
        weights: of collections, not normalised; those without one are not seen. Empty: none given.
        epochs: of collections; 1 for those without one. Ignored where there are weights.
    """
    tokens = documents["tokens"].astype(np.float64)
    sizes = np.bincount(documents["collection"], tokens, len(collections))
    there = [name for name, size in zip(collections, sizes, strict=True) if size]
    asked = sum(weights.get(name, 0.0) for name in there)
    times = np.zeros(len(documents))
    for number, name in enumerate(collections):
        mine = documents["collection"] == number
        size = sizes[number]
        if not size:
            continue
        seen = epochs.get(name, 1.0)
        if weights:
            seen = weights.get(name, 0.0) / asked * sizes.sum() / size if asked else 0.0
        weight = documents["weight"][mine].astype(np.float64)
        mean = (weight * tokens[mine]).sum() / size
        times[mine] = seen * (weight / mean if mean > 0 else 1.0)
    return times


def drawn(times: np.ndarray, seed: int, number: int) -> np.ndarray:
    """The documents of pass `number`, each as often as it is seen, shuffled: (D,) int64."""
    rng = np.random.default_rng([seed, number])
    extra = rng.random(len(times)) < times % 1.0
    chosen = np.repeat(np.arange(len(times)), times.astype(np.int64) + extra)
    return rng.permutation(chosen)
