"""Matrix product:  out[..., i, j] = sum_k a[..., i, k] * b[..., k, j].

Shapes: a (..., M, K), b (..., K, N), out (..., M, N); the leading axes broadcast.

Derivative. `out` is linear in each factor. Writing the loss's change as sum(dout * dout_of(da)),

    sum_ij dout[i,j] * (da @ b)[i,j]  =  sum_ik da[i,k] * (dout @ b^T)[i,k],

so the gradient of a is dout @ b^T, and in the same way the gradient of b is a^T @ dout. Where a
leading axis was broadcast, its gradient is summed over that axis.
"""

from __future__ import annotations

from minillm import backend
from minillm.backend import Array


def forward_reference(a: Array, b: Array) -> Array:
    """a @ b, as the array module computes it."""
    xp = backend.array_module(a)
    return xp.matmul(a, b)


def backward_reference(dout: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients of `a` and `b`: dout @ b^T and a^T @ dout, summed over broadcast axes."""
    xp = backend.array_module(dout)
    da = xp.matmul(dout, xp.swapaxes(b, -1, -2))
    db = xp.matmul(xp.swapaxes(a, -1, -2), dout)
    return sum_to(da, a.shape), sum_to(db, b.shape)


def sum_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """`gradient` summed over the axes along which an array of `shape` was broadcast."""
    lead = gradient.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        lead + axis
        for axis, size in enumerate(shape)
        if size == 1 and gradient.shape[lead + axis] != 1
    )
    return gradient.sum(axis=axes).reshape(shape) if axes else gradient


def product(a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
    """a @ b, written to `out` or, with `accumulate`, added to it."""
    xp = backend.array_module(a)
    if out is None:
        return xp.matmul(a, b)
    if accumulate:
        out += xp.matmul(a, b)
    else:
        out[...] = xp.matmul(a, b)
    return out


def forward(a: Array, b: Array) -> Array:
    """Matrix product over the last two axes; leading axes broadcast.

    a (..., M, K), b (..., K, N) of one floating dtype, any strides. Returns (..., M, N).
    """
    return product(a, b)


def backward(dout: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients of `a` and `b` for the upstream gradient dout (..., M, N)."""
    return backward_reference(dout, a, b)
