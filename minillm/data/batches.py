"""Batches: which tokens the model sees at which step.

The corpus is cut into windows of `block_size` tokens that do not overlap, and each epoch goes
through all of them once, in an order of its own: shuffling without replacement. The cut moves by a
random offset from epoch to epoch, so that the same sentence is not always split at the same place.

The order depends on the seed and the epoch alone. So batch `step` can be made without the batches
before it, and a run that stops at step 1000 goes on with batch 1000 as if nothing had happened:
there is no state to save.

Where the corpus knows its documents, `PackedBatches` keeps them whole instead: each pass draws the
documents by the mixture (mixing.py), packs them into rows (packing.py) and shuffles the rows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from minillm.data.mixing import drawn, times_seen
from minillm.data.packing import pack, pieces_of
from minillm.data.shards import TokenDataset
from minillm.errors import InputError, counted
from minillm.kernels.cross_entropy import IGNORED


class BatchSource(Protocol):
    """What a training loop reads from: a pure function of the step."""

    def batch(self, step: int) -> tuple[np.ndarray, ...]:
        """Ids and targets of update `step`, counted from 0; both (B, T), target -100 is ignored.

        Where rows hold several documents, a third array (B, T) numbers them.
        """


class Batches:
    """Shuffled windows of a dataset."""

    def __init__(self, dataset: TokenDataset, batch_size: int, block_size: int, seed: int) -> None:
        """Raises `InputError` where the dataset is shorter than one window and its last target."""
        if len(dataset) < block_size + 1:
            raise InputError(
                f"the {dataset.split} split has {counted(len(dataset), 'token')}, but one context"
                f" needs {block_size + 1} (block_size + 1); give more text or a smaller block_size"
            )
        self.dataset, self.batch_size, self.block_size = dataset, batch_size, block_size
        self.seed = seed
        # One window fewer than would fit leaves room for any offset below block_size.
        self.windows = max(1, (len(dataset) - block_size) // block_size)
        self._epoch, self._starts = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and targets, int32 (B, T); a target is the token that follows its id.

        A batch at the end of an epoch is filled up from the next one.
        """
        first = step * self.batch_size
        tokens = np.empty((self.batch_size, self.block_size + 1), np.int32)  # refused if too large
        for row in range(self.batch_size):
            tokens[row] = self._window(first + row)
        return tokens[:, :-1], tokens[:, 1:]

    def _window(self, number: int) -> np.ndarray:
        """The `number`-th window ever served."""
        epoch, place = divmod(number, self.windows)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            room = len(self.dataset) - self.windows * self.block_size  # offsets that fit
            offset = rng.integers(min(room, self.block_size))
            self._starts = offset + rng.permutation(self.windows) * self.block_size
            self._epoch = epoch
        start = int(self._starts[place])
        return self.dataset.read(start, start + self.block_size + 1)


class PackedBatches:
    """Rows of whole documents, each with a number of its own, in shuffled order.

    A document's first token is the mark of a new text. It is also what comes after the last token
    of any document, so that the model learns where to end. In a vocabulary without the mark, the
    last token has no target.
    """

    def __init__(self, dataset: TokenDataset, batch_size: int, block_size: int, seed: int) -> None:
        """Raises `InputError` where the shards do not tell the documents, or none is to be seen."""
        self.dataset, self.batch_size, self.block_size = dataset, batch_size, block_size
        self.seed = seed
        documents = dataset.documents()
        self._starts = np.concatenate([[0], np.cumsum(documents["tokens"], dtype=np.int64)])
        mixture = dataset.mixture
        self._times = times_seen(
            documents, dataset.collections, mixture.get("weights", {}), mixture.get("epochs", {})
        )
        self._times[documents["tokens"] == 0] = 0
        if not self._times.sum() >= 1:
            raise InputError(f"the {dataset.split} split has no document that is to be seen")
        self._ends: list[int] = []  # rows up to the end of each pass, as far as they are known
        self._number = -1  # of the pass that is laid out
        self._lay_out(0)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, targets and the numbers of documents of update `step`, int32 (B, T).

        What is left of a row is padding: id 0, target -100, a document of its own.
        """
        shape = (self.batch_size, self.block_size)
        ids, documents = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        targets = np.full(shape, IGNORED, np.int32)
        for i in range(self.batch_size):
            at = 0
            pieces = self._row(step * self.batch_size + i)
            for number, (document, start, length) in enumerate(pieces):
                begin, end = self._starts[document : document + 2]
                tokens = self.dataset.read(begin + start, min(begin + start + length + 1, end))
                ids[i, at : at + length] = tokens[:length]
                targets[i, at : at + len(tokens) - 1] = tokens[1:]
                if len(tokens) == length and self.dataset.marked:  # the end: a new text would begin
                    targets[i, at + length - 1] = self.dataset.read(begin, begin + 1)[0]
                documents[i, at : at + length] = number
                at += length
            documents[i, at:] = len(pieces)
        return ids, targets, documents

    def _row(self, number: int) -> np.ndarray:
        """The pieces of the `number`-th row ever served: document, start, length (P, 3)."""
        while self._ends[-1] <= number:
            self._lay_out(len(self._ends))
        at = int(np.searchsorted(self._ends, number, side="right"))
        if at != self._number:
            self._lay_out(at)
        row = self._order[number - (self._ends[at - 1] if at else 0)]
        return self._pieces[self._bounds[row] : self._bounds[row + 1]]

    def _lay_out(self, number: int) -> None:
        """Pack the documents of pass `number`."""
        chosen = drawn(self._times, self.seed, number)
        lengths = np.diff(self._starts)[chosen]
        place, start, length = pieces_of(lengths, self.block_size)
        rows, count = pack(length, self.block_size)
        order = np.argsort(rows, kind="stable")
        self._pieces = np.stack([chosen[place], start, length], axis=1)[order]
        self._bounds = np.searchsorted(rows[order], np.arange(count + 1))
        self._order = np.random.default_rng([self.seed, number, 1]).permutation(count)
        if number == len(self._ends):
            self._ends.append(count + (self._ends[-1] if self._ends else 0))
        self._number = number

