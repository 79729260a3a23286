"""The key/value cache: what attention needs of the tokens that a model has already read.

A later token never changes an earlier one's keys and values (kernels/attention.py says why), so a
model that writes token after token computes only the newest position and reads the rest here.

Rows of different lengths are padded on the left. The cache remembers how many columns of each row
are padding, so that only the call that brings padding has to say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import Tensor
from minillm.autograd.tensor import record
from minillm.backend import Array
from minillm.errors import GraphError, InputError


class KVCache:
    """Room for the keys and values of `capacity` positions, in each layer, of each row.

    `k`, `v`: (n_layer, B, G, capacity, D); `length` columns of them are in use, the same number in
    every row, of which `padding` (B,) on the left hold nothing.
    """

    def __init__(
        self,
        n_layer: int,
        batch: int,
        n_kv_head: int,
        capacity: int,
        d_head: int,
        dtype: Any = np.float32,
    ) -> None:
        shape = (n_layer, batch, n_kv_head, capacity, d_head)
        self.k: Array = backend.module().zeros(shape, dtype=dtype)
        self.v: Array = backend.module().zeros(shape, dtype=dtype)
        self.length = 0
        self.padding = np.zeros(batch, dtype=np.int64)

    batch = property(lambda self: self.k.shape[1], doc="Number of rows.")
    capacity = property(lambda self: self.k.shape[3], doc="Positions there is room for.")

    def add_padding(self, T: int, padding_mask: np.ndarray | None) -> None:
        """Note which of the next T columns are padding; mask (B, T) is true at real tokens.

        Raises `InputError` where a row has padding after its first real token, or for more rows or
        columns than there is room for.
        """
        if self.length + T > self.capacity:
            raise InputError(
                f"{T} more positions for a cache that holds {self.length}"
                f" of at most {self.capacity}"
            )
        # what was noted for columns that never came, because their pass failed, is forgotten
        self.padding = np.minimum(self.padding, self.length)
        if padding_mask is None:
            return
        count = T - padding_mask.sum(axis=1)  # (B,)
        left = (np.arange(T) >= count[:, None]) == padding_mask
        late = ~left.all(axis=1) | ((count > 0) & (self.padding < self.length))
        if late.any():
            raise InputError(
                f"row {late.argmax()} has padding after its first token;"
                " with a cache, pad on the left"
            )
        self.padding = self.padding + count

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep k, v (B, G, T, D) behind what `layer` has; return all of it, (B, G, length + T, D).

        The new columns count from `advance` on, when every layer has kept its own.
        """
        if k.requires_grad or v.requires_grad:
            raise GraphError("a cache holds no gradients; run the model inside no_grad()")
        stop = self.length + k.shape[2]
        self.k[layer, :, :, self.length : stop] = k.array
        self.v[layer, :, :, self.length : stop] = v.array
        return _constant(self.k[layer, :, :, :stop]), _constant(self.v[layer, :, :, :stop])

    def advance(self, T: int) -> None:
        """Count T more columns as held."""
        self.length += T

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Forget all rows but these, which become rows 0, 1, 2, ..."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]
        self.padding = self.padding[rows]


def _constant(array: Array) -> Tensor:
    """A tensor that reads the array where it lies; `Tensor(array)` would copy it."""
    return record("cached", array, (), lambda dout: ())
