"""Linear layer:  out = x @ weight^T + bias, or that plus a residual connection.

Shapes: x (..., K), weight (N, K) as in PyTorch, bias (N,), residual and out (..., N); bias and
residual may be None.

Derivative (see matmul.py), with the leading axes of x and dout flattened to rows:

    dx = dout @ weight,      dweight = dout^T @ x,      dbias = sum of the rows of dout,

and the gradient of the residual is dout itself.

With `backend.precision("bfloat16")` the three products round their operands to bfloat16 and sum in
float32; the bias, its gradient and the output stay float32; x may itself be stored in bfloat16.
"""

from __future__ import annotations

import math

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.epilogue import ADD, epilogue
from minillm.kernels.layer_norm import MOST_CHUNKS, add_up
from minillm.kernels.layout import rows
from minillm.kernels.matmul import product, product_reference

Wanted = tuple[bool, bool]  # whether the gradients of x and of weight are
Gradients = tuple[Array | None, Array | None, Array | None]

# ------------------------------------------------------------------------------- reference


def forward_reference(
    x: Array, weight: Array, bias: Array | None = None, residual: Array | None = None
) -> Array:
    """x @ weight^T + bias + residual, as array expressions."""
    out = product_reference(x, weight.T, backend.bfloat16_products(x, weight))
    out = out if bias is None else out + bias
    return out if residual is None else out + residual


def backward_reference(
    dout: Array, x: Array, weight: Array, with_bias: bool, wanted: Wanted = (True, True)
) -> Gradients:
    """Gradients of x, weight and bias; None for those that nobody wants."""
    halved = backend.bfloat16_products(dout, x, weight)
    flat = dout.reshape(math.prod(dout.shape[:-1]), weight.shape[0])
    dx = dweight = None
    if wanted[0]:
        dx = product_reference(flat, weight, halved).reshape(x.shape)
    if wanted[1]:
        dweight = product_reference(flat.T, x.reshape(len(flat), weight.shape[1]), halved)
    return dx, dweight, flat.sum(axis=0) if with_bias else None


# ------------------------------------------------------------------------------- fast twin
#
# The products are matmul.py's, which adds the bias and the residual on the way (epilogue.py). What
# is left is a pass over dout (rows, N) that sums the gradient of the bias. Chunks of rows are
# summed in parallel, each as it lies in memory, and then the chunks in order; as in layer_norm.py,
# there are as many of them as the number of rows asks for, whatever the number of threads.


def forward_fast(
    x: Array, weight: Array, bias: Array | None = None, residual: Array | None = None
) -> Array:
    flat = x.reshape(math.prod(x.shape[:-1]), weight.shape[1])
    end = epilogue(bias) if residual is None else epilogue(bias, ADD, residual)
    out = product(flat, weight.T, bfloat16=backend.bfloat16_products(x, weight), end=end)
    return out.reshape(*x.shape[:-1], len(weight))


def backward_fast(
    dout: Array, x: Array, weight: Array, with_bias: bool, wanted: Wanted = (True, True)
) -> Gradients:
    halved = backend.bfloat16_products(dout, x, weight)
    flat = dout.reshape(math.prod(dout.shape[:-1]), weight.shape[0])
    dx = dweight = None
    if wanted[0]:
        dx = product(flat, weight, bfloat16=halved).reshape(x.shape)
    if wanted[1]:
        dweight = product(flat.T, x.reshape(len(flat), weight.shape[1]), bfloat16=halved)
    return dx, dweight, sum_of_rows(flat) if with_bias else None


def sum_of_rows(x: Array) -> Array:
    """The sum (N,) of the rows of `x` (rows, N)."""
    total = np.zeros(x.shape[1], x.dtype)
    if x.size:
        _sum_rows(rows(x), total)
    return total


SUMMED = 64  # rows that one task sums: so many that the partial sums cost little


@jit(parallel=True)
def _sum_rows(x, total):
    count = x.shape[0]
    chunks = min(MOST_CHUNKS, (count + SUMMED - 1) // SUMMED)
    if chunks == 1:
        _add_rows(x, total)
    else:
        parts = np.zeros((chunks, total.size), x.dtype)
        for chunk in prange(chunks):
            _add_rows(x[chunk * count // chunks : (chunk + 1) * count // chunks], parts[chunk])
        add_up(parts, total)


@jit(forceinline=True)
def _add_rows(x, total):
    """Add the rows of `x` to `total`, which is read and written once for four of them."""
    fours = x.shape[0] // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(total.size):
            total[j] += (a[j] + b[j]) + (c[j] + d[j])
    for i in range(fours, x.shape[0]):
        row = x[i]
        for j in range(total.size):
            total[j] += row[j]


# ---------------------------------------------------------------------------------- public


def forward(
    x: Array, weight: Array, bias: Array | None = None, residual: Array | None = None
) -> Array:
    """x (..., K) times the transposed weight (N, K), plus bias (N,), plus residual (..., N)."""
    if backend.fast(x, weight):
        return forward_fast(x, weight, bias, residual)
    return forward_reference(x, weight, bias, residual)


def backward(
    dout: Array, x: Array, weight: Array, with_bias: bool, wanted: Wanted = (True, True)
) -> Gradients:
    """Gradients (dx, dweight, dbias) for the upstream gradient dout (..., N).

    None stands for dbias without a bias, and for dx or dweight where `wanted` says that nobody
    needs it: a frozen layer costs half.
    """
    if backend.fast(dout, x, weight):
        return backward_fast(dout, x, weight, with_bias, wanted)
    return backward_reference(dout, x, weight, with_bias, wanted)
