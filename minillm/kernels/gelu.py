"""GELU: each number times the probability that a standard normal one lies below it.

    gelu(x)  = x Phi(x),                Phi(x) = (1 + erf(x / sqrt 2)) / 2
    gelu'(x) = Phi(x) + x phi(x),       phi(x) = exp(-x^2 / 2) / sqrt(2 pi)

GPT-2 was trained with an approximation by tanh, close enough to look the same and different enough
that weights want the one they were trained with:

    gelu(x)  ~ x s,   s = (1 + tanh u) / 2,   u = sqrt(2 / pi) (x + 0.044715 x^3)
    gelu'(x) ~ s + 2 x s (1 - s) u',          u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)

For large |x| the slope is exactly 0 or 1: the other terms are products with a factor that has
underflowed to 0, and x is kept from overflowing before it meets them.

Shapes: all (...). Source: Hendrycks and Gimpel 2016, "Gaussian error linear units", section 2.
"""

from __future__ import annotations

import math

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.errors import InputError
from minillm.jit import jit, prange
from minillm.kernels.vector_math import DOUBLE, SINGLE, erf, exp, sigmoid

SQRT_HALF = math.sqrt(0.5)
PHI_SCALE = 1 / math.sqrt(2 * math.pi)
TANH_SCALE, CUBE = math.sqrt(2 / math.pi), 0.044715
FLAT = 40.0  # beyond it, exp(-x^2 / 2) and the tails of tanh are 0 even in float64

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array, approximate: str = "none") -> Array:
    """GELU of `x` (...): exact, or with `approximate="tanh"` as GPT-2 has it."""
    return x * _share(x, approximate)


def backward_reference(dout: Array, x: Array, approximate: str = "none") -> Array:
    """Gradient of `x` (...)."""
    xp = backend.array_module(x)
    share, near = _share(x, approximate), xp.clip(x, -FLAT, FLAT)
    if approximate == "tanh":
        slope = 2 * TANH_SCALE * (1 + 3 * CUBE * near * near)
        return dout * (share + near * share * (1 - share) * slope)
    return dout * (share + near * (PHI_SCALE * xp.exp(-0.5 * near * near)))


def _share(x: Array, approximate: str) -> Array:
    """What `x` is multiplied by: Phi(x) or its approximation."""
    xp = backend.array_module(x)
    if approximate == "tanh":
        near = xp.clip(x, -FLAT, FLAT)
        return 0.5 * (1 + xp.tanh(TANH_SCALE * (near + CUBE * near**3)))
    return 0.5 * (1 + _erf(x * SQRT_HALF))


def _erf(x: Array) -> Array:
    """The error function, which array modules lack: the formulas of vector_math.py on arrays."""
    xp = backend.array_module(x)
    c = SINGLE if x.dtype == np.float32 else DOUBLE
    size = xp.minimum(xp.abs(x), c.erf_most)  # beyond, it is +-1 to rounding
    square = size * size
    series = size * _polynomial(square, c.erf_series)
    ratio = _polynomial(size, c.erf_tail_above) / _polynomial(size, c.erf_tail_below)
    return xp.sign(x) * xp.where(size < c.erf_middle, series, 1 - xp.exp(-square) * ratio)


def _polynomial(x: Array, coefficients: tuple) -> Array:
    value = x * 0 + coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


# ------------------------------------------------------------------------------- fast twin
#
# One pass over memory, in parallel parts. erf and the exponentials are plain arithmetic
# (vector_math.py), so a part is computed in whole vectors. (1 + tanh u) / 2 is sigmoid(2u).

PART = 1 << 13


def forward_fast(x: Array, approximate: str = "none") -> Array:
    out = np.empty(x.shape, x.dtype)
    _forward_parts(np.ascontiguousarray(x).reshape(-1), out.reshape(-1), approximate == "tanh")
    return out


def backward_fast(dout: Array, x: Array, approximate: str = "none") -> Array:
    dx = np.empty(x.shape, x.dtype)
    flat = [np.ascontiguousarray(array).reshape(-1) for array in (dout, x)]
    _backward_parts(*flat, dx.reshape(-1), approximate == "tanh")
    return dx


@jit(reads=("x",), parallel=True)
def _forward_parts(x, out, by_tanh):
    for part in prange((x.size + PART - 1) // PART):
        start, stop = part * PART, min((part + 1) * PART, x.size)
        if by_tanh:
            _forward_tanh(x[start:stop], out[start:stop])
        else:
            _forward_erf(x[start:stop], out[start:stop])


@jit
def _forward_erf(x, out):
    half, one, scale = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(SQRT_HALF)
    for i in range(x.size):
        out[i] = x[i] * (half * (one + erf(x[i] * scale)))


@jit
def _forward_tanh(x, out):
    for i in range(x.size):
        out[i] = x[i] * _tanh_share(x[i], x.dtype.type(2 * TANH_SCALE), x.dtype.type(CUBE))


@jit
def _tanh_share(x, scale, cube):
    return sigmoid(scale * (x + cube * (x * x * x)))


@jit(reads=("dout", "x"), parallel=True)
def _backward_parts(dout, x, dx, by_tanh):
    for part in prange((x.size + PART - 1) // PART):
        start, stop = part * PART, min((part + 1) * PART, x.size)
        if by_tanh:
            _backward_tanh(dout[start:stop], x[start:stop], dx[start:stop])
        else:
            _backward_erf(dout[start:stop], x[start:stop], dx[start:stop])


@jit
def _backward_erf(dout, x, dx):
    half, one, scale = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(SQRT_HALF)
    most, phi_scale = x.dtype.type(FLAT), x.dtype.type(PHI_SCALE)
    for i in range(x.size):
        near = _near(x[i], most)
        share = half * (one + erf(x[i] * scale))
        dx[i] = dout[i] * (share + near * (phi_scale * exp(-half * (near * near))))


@jit
def _backward_tanh(dout, x, dx):
    one, most = x.dtype.type(1), x.dtype.type(FLAT)
    scale, cube = x.dtype.type(2 * TANH_SCALE), x.dtype.type(CUBE)
    for i in range(x.size):
        near = _near(x[i], most)
        share = _tanh_share(near, scale, cube)
        slope = scale * (one + x.dtype.type(3) * cube * (near * near))
        dx[i] = dout[i] * (share + near * (share * (one - share)) * slope)


@jit
def _near(x, most):
    """`x` brought into [-most, most]; NaN stays."""
    return most if x > most else (-most if x < -most else x)


# ---------------------------------------------------------------------------------- public


def forward(x: Array, approximate: str = "none") -> Array:
    """GELU of `x` (...), float32 or float64.

    `approximate` is "none" (exact, by erf) or "tanh". Raises `InputError` for anything else.
    """
    _check(approximate)
    return forward_fast(x, approximate) if backend.fast(x) else forward_reference(x, approximate)


def backward(dout: Array, x: Array, approximate: str = "none") -> Array:
    """Gradient of `forward`'s input `x`; `dout`, `x` (...)."""
    _check(approximate)
    if backend.fast(dout, x):
        return backward_fast(dout, x, approximate)
    return backward_reference(dout, x, approximate)


def _check(approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise InputError(f'approximate is {approximate!r}; it takes "none" or "tanh"')
