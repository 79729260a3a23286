"""Logarithm of the softmax over the last axis: log-probabilities without a detour through zero.

    y_i = x_i - m - log sum_j exp(x_j - m),        m = max_j x_j

log(softmax(x)) computed in two steps gives -inf as soon as a probability is too small for its dtype;
in one step it is exact to rounding for any finite x.

Derivative. dy_i/dx_j = 1[i = j] - softmax(x)_j, and softmax(x) = exp(y), so

    dx_j = dout_j - exp(y_j) sum_i dout_i

Shapes: x, y, dout, dx (..., N). Source: the logarithm of softmax.py's formula.
"""

from __future__ import annotations

from minillm import backend
from minillm.backend import Array

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array) -> Array:
    """Log-softmax of `x` (..., N) over its last axis."""
    xp = backend.array_module(x)
    if x.size == 0:  # no maximum to take
        return xp.empty_like(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


def backward_reference(dout: Array, y: Array) -> Array:
    """Gradient of the input from the gradient of the output and the output `y`, all (..., N)."""
    xp = backend.array_module(dout, y)
    return dout - xp.exp(y) * dout.sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------------------------- public


def forward(x: Array) -> Array:
    """Log-softmax over the last axis.

    `x`: (..., N), float32 or float64. Returns the same shape and dtype.
    """
    return forward_reference(x)


def backward(dout: Array, y: Array) -> Array:
    """Gradient of `forward`'s input; `dout` and the forward's result `y` are (..., N)."""
    return backward_reference(dout, y)
