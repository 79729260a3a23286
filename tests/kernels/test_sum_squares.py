"""The sum of squares: exact to float64, the same bits on any number of threads."""

import math

import numpy as np
import pytest

from minillm import backend
from minillm.kernels import sum_squares

SIZES = [0, 1, 1000, 2 * sum_squares.PART, 5 * sum_squares.PART + 3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_an_exact_sum(size, dtype):
    x = np.random.default_rng(size).standard_normal(size).astype(dtype)
    exact = math.fsum(float(value) ** 2 for value in x)
    assert math.isclose(sum_squares.forward_fast(x), exact, rel_tol=1e-13)
    assert math.isclose(sum_squares.forward_reference(x), exact, rel_tol=1e-12)


def test_a_float32_array_is_added_in_float64():
    x = np.full(1 << 20, 1.0001, np.float32)  # in float32 the sum would be off in the third digit
    assert math.isclose(sum_squares.forward_fast(x), x.size * float(x[0]) ** 2, rel_tol=1e-12)


def test_a_nan_or_infinity_stays_visible():
    x = np.zeros(3 * sum_squares.PART, np.float32)
    x[-1] = np.nan
    assert math.isnan(sum_squares.forward_fast(x))
    x[-1] = np.inf
    assert math.isinf(sum_squares.forward_fast(x))


def test_threads_do_not_change_a_bit():
    if backend.cores() < 2:
        pytest.skip("one core")
    x, before = np.random.default_rng(0).standard_normal(200_003), backend.threads()
    try:
        results = []
        for count in (1, 2):
            backend.set_threads(count)
            results.append(sum_squares.forward_fast(x))
    finally:
        backend.set_threads(before)
    assert results[0] == results[1]
