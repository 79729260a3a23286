"""bfloat16: the upper half of a float32, and arrays that are stored in it.

Sign, exponent and the first 7 of the 23 bits of the fraction: the range of float32 with three
digits, in half of the memory. Rounding is to nearest, ties to the even last bit, and a NaN stays
one. Compiled kernels see such an array as its bits, uint16; with `take` and `put` a loop is written
once for arrays that hold numbers and arrays that hold bits.

    bits of x              s eeeeeeee fffffff ffffffffffffffff
    add 0x7FFF, and 1 if the last bit that stays is odd; then cut off the lower half

Source: Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training", section 3.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import intrinsic, jit, prange
from minillm.kernels.layout import PART, flat
from minillm.kernels.tile import WRITER
from minillm.kernels.vector_math import INLINE

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
BITS = np.dtype(np.uint16)

# ------------------------------------------------------------------------------- arrays


def round_to_bfloat16(numbers: Array) -> Array:
    """float32 numbers as the bits (uint16) of the nearest bfloat16, ties to even."""
    xp = backend.array_module(numbers)
    bits = xp.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    high = bits >> 16
    rounded = (bits + np.uint32(0x7FFF) + (high & 1)) >> 16
    return xp.where(xp.isnan(numbers), high | 0x40, rounded).astype(np.uint16)


def widen(bits: Array) -> Array:
    """The bits (uint16) of bfloat16 numbers as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def put_all(place: np.ndarray, numbers: np.ndarray) -> None:
    """place[...] = numbers, rounded where it holds bits: `put` for plain Python's arrays."""
    place[...] = round_to_bfloat16(numbers) if place.dtype == BITS else numbers


def raw(array: Array) -> Array:
    """`array` as kernels take it: the bits of one in bfloat16, others as they are."""
    return array.view(BITS) if array.dtype == BFLOAT16 else array


def computed_in(array: Array) -> np.dtype:
    """The dtype in which a kernel computes with what `array` stores."""
    return np.dtype(np.float32) if array.dtype == BFLOAT16 else array.dtype


def to_bfloat16(x: Array) -> Array:
    """The float32 array `x` stored in bfloat16."""
    if not backend.fast(x):
        return round_to_bfloat16(x).reshape(x.shape).view(BFLOAT16)
    out = np.empty(x.shape, BFLOAT16)
    if x.size:
        _round(flat(x), raw(out).reshape(-1))
    return out


@jit(parallel=True)
def _round(x, bits):
    for part in prange((x.size + PART - 1) // PART):
        i, j = part * PART, min((part + 1) * PART, x.size)
        _round_part(x[i:j], bits[i:j])


@jit(forceinline=True)
def _round_part(x, bits):
    """From 0 on: a loop from elsewhere would not be made into vectors."""
    for i in range(x.size):
        bits[i] = rounded_bits(x[i])


# ------------------------------------------------------------------------------- single numbers


def _rounded_bits_plain(x):
    return round_to_bfloat16(x)[0]


@intrinsic(plain=_rounded_bits_plain, uses=WRITER)
def rounded_bits(typing, x):
    """The bits of the bfloat16 nearest to one float32. Subnormal numbers may become 0."""
    from numba.core import types

    return types.uint16(types.float32), _write_rounded_bits


def _write_rounded_bits(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `rounded_bits`; LLVM makes vectors of them."""
    from minillm.kernels.vector_ir import NUMBERS, Writer

    rounded = Writer(context, builder).round_to_bfloat16(arguments[0])
    return builder.bitcast(rounded, NUMBERS["uint16"])


@jit(**INLINE)
def take(array, i):
    """Number i of an array of numbers or bits."""
    if array.itemsize == 2:
        return np.uint32(np.uint32(array[i]) << np.uint32(16)).view(np.float32)
    return array[i]


@jit(**INLINE)
def put(array, i, x):
    """array[i] = x, rounded where the array holds bits."""
    if array.itemsize == 2:
        array[i] = rounded_bits(x)
    else:
        array[i] = x
