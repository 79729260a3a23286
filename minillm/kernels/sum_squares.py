"""The sum of the squares of an array, for the norm of a gradient.

    s = sum_i x_i^2

Squares are added in float64 in parts of fixed length, and the parts in their order, so that the
result does not depend on the number of threads: clipping multiplies every gradient by a number made
from it, and one different bit there would be a different run.

Nothing is differentiated here, so there is no backward.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, flat

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array) -> float:
    """Sum of the squares of all elements, added in float64."""
    xp = backend.array_module(x)
    return float((x.astype(xp.float64) ** 2).sum())


# ------------------------------------------------------------------------------- fast twin
#
# One pass over memory. Inside a part the compiler keeps several running sums in vector registers
# (FASTMATH lets it reorder a sum); which ones depends on the code, not on the threads.


def forward_fast(x: Array) -> float:
    return _sum(flat(x), np.empty((x.size + PART - 1) // PART))


@jit(parallel=True)
def _sum(x, sums):
    if sums.size < 2:
        return _sum_part(x)
    for part in prange(sums.size):
        sums[part] = _sum_part(x[part * PART : min((part + 1) * PART, x.size)])
    return _sum_in_order(sums)


@jit(fastmath=False, forceinline=True)
def _sum_in_order(sums):
    total = 0.0
    for part in range(sums.size):
        total += sums[part]
    return total


@jit(forceinline=True)
def _sum_part(x):
    total = 0.0
    for i in range(x.size):
        value = np.float64(x[i])
        total += value * value
    return total


# ---------------------------------------------------------------------------------- public


def forward(x: Array) -> float:
    """Sum of the squares of all elements of `x` (any shape), added in float64."""
    return forward_fast(x) if backend.fast(x) else forward_reference(x)
