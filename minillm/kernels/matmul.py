"""Matrix product:  out[..., i, j] = sum_k a[..., i, k] * b[..., k, j].

Shapes: a (..., M, K), b (..., K, N), out (..., M, N); the leading axes broadcast.

Derivative. `out` is linear in each factor. A change da of a changes the loss by

    sum_ij dout[i,j] (da @ b)[i,j]  =  sum_ik da[i,k] (dout @ b^T)[i,k],

so the gradient of a is dout @ b^T, and in the same way the gradient of b is a^T @ dout. Where a
leading axis was broadcast, its gradient is summed over that axis.

Speed: tile.py, packing.py and blocking.py, read in this order, are the fast twin from the inside
out; few_rows.py is the one for a few rows. examples/09_fast_matmul.py walks there from three loops.
"""

from __future__ import annotations

import math

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.errors import InputError
from minillm.kernels import blocking, few_rows
from minillm.kernels.bfloat16 import BFLOAT16, raw, round_to_bfloat16, widen
from minillm.kernels.epilogue import Epilogue, finish_all, finish_reference, fitted
from minillm.kernels.layout import sum_to
from minillm.kernels.processor import WORD

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
NAMES = {FLOAT32: "float32", FLOAT64: "float64"}  # of what is not rounded

# ------------------------------------------------------------------------------- reference


def forward_reference(a: Array, b: Array) -> Array:
    """a @ b, as the array module computes it."""
    xp = backend.array_module(a)
    return xp.matmul(a, b)


def product_reference(a: Array, b: Array, bfloat16: bool) -> Array:
    """a @ b; with `bfloat16`, of operands rounded to it, summed in float32."""
    return forward_reference(rounded(a), rounded(b)) if bfloat16 else forward_reference(a, b)


def rounded(x: Array) -> Array:
    """`x`, of one axis or more, as float32 with the precision of bfloat16."""
    return x.astype(FLOAT32) if x.dtype == BFLOAT16 else widen(round_to_bfloat16(x))


def backward_reference(dout: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients of `a` and `b`: dout @ b^T and a^T @ dout, summed over broadcast axes."""
    xp = backend.array_module(dout)
    da = xp.matmul(dout, xp.swapaxes(b, -1, -2))
    db = xp.matmul(xp.swapaxes(a, -1, -2), dout)
    return sum_to(da, a.shape), sum_to(db, b.shape)


# ------------------------------------------------------------------------------- the product


def product(
    a: Array,
    b: Array,
    out: Array | None = None,
    accumulate: bool = False,
    bfloat16: bool = False,
    end: Epilogue | None = None,
) -> Array:
    """a @ b over the last two axes, leading axes broadcast; written or added to `out`.

    a (..., M, K), b (..., K, N), any strides; float32, float64 or bfloat16 (ml_dtypes). The result
    (..., M, N) has their dtype; with bfloat16 operands, float32, in which they are summed.
    out: where to put it, not overlapping a or b. accumulate: add it to what `out` holds.
    bfloat16: round float32 operands to bfloat16, for the speed of its products.
    end: what to do to the result while it is in cache (epilogue.py); not with accumulate.
    Raises `InputError` for shapes that do not fit.
    """
    shape = _shape(a, b, out)
    if accumulate and end is not None:
        raise InputError("a product that is added to `out` has no end of its own")
    halved = bfloat16 or BFLOAT16 in (a.dtype, b.dtype)
    if halved and FLOAT64 in (a.dtype, b.dtype):
        raise InputError(
            f"{a.dtype} times {b.dtype}: no precision serves both; convert one of them"
        )
    if not _has_twin(halved, a, b) or not backend.fast(a, b, a if out is None else out):
        result = product_reference(a, b, halved)
        return _put(result if end is None else finish_reference(result, end), out, accumulate)
    dtype = FLOAT32 if halved else np.result_type(a, b)
    into: Array = out
    if out is None or not out.flags.c_contiguous or out.dtype != dtype:
        into = np.empty(shape, dtype)
    add = accumulate and into is out
    if a.shape[-1] == 0 and not add:
        into[...] = 0
    if into.size:
        a, b = _stacks(_numbers(a, dtype), _numbers(b, dtype))
        stack = into.reshape(len(a), a.shape[1], b.shape[2])
        _run(a, b, stack, add, WORD if halved else NAMES[dtype], fitted(end, stack))
    return into if out is None or into is out else _put(into, out, accumulate)


def _run(a: Array, b: Array, out: Array, add: bool, packed: str, end: Epilogue) -> None:
    """out (n, M, N) = or += a (n, M, K) @ b (n, K, N), then `end`, by the twin for these shapes."""
    if a.shape[2] and not few_rows.suits(a, b):
        blocking.product_fast(a, b, out, add, packed, end)
        return
    if a.shape[2]:
        few_rows.product_fast(a, b, out, add, packed)
    if end.kind or end.bias.size:
        finish_all(out, end)


def _shape(a: Array, b: Array, out: Array | None) -> tuple[int, ...]:
    """The shape of a @ b, checked."""
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise InputError(
            f"a product needs shapes (.., M, K) and (.., K, N), not {a.shape} and {b.shape}"
        )
    lead = a.shape[:-2] if b.ndim == 2 else np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*lead, a.shape[-2], b.shape[-1])
    if out is not None and out.shape != shape:
        raise InputError(f"the product has shape {shape}, but out has {out.shape}")
    return shape


def _has_twin(halved: bool, a: Array, b: Array) -> bool:
    """Whether the fast twin takes the dtypes of a and b."""
    known = (FLOAT32, BFLOAT16) if halved else NAMES
    return a.dtype in known and b.dtype in known


def _numbers(array: Array, dtype: np.dtype) -> Array:
    """`array` as the twin takes it: of `dtype`, or the bits of bfloat16."""
    return raw(array) if array.dtype in (dtype, BFLOAT16) else array.astype(dtype)


def _stacks(a: Array, b: Array) -> tuple[Array, Array]:
    """a and b as stacks of equally many matrices: (n, M, K) and (n, K, N)."""
    if b.ndim == 2:  # the same b for all rows of a: one product
        rows = a if a.ndim == 2 else a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return rows[None], b[None]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    n = math.prod(lead)
    return a.reshape(n, *a.shape[-2:]), b.reshape(n, *b.shape[-2:])


def _put(result: Array, out: Array | None, accumulate: bool) -> Array:
    """`result`, or `out` with `result` put into it or added."""
    if out is None:
        return result
    out[...] = out + result if accumulate else result
    return out


def forward(a: Array, b: Array) -> Array:
    """Matrix product over the last two axes; leading axes broadcast. See `product`.

    >>> forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0], [10.0]]))
    array([[21.],
           [43.]])
    """
    return product(a, b)


def backward(
    dout: Array, a: Array, b: Array, wanted: tuple[bool, bool] = (True, True)
) -> tuple[Array | None, Array | None]:
    """Gradients of a (..., M, K) and b (..., K, N) for the upstream gradient dout (..., M, N).

    None stands for one that, as `wanted` says, nobody needs.
    """
    da = db = None
    if wanted[0]:
        da = sum_to(product(dout, b.swapaxes(-1, -2)), a.shape)
    if wanted[1] and b.ndim == 2:  # one product over all rows, instead of one a matrix and a sum
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        db = product(rows.T, dout.reshape(len(rows), dout.shape[-1]))
    elif wanted[1]:
        db = sum_to(product(a.swapaxes(-1, -2), dout), b.shape)
    return da, db
