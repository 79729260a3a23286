"""Small transposes and copies of rows: every remainder, in and out of larger arrays, in bits."""

import numpy as np
import pytest

from minillm.jit import jit
from minillm.kernels.bfloat16 import round_to_bfloat16, widen
from minillm.kernels.block_product import small_tile
from minillm.kernels.tile import words
from minillm.kernels.transpose import copy_row, transpose


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 33])
@pytest.mark.parametrize("columns", [0, 1, 7, 16, 40])
def test_equals_numpy_and_touches_nothing_else(dtype, rows, columns):
    source = np.random.default_rng(0).standard_normal((rows + 3, columns + 2)).astype(dtype)
    target = np.full((columns + 4, rows + 5), np.nan, dtype)
    transpose(source[2 : rows + 2, 1 : columns + 1], target[:columns, 3 : rows + 3],
              small_tile(dtype).lanes)  # fmt: skip
    expected = np.full_like(target, np.nan)
    expected[:columns, 3 : rows + 3] = source[2 : rows + 2, 1 : columns + 1].T
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("rows", [1, 16, 33])
@pytest.mark.parametrize("columns", [0, 1, 7, 16, 40])
def test_bits_are_turned_over_in_pairs(rows, columns):
    source = np.random.default_rng(0).integers(0, 2**16, (rows, 2 * columns), np.uint16)
    target = np.full((columns + 1, rows + 1), 7, np.uint32)
    transpose(source, target[:columns, :rows], small_tile(np.uint32).lanes)
    expected = np.full_like(target, 7)
    expected[:columns, :rows] = words(source.reshape(rows, columns, 2)).T
    np.testing.assert_array_equal(target, expected)


@jit
def _copy_second_row(source, target, scale):
    copy_row(source, (1, 2), target, (1,), scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length, room", [(0, 3), (1, 1), (15, 20), (16, 16), (33, 40), (40, 33)])
def test_a_row_is_copied_as_far_as_both_go(dtype, length, room):
    source = np.random.default_rng(0).standard_normal((2, 3, length + 2)).astype(dtype)[:, :, 1:-1]
    target = np.full((3, room), np.nan, dtype)
    _copy_second_row(source, target, dtype(0.3))
    count = min(length, room)
    expected = np.full_like(target, np.nan)
    expected[1, :count] = source[1, 2, :count] * dtype(0.3)
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("length, room", [(1, 1), (15, 20), (16, 16), (33, 40), (40, 33)])
def test_a_row_may_be_copied_from_and_to_bits(length, room):
    numbers = np.random.default_rng(0).standard_normal((2, 3, length)).astype(np.float32)
    count, scale = min(length, room), np.float32(0.3)
    for source in (numbers, round_to_bfloat16(numbers)):
        for target in np.full((3, room), 7, np.float32), np.full((3, room), 7, np.uint16):
            _copy_second_row(source, target, scale)
            row = (widen(source) if source is not numbers else source)[1, 2, :count] * scale
            row = round_to_bfloat16(row) if target.dtype == np.uint16 else row
            np.testing.assert_array_equal(target[1, :count], row)
            assert (target[1, count:] == 7).all() and (target[::2] == 7).all()
