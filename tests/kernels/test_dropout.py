"""Dropout: the mask is a function of the seed and the place, and nothing else."""

import numpy as np
import pytest

from minillm import backend
from minillm.kernels import dropout


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 7), (2, dropout.PART + 5)])
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_fast_twin_is_the_reference_to_the_bit(shape, dtype, seed):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    fast, plain = dropout.forward_fast(x, 0.3, seed), dropout.forward_reference(x, 0.3, seed)
    assert fast.dtype == plain.dtype == dtype
    np.testing.assert_array_equal(fast, plain)


def test_strides_do_not_change_the_mask():
    x = np.ones((40, 30), np.float32)
    straight = dropout.forward_fast(x, 0.5, 7)
    np.testing.assert_array_equal(dropout.forward_fast(x.T.copy().T, 0.5, 7), straight)
    np.testing.assert_array_equal(dropout.forward_reference(x.T.copy().T, 0.5, 7), straight)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_the_share_and_the_mean(name, p):
    x = np.ones(200_000)
    with backend.use(name):
        out = dropout.forward(x, p, 123)
    assert abs((out == 0).mean() - p) < 0.005  # over four standard deviations
    assert abs(out.mean() - 1) < 0.02
    np.testing.assert_allclose(np.unique(out[out != 0]), 1 / (1 - p))


def test_neighbours_and_seeds_are_independent():
    masks = [dropout.keep_mask(np.empty(100_000), 0.5, seed) for seed in (1, 2)]
    assert abs((masks[0] == masks[1]).mean() - 0.5) < 0.01
    assert abs((masks[0][1:] == masks[0][:-1]).mean() - 0.5) < 0.01


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_backward_drops_the_same_places(name):
    x = np.random.default_rng(0).standard_normal((5, 9))
    with backend.use(name):
        slope = dropout.backward(np.ones_like(x), 0.4, 3)
        np.testing.assert_allclose(dropout.forward(x, 0.4, 3), x * slope)
