"""What the operations ask of plain arrays: kept shapes, clean indices, whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.errors import InputError
from minillm.kernels.bfloat16 import BFLOAT16
from minillm.kernels.matmul import FLOAT32, FLOAT64

FLOATS = (FLOAT32, FLOAT64)


def kept_shape(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """`shape` after a reduction over `axis` (None, one or several) that keeps length-one axes.

    A number has no axes, but like NumPy's functions it may be reduced over axis 0.
    """
    if axis is None or not shape:
        return (1,) * len(shape)
    reduced = {one % len(shape) for one in (axis if isinstance(axis, tuple) else (axis,))}
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


def check_numbers(op: str, *given: Array, along_axis: bool = False, stored: bool = False) -> None:
    """Raise `InputError` unless all are float32 or float64, or with `stored` bfloat16.

    Kernels would not be compiled for other types, or would round every step to them. `along_axis`:
    they need an axis to work along.
    """
    for x in given:
        if x.dtype not in FLOATS and not (stored and x.dtype == BFLOAT16):
            known = "float32, float64 or bfloat16" if stored else "float32 or float64"
            raise InputError(f"{op} takes {known}; convert this {x.dtype} {x.shape}, with astype")
        if along_axis and x.ndim == 0:
            raise InputError(f"{op} works along an axis, and a single number has none")


def check_linear(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    residual: Array | None = None,
    op: str = "linear",
) -> None:
    """Raise `InputError` unless x (..., K), weight (N, K), bias (N,), residual (..., N) fit.

    The kernels trust the shapes: they would read beyond the end of an array that is too short. All
    are of one dtype; or x and weight are in bfloat16, one or both, beside float32.
    """
    check_numbers(op, x, weight, stored=True)
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise InputError(
            f"{op} takes x (..., K) and weight (N, K), but x is {x.shape} and weight {weight.shape}"
        )
    if x.dtype != weight.dtype and FLOAT64 in (x.dtype, weight.dtype):
        raise InputError(f"{op} of {x.dtype} with a weight of {weight.dtype}; convert one of them")
    dtype = FLOAT64 if x.dtype == FLOAT64 else FLOAT32
    out = (*x.shape[:-1], len(weight))
    _check_added(op, "bias", bias, dtype, out[-1:])
    _check_added(op, "residual", residual, dtype, out)


def _check_added(
    op: str, name: str, array: Array | None, dtype: np.dtype, shape: tuple[int, ...]
) -> None:
    """Raise `InputError` unless what is added to an output is of its dtype, and of this shape."""
    if array is not None and (array.shape != shape or array.dtype != dtype):
        raise InputError(
            f"{op} takes a {name} of {dtype} {shape} here, but it is {array.dtype} {array.shape}"
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
    check_linear(x, up, up_bias, op="feed_forward")
    check_numbers("feed_forward", up, down)
    if down.shape != up.shape[::-1] or down.dtype != up.dtype:
        raise InputError(
            "feed_forward takes up (F, C) and down (C, F) of one dtype,"
            f" not {up.dtype} {up.shape} and {down.dtype} {down.shape}"
        )
    if (up_bias is None) != (down_bias is None):
        raise InputError("feed_forward takes a bias for both of its products, or for neither")
    out = (*x.shape[:-1], len(down))
    _check_added("feed_forward", "down_bias", down_bias, up.dtype, out[-1:])
    _check_added("feed_forward", "residual", residual, up.dtype, out)


def check_same(op: str, **given: Array) -> None:
    """Raise `InputError` unless all arrays have one shape and one dtype."""
    check_numbers(op, *given.values())
    one, *others = given.values()
    if any(other.shape != one.shape or other.dtype != one.dtype for other in others):
        kinds = ", ".join(f"{name} {x.dtype} {x.shape}" for name, x in given.items())
        raise InputError(f"{op} takes arrays of one shape and dtype, but these are {kinds}")


def check_norm(op: str, x: Array, **given: Array | None) -> None:
    """Raise `InputError` unless x is (..., C), and what is given for its channels (C,) like it."""
    check_numbers(op, x, along_axis=True)
    for name, array in given.items():
        if array is not None and (array.shape != x.shape[-1:] or array.dtype != x.dtype):
            raise InputError(
                f"{op} of x (..., C) takes a {name} (C,), but x is {x.dtype} {x.shape}"
                f" and the {name} {array.dtype} {array.shape}"
            )


def power_gradients(dout: Array, a: Array, b: Array, out: Array) -> tuple[Array, Array]:
    """d a**b = b a**(b-1) da + a**b log(a) db; where a <= 0 the second term is taken as 0."""
    xp = backend.array_module(a)
    positive = a > 0
    log_a = xp.log(xp.where(positive, a, 1))
    slope = xp.where(b == 0, 0, b * a ** xp.where(b == 0, 1, b - 1))
    return dout * slope, xp.where(positive, dout * out * log_a, 0)
