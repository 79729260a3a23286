"""Rotary position embedding: turn each pair of channels by an angle that grows with the position.

Channels i and i + D/2 of a query or key are a point in the plane. At position t the point is turned
by the angle t f_i, with frequencies from 1 down to nearly 1/theta:

    f_i = theta^(-2i / D)                  i = 0 .. D/2 - 1
    out_i       = x_i cos(t f_i) - x_{i+D/2} sin(t f_i)
    out_{i+D/2} = x_{i+D/2} cos(t f_i) + x_i sin(t f_i)

The dot product of a query turned by t and a key turned by s depends only on t - s: attention sees
how far apart two tokens are, and no table of positions has to be learned.

Derivative. A rotation's transpose is the rotation back, so backward turns `dout` by -t f_i.

Shapes: x, out, dout, dx (B, H, T, D); cos, sin (B or 1, T, D/2). Source: Su et al. 2021,
"RoFormer", equation 34; the pairing of channels is that of Llama in Hugging Face's files.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import neighbours, side_by_side


def tables(
    positions: Array, d_head: int, theta: float = 10000.0, dtype: Any = np.float32
) -> tuple[Array, Array]:
    """cos and sin of every angle, (..., D/2) in `dtype`, for whole-numbered `positions` (...).

    The angles are computed in float64: at position 100,000 float32 would be off by 0.004 radians.
    """
    xp = backend.array_module(positions)
    frequencies = float(theta) ** (-xp.arange(0, d_head, 2, dtype=xp.float64) / d_head)
    angles = positions[..., None].astype(xp.float64) * frequencies  # (..., D/2)
    return xp.cos(angles).astype(dtype), xp.sin(angles).astype(dtype)


# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array, cos: Array, sin: Array) -> Array:
    """`x` (B, H, T, D), its pairs of channels turned by the angles of cos, sin (B or 1, T, D/2)."""
    xp = backend.array_module(x)
    half = x.shape[-1] // 2
    one, other = x[..., :half], x[..., half:]  # (B, H, T, D/2)
    cos, sin = (part[:, None].astype(x.dtype) for part in (cos, sin))  # (B or 1, 1, T, D/2)
    return xp.concatenate([one * cos - other * sin, other * cos + one * sin], axis=-1)


def backward_reference(dout: Array, cos: Array, sin: Array) -> Array:
    """Gradient of `x`: `dout` turned back."""
    return forward_reference(dout, cos, -sin)


# ------------------------------------------------------------------------------- fast twin
#
# One pass, in parallel over rows and positions; the heads of a position share its angles. x is read
# by its strides (it usually is a view of (B, T, H, D) memory), but the channels of a head lie side
# by side, so that loops over them work on vectors. The result is laid out as the attention kernel
# likes it.


def forward_fast(x: Array, cos: Array, sin: Array) -> Array:
    return _turned(x, cos, sin, x.dtype.type(1))


def backward_fast(dout: Array, cos: Array, sin: Array) -> Array:
    return _turned(dout, cos, sin, dout.dtype.type(-1))


def _turned(x: Array, cos: Array, sin: Array, direction: Any) -> Array:
    B, H, T, D = x.shape
    out = np.empty((B, T, H, D), x.dtype)
    if x.size:
        cos, sin = (side_by_side(table.astype(x.dtype, copy=False)) for table in (cos, sin))
        _turn(side_by_side(x), cos, sin, direction, out)
    return out.swapaxes(1, 2)  # (B, H, T, D)


@jit(reads=("x", "cos", "sin"), parallel=True)
def _turn(x, cos, sin, direction, out):
    B, _, T, _ = x.shape
    for place in prange(B * T):
        b, t = place // T, place % T
        _turn_heads(x, cos, sin, direction, out, b, t, b if cos.shape[0] > 1 else 0)


@jit(borrows=True)
def _turn_heads(x, cos, sin, direction, out, b, t, shared):
    half = x.shape[3] // 2
    c, s = neighbours(cos[shared, t]), neighbours(sin[shared, t])
    for h in range(x.shape[1]):
        row, turned = neighbours(x[b, h, t]), out[b, t, h]
        _turn_row(row[:half], row[half:], c, s, direction, turned[:half], turned[half:])


@jit(forceinline=True)
def _turn_row(one, other, cos, sin, direction, turned_one, turned_other):
    for i in range(one.size):
        c, s = cos[i], direction * sin[i]
        turned_one[i] = one[i] * c - other[i] * s
        turned_other[i] = other[i] * c + one[i] * s


# ---------------------------------------------------------------------------------- public


def forward(x: Array, cos: Array, sin: Array) -> Array:
    """`x` (B, H, T, D), D even, float32 or float64, turned by the angles of its positions.

    `cos` and `sin` (B or 1, T, D/2) are from `tables`. The result is a (B, H, T, D) view of memory
    in the order (B, T, H, D).
    """
    return forward_fast(x, cos, sin) if backend.fast(x, cos) else forward_reference(x, cos, sin)


def backward(dout: Array, cos: Array, sin: Array) -> Array:
    """Gradient (B, H, T, D) of `forward`'s input."""
    if backend.fast(dout, cos):
        return backward_fast(dout, cos, sin)
    return backward_reference(dout, cos, sin)
