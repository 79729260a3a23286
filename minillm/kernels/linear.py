"""Linear layer:  out = x @ weight^T + bias.

Shapes: x (..., K), weight (N, K) as in PyTorch, bias (N,) or None, out (..., N).

Derivative (see matmul.py), with the leading axes of x and dout flattened to rows:

    dx = dout @ weight,      dweight = dout^T @ x,      dbias = sum of the rows of dout.
"""

from __future__ import annotations

from minillm import backend
from minillm.backend import Array


def forward_reference(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight^T + bias, as array expressions."""
    xp = backend.array_module(x)
    out = xp.matmul(x, weight.T)
    return out if bias is None else out + bias


def backward_reference(
    dout: Array, x: Array, weight: Array, with_bias: bool
) -> tuple[Array, Array, Array | None]:
    """Gradients of x, weight and bias (None without one)."""
    xp = backend.array_module(dout)
    rows = dout.reshape(-1, weight.shape[0])
    dx = xp.matmul(dout, weight)
    dweight = xp.matmul(rows.T, x.reshape(-1, weight.shape[1]))
    return dx, dweight, rows.sum(axis=0) if with_bias else None


def forward(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x (..., K) times the transposed weight (N, K), plus bias (N,) where there is one: (..., N)."""
    return forward_reference(x, weight, bias)


def backward(
    dout: Array, x: Array, weight: Array, with_bias: bool
) -> tuple[Array, Array, Array | None]:
    """Gradients (dx, dweight, dbias or None) for the upstream gradient dout (..., N)."""
    return backward_reference(dout, x, weight, with_bias)
