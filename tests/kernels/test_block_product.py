"""Products of small blocks, and the array views that they read."""

import numpy as np
import pytest

from minillm.jit import jit
from minillm.kernels.attention_tiles import Plan
from minillm.kernels.bfloat16 import round_to_bfloat16, widen
from minillm.kernels.block_product import (
    multiply,
    pair_rows,
    pairs_of,
    small_tile,
    stored_as,
)
from minillm.kernels.layout import neighbours
from minillm.kernels.tile import words


def plan(dtype):
    """The tile in registers, as compiled code takes it (and its cache on disk can name it)."""
    tile = small_tile(dtype)
    return Plan(1, tile.columns, tile.rows, tile.rows, tile.columns, tile.lanes, 1)


M, K, N = 16, 14, 64  # two tiles or more of any dtype


def operands(dtype):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(size).astype(dtype) for size in ((M, K), (K, N), (M, N))]


@jit
def in_pairs(rows):
    pairs = pairs_of(rows)
    pair_rows(rows, pairs)
    return pairs


@jit
def pair_into(rows, pairs):
    pair_rows(rows, pairs)


@jit
def room_like(array, like):
    return stored_as(array, like)


def assert_product(out, a, b, start, eps):
    bound = (K + 2) * eps * (abs(a) @ abs(b) + abs(start))
    assert np.all(abs(out - (a @ b + start)) <= bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("add", [False, True])
def test_a_product_of_numbers(dtype, add):
    a, b, out = operands(dtype)
    exact = [x.astype(np.float64) for x in (a, b, out if add else 0 * out)]
    for left in (a, np.asfortranarray(a)):
        made = out.copy()
        multiply(made, left, b, add, plan(dtype))
        assert_product(made, *exact, np.finfo(dtype).eps)


@pytest.mark.parametrize("add", [False, True])
def test_a_product_of_bfloat16_takes_its_operands_as_rows_or_as_pairs(add):
    a, b, out = operands(np.float32)
    a, b = round_to_bfloat16(a), round_to_bfloat16(b)
    right, along = in_pairs(b), in_pairs(np.ascontiguousarray(a.T))  # (K / 2, N), (K / 2, M)
    exact = [x.astype(np.float64) for x in (widen(a), widen(b), out if add else 0 * out)]
    for left in (a, along.T):
        made = out.copy()
        multiply(made, left, right, add, plan(np.float32))
        assert_product(made, *exact, np.finfo(np.float32).eps)


@pytest.mark.parametrize("columns", [1, 15, 16, 40])
def test_two_rows_of_bits_become_one_of_pairs(columns):
    bits = np.random.default_rng(0).integers(0, 2**16, (6, columns), np.uint16)
    pairs = np.full((3, columns + 1), 7, np.uint32)
    pair_into(bits, pairs[:, :columns])
    expected = words(bits.reshape(3, 2, columns).swapaxes(1, 2))
    np.testing.assert_array_equal(pairs[:, :columns], expected)
    assert (pairs[:, columns] == 7).all()


def test_numbers_are_their_own_pairs_and_need_no_other_room():
    x, bits = np.ones((4, 3), np.float32), np.ones((4, 3), np.uint16)
    for same in (in_pairs(x), room_like(x, x)):
        assert np.shares_memory(same, x)
        np.testing.assert_array_equal(same, np.ones((4, 3)))
    other = room_like(x, bits)
    assert other.shape == x.shape and other.dtype == bits.dtype


@jit
def _reads_rows_then_takes_memory(size, times):
    x = np.ones((2, size), np.float32)
    total = np.float32(0)
    for _ in range(times):
        row = neighbours(x[0])
        total += row[0]
    for _ in range(times):  # would be given the memory of x, had it been freed
        other = np.full((2, size), 7, np.float32)
        total += other[1, 0]
    return x, total


def test_a_view_of_neighbours_keeps_its_array_alive():
    x, total = _reads_rows_then_takes_memory(64, 20)
    np.testing.assert_array_equal(x, np.ones((2, 64)))
    assert total == 20 * (1 + 7)
