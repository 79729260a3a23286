"""Dropout: each number is kept with probability 1 - p and then divided by it, or becomes 0.

    out_i = x_i keep_i / (1 - p),       dx_i = dout_i keep_i / (1 - p)

The division keeps the mean what it was, so nothing is left to do when dropout is off.

keep_i is not stored. It is a hash of (seed, i): 64 bits that look random, of which the highest 24
make a number u_i in [0, 1), and keep_i = (u_i >= p). Backward computes it again. So the mask costs
no memory, does not depend on threads or on the order of work, and is the same on every backend. The
hash is SplitMix64: a walk in steps of the golden ratio, and three rounds of shift, xor, multiply.

Shapes: all (...). Sources: Srivastava et al. 2014, "Dropout", section 4; Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators", figure 16.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, flat

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
SHIFT_1, SHIFT_2, SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
UNUSED_BITS = np.uint64(40)  # of 64: the 24 kept ones are exact in float32

# ------------------------------------------------------------------------------- reference


def keep_mask(like: Array, p: float, seed: int) -> Array:
    """Booleans shaped as `like`: which numbers stay."""
    xp = backend.array_module(like)
    z = xp.arange(1, like.size + 1, dtype=xp.uint64) * GOLDEN + np.uint64(seed)
    z = (z ^ (z >> SHIFT_1)) * MIX_1
    z = (z ^ (z >> SHIFT_2)) * MIX_2
    z = (z ^ (z >> SHIFT_3)) >> UNUSED_BITS
    return (z >= np.uint64(_least_kept(p))).reshape(like.shape)


def forward_reference(x: Array, p: float, seed: int) -> Array:
    """`x` with a share `p` of its numbers, chosen by `seed`, set to 0 and the rest scaled up."""
    xp = backend.array_module(x)
    return xp.where(keep_mask(x, p, seed), x * x.dtype.type(1 / (1 - p)), x.dtype.type(0))


def backward_reference(dout: Array, p: float, seed: int) -> Array:
    """The same numbers of `dout` are dropped and scaled."""
    return forward_reference(dout, p, seed)


def _least_kept(p: float) -> int:
    """The smallest 24-bit number u with u / 2^24 >= p."""
    return int(np.ceil(p * 2.0**24))


# ------------------------------------------------------------------------------- fast twin
#
# One pass: hash, compare and scale in registers, in parts that run in parallel.


def forward_fast(x: Array, p: float, seed: int) -> Array:
    out = np.empty(x.shape, x.dtype)
    scale, least = x.dtype.type(1 / (1 - p)), np.uint64(_least_kept(p))
    with np.errstate(over="ignore"):  # the hash wraps around, of which plain Python would warn
        _drop(flat(x), out.reshape(-1), scale, least, np.uint64(seed))
    return out


def backward_fast(dout: Array, p: float, seed: int) -> Array:
    return forward_fast(dout, p, seed)


@jit(parallel=True)
def _drop(x, out, scale, least, seed):
    if x.size < 2 * PART:
        _drop_part(x, out, scale, least, seed)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _drop_part(x[i:j], out[i:j], scale, least, seed + np.uint64(i) * GOLDEN)


@jit(forceinline=True)
def _drop_part(x, out, scale, least, seed):
    for i in range(x.size):
        z = seed + np.uint64(i + 1) * GOLDEN
        z = (z ^ (z >> SHIFT_1)) * MIX_1
        z = (z ^ (z >> SHIFT_2)) * MIX_2
        z = (z ^ (z >> SHIFT_3)) >> UNUSED_BITS
        out[i] = x[i] * scale if z >= least else x.dtype.type(0)


# ---------------------------------------------------------------------------------- public


def forward(x: Array, p: float, seed: int) -> Array:
    """Dropout of `x` (...), float32 or float64, with probability 0 <= p < 1.

    `seed` is a whole number below 2^64; the same seed drops the same places on every backend.
    """
    return forward_fast(x, p, seed) if backend.fast(x) else forward_reference(x, p, seed)


def backward(dout: Array, p: float, seed: int) -> Array:
    """Gradient of `forward`'s input; needs the same `p` and `seed`."""
    return backward_fast(dout, p, seed) if backend.fast(dout) else backward_reference(dout, p, seed)
