"""SiLU (also called swish): a number times its own sigmoid.

    out = x s,      s = 1 / (1 + exp(-x))

Derivative. ds/dx = s (1 - s), and so

    dx = dout (s + x s (1 - s)) = dout s (1 + x (1 - s))

which is 1 for large x and 0 for very negative x. There the product of a huge x and a vanished
factor is meant; x is held within +-CLIP, beyond which nothing changes any more, so that infinity
times 0 does not arise.

Shapes: all (...). Source: Hendrycks and Gimpel 2016, "Gaussian error linear units", section 2;
Elfwing et al. 2017, "Sigmoid-weighted linear units".
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, flat
from minillm.kernels.vector_math import sigmoid

CLIP = 800.0  # exp(-800) is 0 in float64

# ------------------------------------------------------------------------------- reference


def sigmoid_reference(x: Array) -> Array:
    """1 / (1 + exp(-x)) from the exponential that cannot overflow, for every number of `x`."""
    xp = backend.array_module(x)
    small = xp.exp(-xp.abs(x))
    return xp.where(x > 0, xp.ones_like(x), small) / (1 + small)


def forward_reference(x: Array) -> Array:
    """x sigmoid(x) for every number of `x` (...)."""
    return x * sigmoid_reference(x)


def backward_reference(dout: Array, x: Array) -> Array:
    """Gradient of `x` (...) from `dout` (...)."""
    xp = backend.array_module(x)
    s = sigmoid_reference(x)
    return dout * (s * (1 + xp.clip(x, -CLIP, CLIP) * (1 - s)))


# ------------------------------------------------------------------------------- fast twin
#
# One pass over memory, in parts that run in parallel, with a sigmoid made of plain arithmetic
# (vector_math.py), so that each loop works on whole vectors.


def forward_fast(x: Array) -> Array:
    out = np.empty(x.shape, x.dtype)
    _forward(flat(x), out.reshape(-1))
    return out


def backward_fast(dout: Array, x: Array) -> Array:
    dx = np.empty(x.shape, x.dtype)
    _backward(flat(dout), flat(x), dx.reshape(-1))
    return dx


@jit(forceinline=True)
def _forward_part(x, out):
    for i in range(x.size):
        out[i] = x[i] * sigmoid(x[i])


@jit(parallel=True)
def _forward(x, out):
    if x.size < 2 * PART:
        _forward_part(x, out)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _forward_part(x[i:j], out[i:j])


@jit(forceinline=True)
def slope(x, s):
    """The derivative at the number `x`, whose sigmoid is `s`."""
    one, most = type(x)(1), type(x)(CLIP)
    return s * (one + min(most, max(-most, x)) * (one - s))


@jit(forceinline=True)
def _backward_part(dout, x, dx):
    for i in range(x.size):
        dx[i] = dout[i] * slope(x[i], sigmoid(x[i]))


@jit(parallel=True)
def _backward(dout, x, dx):
    if x.size < 2 * PART:
        _backward_part(dout, x, dx)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _backward_part(dout[i:j], x[i:j], dx[i:j])


# ---------------------------------------------------------------------------------- public


def forward(x: Array) -> Array:
    """x sigmoid(x) for every number of `x` (...), float32 or float64."""
    return forward_fast(x) if backend.fast(x) else forward_reference(x)


def backward(dout: Array, x: Array) -> Array:
    """Gradient of `forward`'s input; `dout` and the input `x` are (...)."""
    return backward_fast(dout, x) if backend.fast(dout, x) else backward_reference(dout, x)
