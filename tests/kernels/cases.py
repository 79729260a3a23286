"""What the tests of the element-wise kernels and the norms share.

A kernel's float32 and float64 twins are both judged by the reference in float64; PyTorch judges the
reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import strategies as st

from minillm import backend

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
BACKENDS = pytest.mark.parametrize("name", ["numpy", "numba"])

# No columns, one number, few and many rows, more than one vector, more than one part or chunk.
SHAPES = st.sampled_from(
    [(0, 3), (3, 0), (1, 1), (5,), (4, 2, 7), (2, 3, 129), (70, 65), (41, 1000)]
)


def numbers(
    shape: tuple[int, ...], dtype: type, seed: int = 0, scale: float = 1.0, strided: bool = False
) -> np.ndarray:
    """Normal numbers, in memory that is not contiguous if `strided`."""
    if strided:
        room = numbers((*shape[:-1], 2 * shape[-1]), dtype, seed, scale)
        return room[..., ::2]
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def exact(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays in float64."""
    return [array.astype(np.float64) for array in arrays]


def assert_close(
    results: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    dtype: type,
    units: float,
    sizes: Sequence[float] | None = None,
) -> None:
    """Same shapes, dtype `dtype`, and at most `units` roundings apart.

    A rounding is eps times the number itself, and times `sizes`: how large the numbers are that a
    result was made from, 1 where it is not given.
    """
    sizes = [1.0] * len(results) if sizes is None else sizes
    for result, wanted, size in zip(results, expected, sizes, strict=True):
        assert result.dtype == dtype and result.shape == wanted.shape
        bound = units * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(result, wanted, rtol=bound, atol=bound * size)


def largest(*arrays: np.ndarray | None) -> float:
    """The product of the largest absolute numbers of the arrays; 1 for one that is not there."""
    return math.prod(1.0 if a is None else float(abs(a).max(initial=0.0)) for a in arrays)


def assert_same_on_any_threads(run: Callable[[], Sequence[np.ndarray]]) -> None:
    """`run` gives the same bits on one thread and on two."""
    if backend.cores() < 2:
        pytest.skip("one core")
    before, results = backend.threads(), []
    try:
        for count in (1, 2):
            backend.set_threads(count)
            results.append(run())
    finally:
        backend.set_threads(before)
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()
