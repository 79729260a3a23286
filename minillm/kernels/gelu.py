"""GELU: a number times the probability that a standard normal one is smaller.

    out = x P(x),       P(x) = (1 + erf(x / sqrt 2)) / 2                      approximate="none"
                        P(x) = (1 + tanh(u)) / 2,  u = a (x + b x^3)          approximate="tanh"

with a = sqrt(2 / pi) and b = 0.044715. GPT-2 was trained with the second form.

Derivative: P(x) + x P'(x), where

    P'(x) = exp(-x^2 / 2) / sqrt(2 pi)
    P'(x) = (1 - tanh(u)^2) / 2 * a (1 + 3 b x^2)

It is 1 for large x and 0 for very negative x. There a power of a huge x meets a factor that has
vanished; in P' x is held within +-CLIP, where P' is 0 to rounding already, so that no infinity
times 0 arises.

Shapes: all (...). Source: Hendrycks and Gimpel 2016, "Gaussian error linear units", section 2.
"""

from __future__ import annotations

import math

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.errors import InputError
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, flat
from minillm.kernels.vector_math import DOUBLE, INLINE, normal, sigmoid

PEAK = 1 / math.sqrt(2 * math.pi)  # of the normal density
A, B = math.sqrt(2 / math.pi), 0.044715
CLIP = {"none": 40.0, "tanh": 10.0}
NORMAL_CLIP, TANH_CLIP = CLIP["none"], CLIP["tanh"]

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array, approximate: str = "none") -> Array:
    """GELU of every number of `x` (...)."""
    return x * _probability(x, approximate)[0]


def backward_reference(dout: Array, x: Array, approximate: str = "none") -> Array:
    """Gradient of `x` (...) from `dout` (...)."""
    xp = backend.array_module(x)
    probability, slope = _probability(x, approximate)
    return dout * (probability + xp.clip(x, -CLIP[approximate], CLIP[approximate]) * slope)


def _probability(x: Array, approximate: str) -> tuple[Array, Array]:
    """P(x) and P'(x)."""
    xp = backend.array_module(x)
    held = xp.clip(x, -CLIP[approximate], CLIP[approximate])
    if approximate == "tanh":
        t = xp.tanh(A * (held + B * held**3))
        return 0.5 * (1 + t), 0.5 * (1 - t * t) * (A * (1 + 3 * B * held * held))
    # Array modules lack erf. 1 - P(|x|) is exp(-x^2/2) times the ratio explained in vector_math.py.
    bell, size = xp.exp(-0.5 * held * held), xp.abs(held)
    tail = bell * _polynomial(size, DOUBLE.tail_above) / _polynomial(size, DOUBLE.tail_below)
    return xp.where(x < 0, tail, 1 - tail), PEAK * bell


def _polynomial(x: Array, coefficients: tuple) -> Array:
    value = float(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + float(coefficient)
    return value


# ------------------------------------------------------------------------------- fast twin
#
# One pass over memory, in parts that run in parallel, with functions made of plain arithmetic
# (vector_math.py), so that each loop works on whole vectors. For the second form, (1 + tanh(u)) / 2
# is sigmoid(2u), whose digits are not lost where it is small.


def forward_fast(x: Array, approximate: str = "none") -> Array:
    out = np.empty(x.shape, x.dtype)
    forward = _erf_forward if approximate == "none" else _tanh_forward
    forward(flat(x), out.reshape(-1))
    return out


def backward_fast(dout: Array, x: Array, approximate: str = "none") -> Array:
    dx = np.empty(x.shape, x.dtype)
    backward = _erf_backward if approximate == "none" else _tanh_backward
    backward(flat(dout), flat(x), dx.reshape(-1))
    return dx


@jit(**INLINE)
def erf_both(x, peak, clip):
    """GELU of one number and its derivative; the constants are given in its dtype."""
    probability, bell = normal(x)
    held = min(clip, max(-clip, x))
    return x * probability, probability + held * (peak * bell)


@jit(**INLINE)
def tanh_both(x, one, twice_a, b, clip):
    """The same for approximate="tanh"."""
    s = sigmoid(twice_a * x * (one + b * x * x))
    held = min(clip, max(-clip, x))
    return x * s, s + held * (s * (one - s) * (twice_a * (one + (b + b + b) * held * held)))


@jit(forceinline=True)
def _erf_forward_part(x, out):
    for i in range(x.size):
        out[i] = x[i] * normal(x[i])[0]


@jit(forceinline=True)
def _erf_backward_part(dout, x, dx):
    peak, clip = x.dtype.type(PEAK), x.dtype.type(NORMAL_CLIP)
    for i in range(x.size):
        dx[i] = dout[i] * erf_both(x[i], peak, clip)[1]


@jit(forceinline=True)
def _tanh_forward_part(x, out):
    number = x.dtype.type
    one, twice_a, b = number(1), number(2 * A), number(B)
    for i in range(x.size):
        out[i] = x[i] * sigmoid(twice_a * x[i] * (one + b * x[i] * x[i]))


@jit(forceinline=True)
def _tanh_backward_part(dout, x, dx):
    number = x.dtype.type
    one, twice_a, b, clip = number(1), number(2 * A), number(B), number(TANH_CLIP)
    for i in range(x.size):
        dx[i] = dout[i] * tanh_both(x[i], one, twice_a, b, clip)[1]


@jit(parallel=True)
def _erf_forward(x, out):
    if x.size < 2 * PART:
        _erf_forward_part(x, out)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _erf_forward_part(x[i:j], out[i:j])


@jit(parallel=True)
def _erf_backward(dout, x, dx):
    if x.size < 2 * PART:
        _erf_backward_part(dout, x, dx)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _erf_backward_part(dout[i:j], x[i:j], dx[i:j])


@jit(parallel=True)
def _tanh_forward(x, out):
    if x.size < 2 * PART:
        _tanh_forward_part(x, out)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _tanh_forward_part(x[i:j], out[i:j])


@jit(parallel=True)
def _tanh_backward(dout, x, dx):
    if x.size < 2 * PART:
        _tanh_backward_part(dout, x, dx)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _tanh_backward_part(dout[i:j], x[i:j], dx[i:j])


# ---------------------------------------------------------------------------------- public


def forward(x: Array, approximate: str = "none") -> Array:
    """GELU of every number of `x` (...), float32 or float64; `approximate` is "none" or "tanh".

    Raises `InputError` for another `approximate`.
    """
    check_name(approximate)
    return forward_fast(x, approximate) if backend.fast(x) else forward_reference(x, approximate)


def backward(dout: Array, x: Array, approximate: str = "none") -> Array:
    """Gradient of `forward`'s input; `dout` and the input `x` are (...)."""
    check_name(approximate)
    if backend.fast(dout, x):
        return backward_fast(dout, x, approximate)
    return backward_reference(dout, x, approximate)


def check_name(approximate: str) -> None:
    """Raise `InputError` for the name of a GELU that there is none of."""
    if approximate not in CLIP:
        raise InputError(f"GELU's approximate is {approximate!r}; it is 'none' or 'tanh'")
