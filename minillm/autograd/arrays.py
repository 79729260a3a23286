"""What the operations ask of plain arrays: kept shapes, clean indices, whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.errors import InputError
from minillm.kernels.bfloat16 import BFLOAT16


def kept_shape(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """`shape` after a reduction over `axis` (None, one or several) that keeps length-one axes."""
    if axis is None:
        return (1,) * len(shape)
    reduced = {one % len(shape) for one in ((axis,) if isinstance(axis, int) else axis)}
    return tuple(1 if i in reduced else length for i, length in enumerate(shape))


def plain_index(index: Any) -> tuple[Any, ...]:
    """An index as a tuple of plain parts, its arrays copied so that nobody changes them later."""
    return tuple(_plain(part) for part in (index if isinstance(index, tuple) else (index,)))


def _plain(part: Any) -> Any:
    if isinstance(part, np.integer):
        return int(part)
    if isinstance(part, list | tuple | range):
        part = np.asarray(part)
        part = part if part.size else part.astype(np.int64)
    return backend.module().array(getattr(part, "array", part)) if hasattr(part, "dtype") else part


def picks(index: tuple[Any, ...]) -> bool:
    """Whether an index picks elements by arrays, so that its result is a copy and not a view."""
    return any(hasattr(part, "dtype") for part in index)


def may_repeat(index: tuple[Any, ...]) -> bool:
    """Whether an index can name an element twice, as arrays of integers can."""
    return any(hasattr(part, "dtype") and part.dtype.kind in "iu" for part in index)


def integers(values: Any) -> Array:
    """Token ids, as an int64 copy that nobody changes before the backward pass.

    One dtype for all, so that kernels are compiled once. Raises `InputError` for anything but whole
    numbers.
    """
    array = backend.module().asarray(getattr(values, "array", values))
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"token ids are whole numbers, but these are {array.dtype}")
    if array.size and array.dtype == np.uint64 and int(array.max()) >= 1 << 63:
        raise InputError(f"token ids are small numbers, but one is {int(array.max())}")
    return array.astype(np.int64)


def check_range(ids: Array, vocab_size: int, name: str) -> None:
    """Raise `InputError` unless every id, from `integers`, is one of 0 ... vocab_size - 1."""
    if are_below(ids, vocab_size):
        return
    low, high = int(ids.min()), int(ids.max())
    raise InputError(
        f"{name} id {low if low < 0 else high}, but the vocabulary holds 0 to {vocab_size - 1}"
    )


def are_below(ids: Array, vocab_size: int) -> bool:
    """Whether all ids, from `integers`, are 0 ... vocab_size - 1: without a sign, -1 is huge."""
    return ids.size == 0 or int(ids.view(np.uint64).max()) < vocab_size


def check_linear(
    x: Array, weight: Array, bias: Array | None = None, residual: Array | None = None
) -> None:
    """Raise `InputError` unless x (..., K), weight (N, K), bias (N,), residual (..., N) fit.

    The kernels trust the shapes: they would read beyond the end of an array that is too short.
    """
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise InputError(
            f"linear takes x (..., K) and weight (N, K), but x is {x.shape}"
            f" and weight {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InputError(
            f"linear with a weight (N, K) of {weight.shape} takes a bias (N,),"
            f" but it is {bias.shape}"
        )
    if residual is not None and residual.shape != (*x.shape[:-1], len(weight)):
        raise InputError(
            f"linear with an output of {(*x.shape[:-1], len(weight))} takes a residual of the same"
            f" shape, but it is {residual.shape}"
        )


def check_feed_forward(
    x: Array,
    up: Array,
    up_bias: Array | None,
    down: Array,
    down_bias: Array | None,
    residual: Array | None,
) -> None:
    """Raise `InputError` unless the arrays of `functional.feed_forward` fit together."""
    check_linear(x, up, up_bias)
    if down.ndim != 2 or down.shape[1] != len(up):
        raise InputError(
            f"feed_forward takes up (F, C) and down (C, F), not {up.shape} and {down.shape}"
        )
    if down.dtype != up.dtype or x.dtype not in (up.dtype, BFLOAT16):
        raise InputError(
            "feed_forward takes x, up and down of one dtype, or x in bfloat16;"
            f" these are {x.dtype}, {up.dtype} and {down.dtype}"
        )
    if (up_bias is None) != (down_bias is None):
        raise InputError("feed_forward takes a bias for both of its products, or for neither")
    out = (*x.shape[:-1], len(down))
    for name, array, shape in (("down_bias", down_bias, out[-1:]), ("residual", residual, out)):
        if array is not None and array.shape != shape:
            raise InputError(f"feed_forward takes a {name} {shape} here, but it is {array.shape}")


def check_same(op: str, **given: Array) -> None:
    """Raise `InputError` unless all arrays have one shape and one dtype."""
    one, *others = given.values()
    if any(other.shape != one.shape or other.dtype != one.dtype for other in others):
        kinds = ", ".join(f"{name} {x.dtype} {x.shape}" for name, x in given.items())
        raise InputError(f"{op} takes arrays of one shape and dtype, but these are {kinds}")


def check_norm(op: str, x: Array, **given: Array | None) -> None:
    """Raise `InputError` unless x is (..., C) and what is given for its channels is (C,)."""
    for name, array in given.items():
        if array is not None and array.shape != x.shape[-1:]:
            raise InputError(
                f"{op} of x (..., C) takes a {name} (C,), but x is {x.shape}"
                f" and the {name} {array.shape}"
            )


def power_gradients(dout: Array, a: Array, b: Array, out: Array) -> tuple[Array, Array]:
    """d a**b = b a**(b-1) da + a**b log(a) db; where a <= 0 the second term is taken as 0."""
    xp = backend.array_module(a)
    positive = a > 0
    log_a = xp.log(xp.where(positive, a, 1))
    slope = xp.where(b == 0, 0, b * a ** xp.where(b == 0, 1, b - 1))
    return dout * slope, xp.where(positive, dout * out * log_a, 0)
