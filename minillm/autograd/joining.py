"""Operations that make one tensor out of several, element by element or end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd.tensor import Tensor, as_tensor, record
from minillm.backend import Array


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors joined along an axis that they have."""
    arrays = [tensor.array for tensor in tensors]
    xp = backend.array_module(*arrays)
    ends = [int(end) for end in np.cumsum([array.shape[axis] for array in arrays])]

    def backward(dout: Array) -> list[Array]:
        return xp.split(dout, ends[:-1], axis=axis)

    out = xp.concatenate(arrays, axis=axis)
    return record("concatenate", out, tuple(tensors), backward, saves="nothing")


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors, all of one shape, joined along a new axis."""
    arrays = [tensor.array for tensor in tensors]
    xp = backend.array_module(*arrays)

    def backward(dout: Array) -> list[Array]:
        return list(xp.moveaxis(dout, axis, 0))

    return record("stack", xp.stack(arrays, axis=axis), tuple(tensors), backward, saves="nothing")


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Elements of `a` where `condition` holds, else of `b`; all three broadcast."""
    a, b = _pair(a, b)
    xp = backend.array_module(a.array)
    chosen = xp.array(condition.array if isinstance(condition, Tensor) else condition, dtype=bool)

    def backward(dout: Array) -> tuple[Array, Array]:
        return xp.where(chosen, dout, 0), xp.where(chosen, 0, dout)

    return record("where", xp.where(chosen, a.array, b.array), (a, b), backward, saves="nothing")


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of each two elements; where they tie, each gets half of the gradient."""
    a, b = _pair(a, b)
    x, y = a.array, b.array
    xp = backend.array_module(x)

    def backward(dout: Array) -> tuple[Array, Array]:
        share = (x > y) + (x == y) * xp.asarray(0.5, dtype=dout.dtype)
        return dout * share, dout * (1 - share)

    return record("maximum", xp.maximum(x, y), (a, b), backward, saves="inputs")


def _pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both operands as tensors; a plain number takes the dtype of the other."""
    if isinstance(a, Tensor):
        return a, as_tensor(b, a)
    if isinstance(b, Tensor):
        return as_tensor(a, b), b
    a = Tensor(a)
    return a, as_tensor(b, a)
