"""Embedding: lookup, and a scatter-add that loses nothing where an id repeats."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.kernels import embedding


def gradient(backward, dout, ids, V):
    """What `backward` adds to zeros."""
    dweight = np.zeros((V, dout.shape[-1]), dout.dtype)
    backward(dout, ids, dweight)
    return dweight


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=15, deadline=None)
@given(V=st.integers(1, 9), C=st.integers(1, 40), places=st.integers(0, 60), seed=st.integers(0, 9))
def test_fast_twin_equals_reference(dtype, V, C, places, seed):
    rng = np.random.default_rng(seed)
    weight, ids = rng.standard_normal((V, C)).astype(dtype), rng.integers(0, V, places)
    dout = rng.standard_normal((places, C)).astype(dtype)
    out = embedding.forward_fast(weight, ids)
    np.testing.assert_array_equal(out, embedding.forward_reference(weight, ids))
    dweight = gradient(embedding.backward_fast, dout, ids, V)
    assert dweight.dtype == dtype
    expected = gradient(embedding.backward_reference, dout, ids, V)
    np.testing.assert_allclose(dweight, expected, rtol=1e-4 if dtype == np.float32 else 1e-12,
                               atol=1e-5 if dtype == np.float32 else 1e-13)  # fmt: skip


def test_a_large_lookup_and_a_transposed_gradient():
    rng = np.random.default_rng(0)
    weight, ids = rng.standard_normal((50, 300)), rng.integers(0, 50, (12, 64))
    np.testing.assert_array_equal(embedding.forward_fast(weight, ids), weight[ids])
    dout = rng.standard_normal((12, 300, 64)).swapaxes(1, 2)
    expected = gradient(embedding.backward_reference, dout, ids, 50)
    found = gradient(embedding.backward_fast, dout, ids, 50)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_equals_pytorch(name):
    rng = np.random.default_rng(0)
    weight, ids = rng.standard_normal((6, 4)), rng.integers(0, 6, (3, 5))
    dout = rng.standard_normal((3, 5, 4))
    peer = torch.tensor(weight, requires_grad=True)
    expected = torch.nn.functional.embedding(torch.tensor(ids), peer)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        np.testing.assert_array_equal(embedding.forward(weight, ids), expected.detach())
        np.testing.assert_allclose(gradient(embedding.backward, dout, ids, 6), peer.grad, rtol=1e-12)


def test_threads_do_not_change_a_bit():
    if backend.cores() < 2:
        pytest.skip("one core")
    rng = np.random.default_rng(0)
    dout, ids = rng.standard_normal((90, 300), dtype=np.float32), rng.integers(0, 7, 90)
    before, results = backend.threads(), []
    try:
        for count in (1, 2):
            backend.set_threads(count)
            results.append(gradient(embedding.backward_fast, dout, ids, 7))
    finally:
        backend.set_threads(before)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_gradient_is_added_to_what_is_there(name):
    dweight = np.full((3, 2), 10.0)
    with backend.use(name):
        embedding.backward(np.ones((4, 2)), np.array([2, 0, 2, 2]), dweight)
    np.testing.assert_array_equal(dweight, [[11, 11], [10, 10], [13, 13]])
