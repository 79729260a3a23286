"""Batches: which tokens the model sees at which step.

The corpus is cut into windows of `block_size` tokens that do not overlap, and each epoch goes
through all of them once, in an order of its own: shuffling without replacement. The cut moves by a
random offset from epoch to epoch, so that the same sentence is not always split at the same place.

The order depends on the seed and the epoch alone. So batch `step` can be made without the batches
before it, and a run that stops at step 1000 goes on with batch 1000 as if nothing had happened:
there is no state to save.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from minillm.data.shards import TokenDataset
from minillm.errors import InputError, counted


class BatchSource(Protocol):
    """What a training loop reads from: a pure function of the step."""

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and targets of update `step`, counted from 0; both (B, T), target -100 is ignored."""


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
        rows = [self._window(i) for i in range(first, first + self.batch_size)]
        tokens = np.stack(rows)  # (B, T + 1)
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
