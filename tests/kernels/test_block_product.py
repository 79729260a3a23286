"""Products of small blocks, and the array views that they read."""

import numpy as np

from minillm.jit import jit
from minillm.kernels.block_product import neighbours


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
