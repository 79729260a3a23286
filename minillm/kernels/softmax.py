"""Softmax over the last axis: scores become positive weights that sum to one.

    y_i = exp(x_i - m) / sum_j exp(x_j - m),        m = max_j x_j

Subtracting m changes nothing in exact arithmetic (it cancels) and keeps every exponent at or below
zero, so nothing overflows and the largest term is exactly 1.

Derivative. From log y_i = x_i - log sum_j exp x_j comes dy_i/dx_j = y_i (1[i = j] - y_j), and so

    dx_j = sum_i dout_i dy_i/dx_j = y_j (dout_j - sum_i dout_i y_i)

which needs only the output. A score of -inf is a masked one: weight 0, gradient 0. A row of nothing
but -inf has no answer and is NaN, as in PyTorch.

Shapes: x, y, dout, dx (..., N). Source: Bridle 1990, "Probabilistic interpretation of feedforward
classification network outputs", equation 4.
"""

from __future__ import annotations

from minillm import backend
from minillm.backend import Array

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array) -> Array:
    """Softmax of `x` (..., N) over its last axis."""
    xp = backend.array_module(x)
    if x.size == 0:  # no maximum to take
        return xp.empty_like(x)
    exponentials = xp.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def backward_reference(dout: Array, y: Array) -> Array:
    """Gradient of the input from the gradient of the output and the output `y`, all (..., N)."""
    return y * (dout - (dout * y).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------------------------- public


def forward(x: Array) -> Array:
    """Softmax over the last axis.

    `x`: (..., N), float32 or float64. Returns the same shape and dtype.
    """
    return forward_reference(x)


def backward(dout: Array, y: Array) -> Array:
    """Gradient of `forward`'s input; `dout` and the forward's result `y` are (..., N)."""
    return backward_reference(dout, y)
