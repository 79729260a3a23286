"""The small transpose: every remainder of its squares, in and out of larger arrays."""

import numpy as np
import pytest

from minillm.kernels.block_product import small_tile
from minillm.kernels.transpose import transpose


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
