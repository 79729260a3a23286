"""What is found out about all documents together: who repeats whom, and who is held out.

Everything else about a document can be said by looking at it alone. This cannot, so it is done
between two stages, out of core, and written to files that every worker maps:

    first.npy    for each document the first of those that are the same or nearly so, as far as the
                 recipe asks for either; itself if none
    exact.npy    the same for texts that agree letter by letter
    sharers.npy  which documents may share a passage with an earlier one (dedup/prints.py)
    held_below   a document is held out where the first half of its hash is below this number
    ngrams-N.npy the n-grams of the evaluation sets (contamination.py)

Who is held out follows from the hash of the first of a document's near duplicates, the only one
that stays. So the split does not depend on where a document lies, and no two documents that were
found to be nearly the same are parted by it. Without a search for near duplicates (near = none),
only texts that agree letter by letter are sure to be on one side.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from minillm import files
from minillm.data.contamination import evaluation_texts, write_index
from minillm.data.corpus import Shards, forget_files
from minillm.data.dedup import earlier_sharers, near_duplicates_of_files
from minillm.data.recipe import Recipe

BYTES_PER_KEY = 80  # at the peak of sorting
MEMORY = 1 << 28  # for keys that are sorted at a time
BINS = 1 << 16  # of hashes, by which the split is measured


def judge(folder: Path, clean: Path, shards: int, recipe: Recipe) -> dict[str, Any]:
    """Write the files above to `folder`, about the shards in the folder `clean`."""
    everything, settings = Shards(clean, shards), recipe.duplicates
    numbers = np.arange(len(everything), dtype=np.int64)
    exact = exact_firsts(everything) if settings.exact or settings.near is not None else numbers
    first = exact
    if settings.near is not None:
        paths = [path.with_suffix(".signatures") for path in everything.paths]
        first = near_duplicates_of_files(
            paths, everything.texts(), settings.near, MEMORY, folder=folder
        )
        forget_files()
        if settings.exact:  # texts without words have no near duplicates
            first = first[exact]
    found = {"first": first, "exact": exact}
    if settings.passages:
        paths = [path.with_suffix(".prints") for path in everything.paths]
        begins = everything.ends - [len(records) for records in everything.records]
        found["sharers"] = earlier_sharers(paths, begins, first == numbers, MEMORY, folder)
    for name, array in found.items():
        with files.replacing(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, array)
    held = held_below(everything, first, recipe.split.validation)
    files.write_text(folder / "held_below", str(held))
    about = {"documents": len(everything), "held_below": held}
    if recipe.contamination.paths:
        texts = evaluation_texts(recipe.contamination.paths)
        about["ngrams"] = write_index(folder, texts, recipe.contamination.ngram)
    return about


def exact_firsts(shards: Shards, memory: int = MEMORY) -> np.ndarray:
    """For every document the number of the first with the same text, (N,) int64.

    Hashes are sorted range by range, so that those of one range fit into `memory` bytes.
    """
    first = np.arange(len(shards), dtype=np.int64)
    parts = max(1, -(-len(shards) * BYTES_PER_KEY // memory))
    edges = [(part << 64) // parts for part in range(parts)] + [1 << 64]
    for low, high in itertools.pairwise(edges):
        keys, numbers = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
        for number, records in enumerate(shards.records):
            key = np.asarray(records["key"])
            inside = np.flatnonzero((key[:, 0] >= low) & (key[:, 0] <= high - 1))
            keys.append(key[inside])
            numbers.append(inside + shards.first(number))
        key, places = np.concatenate(keys), np.concatenate(numbers)
        order = np.lexsort((key[:, 1], key[:, 0]))  # stable: the first of equal ones stays first
        key, places = key[order], places[order]
        new = np.ones(len(key), bool)
        new[1:] = (key[1:] != key[:-1]).any(axis=1)
        first[places] = places[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first


def held_below(shards: Shards, first: np.ndarray, share: float) -> int:
    """The bound on hashes under which about `share` of all characters lie.

    Exact to one bin of 65,536, or, where few documents fill few bins, to half a document. At least
    one document lies below it, and one does not, where there are two.
    """
    if not share or not len(shards):
        return 0
    sizes = np.zeros(BINS, np.int64)  # characters by the upper bits of the hash
    for number, records in enumerate(shards.records):
        begin = shards.first(number)
        mine = first[begin : begin + len(records)] == np.arange(begin, begin + len(records))
        keys = np.asarray(records["key"][:, 0])[mine]
        np.add.at(sizes, (keys >> np.uint64(48)).astype(np.int64), records["characters"][mine])
    below = np.concatenate([[0], np.cumsum(sizes)])  # characters under each bin's start
    filled = np.flatnonzero(sizes) + 1
    if len(filled) < 2:
        return 0
    cuts = filled[:-1]  # after each bin that holds something, but not after the last
    best = cuts[np.argmin(np.abs(below[cuts] - share * below[-1]))]
    return int(best) << 48
