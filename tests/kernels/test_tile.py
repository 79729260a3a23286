"""The tile: sums over packed panels equal NumPy's product, and nothing beside the tile is written."""

import ml_dtypes
import numpy as np
import pytest

from minillm.jit import jit
from minillm.kernels.processor import WORD, machine
from minillm.kernels.tile import halves, multiply_tile, tile, words

PACKED = ["float32", "float64", WORD]


@jit
def one_tile(a, i, k_a, b, j, k_b, depth, out, row, column, add):
    multiply_tile(a, i, k_a, b, j, k_b, depth, out, row, column, add)


def panels(packed, count, depth, width, seed):
    """Packed panels (count, depth, width), and their numbers in float64, k by k."""
    each = tile(packed).per_word
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal((count, depth, width, each)).astype(np.float32)
    if packed != WORD:
        made = numbers[..., 0].astype(packed)
        return made, made.astype(np.float64)
    half = numbers.astype(ml_dtypes.bfloat16)
    by_k = half.astype(np.float64).swapaxes(2, 3).reshape(count, 2 * depth, width)
    return words(half.view(np.uint16)), by_k


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("depth", [1, 2, 7, 32])
@pytest.mark.parametrize("add", [False, True])
def test_a_tile_is_a_product_and_nothing_beside_it_changes(packed, depth, add):
    this, start = tile(packed), 3
    a, exact_a = panels(packed, 3, depth + start, this.rows, 0)
    b, exact_b = panels(packed, 2, depth + start, this.columns, 1)
    out = np.random.default_rng(2).standard_normal((this.rows + 2, this.columns + 5))
    out = out.astype("float64" if packed == "float64" else "float32")
    before = out.copy()
    one_tile(a, 1, start, b, 1, start - 1, depth, out, 2, 5, add)

    each = this.per_word
    left = exact_a[1, start * each :][: depth * each]
    right = exact_b[1, (start - 1) * each :][: depth * each]
    inside = before[2:, 5:].astype(np.float64)
    expected = left.T @ right + inside * add
    terms = abs(left).T @ abs(right) + abs(inside)
    assert np.all(abs(out[2:, 5:] - expected) <= (depth * each + 2) * np.finfo(out.dtype).eps * terms)
    np.testing.assert_array_equal(out[:2], before[:2])
    np.testing.assert_array_equal(out[:, :5], before[:, :5])


@pytest.mark.parametrize("packed", PACKED)
def test_no_depth_is_no_sum(packed):
    this = tile(packed)
    a, b = panels(packed, 2, 4, this.rows, 0)[0], panels(packed, 1, 4, this.columns, 1)[0]
    kind = "float64" if packed == "float64" else "float32"
    for add, left in ((True, 7.0), (False, 0.0)):
        out = np.full((this.rows, this.columns), 7, kind)
        one_tile(a, 0, 0, b, 0, 0, 0, out, 0, 0, add)
        np.testing.assert_array_equal(out, left)


@pytest.mark.parametrize("packed", PACKED)
def test_sums_operands_and_the_spread_number_fit_the_registers(packed):
    this = tile(packed)
    assert this.rows * this.vectors + this.vectors + 1 <= machine().registers
    assert this.rows * this.vectors >= 8  # multiply-adds under way at once
    assert this.lanes * np.dtype(packed).itemsize == machine().vector_bytes


def test_words_hold_neighbouring_k():
    pairs = np.arange(48, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(2, 3, 4, 2)
    packed = words(pairs.view(np.uint16))  # (panels, depth, lanes)
    assert packed.dtype == WORD and packed.shape == (2, 3, 4)
    by_k = pairs.astype(np.float32).swapaxes(2, 3).reshape(2, 6, 4)
    np.testing.assert_array_equal(halves(packed), by_k)
