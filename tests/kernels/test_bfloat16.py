"""bfloat16: rounding as ml_dtypes does it, for arrays and for the single numbers of a kernel."""

import ml_dtypes
import numpy as np
import pytest

from minillm import backend
from minillm.jit import disabled, jit
from minillm.kernels.bfloat16 import BFLOAT16, put, raw, round_to_bfloat16, take, to_bfloat16, widen


def numbers():
    """Numbers of every sign, exponent and first fraction bits, at, beside and between ties."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    every = (upper[:, None] | lower).reshape(-1).view(np.float32)
    return every[::101] if disabled() else every


def assert_rounded(bits, x, least=0.0):
    """`bits` are those of x in bfloat16, NaN where x is; 0 will do for what is not above `least`."""
    with np.errstate(invalid="ignore"):  # NaN
        peer = x.astype(BFLOAT16).astype(np.float32)
    ours = widen(bits)
    tiny = (abs(x) <= least) & (ours == 0)
    np.testing.assert_array_equal(ours[~tiny], peer[~tiny])


@jit
def copy(source, target):
    for i in range(source.size):
        put(target, i, take(source, i))


def test_arrays_round_as_ml_dtypes_does():
    assert_rounded(round_to_bfloat16(numbers()), numbers())


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_an_array_is_stored_as_ml_dtypes_does_it(name):
    x = numbers()
    grid = x[: x.size // 6 * 6].reshape(-1, 6)
    with backend.use(name):
        for case in (x, grid, grid.T, x[:0], x[7]):
            case = np.asarray(case)
            kept = to_bfloat16(case)
            assert kept.dtype == BFLOAT16 and kept.shape == case.shape
            assert_rounded(raw(kept).reshape(-1), case.reshape(-1), np.finfo(np.float32).tiny)


def test_a_kernel_rounds_single_numbers_as_ml_dtypes_does():
    x, bits = numbers(), np.empty(numbers().size, np.uint16)
    copy(x, bits)
    assert_rounded(bits, x, np.finfo(np.float32).tiny)
    wide = np.empty(x.size, np.float32)
    copy(bits, wide)
    np.testing.assert_array_equal(wide, widen(bits))
    assert np.isnan(wide).any() and np.isinf(wide).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_kernel_leaves_numbers_alone(dtype):
    x = np.random.default_rng(0).standard_normal(100).astype(dtype)
    same = np.empty_like(x)
    copy(x, same)
    np.testing.assert_array_equal(same, x)


def test_raw_is_the_bits_of_bfloat16_and_nothing_else():
    x = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(raw(x), [0x3FC0, 0xC000])
    for other in (x.astype(np.float32), x.astype(np.float64)):
        assert raw(other) is other
