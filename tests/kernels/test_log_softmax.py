"""Log-softmax: the twin against the reference in float64, PyTorch, and probabilities near zero."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.kernels import log_softmax

SHAPES = st.sampled_from([(0, 3), (3, 0), (1, 1), (4, 2, 7), (5, 64), (2, 3, 129), (82, 401)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, scale=st.sampled_from([0.1, 3, 1e4]), strided=st.booleans())
def test_fast_twin_is_as_exact_as_its_dtype(dtype, shape, scale, strided):
    rng = np.random.default_rng(len(shape))
    x = (rng.standard_normal(shape) * scale).astype(dtype)
    dout = rng.standard_normal(shape).astype(dtype)
    if strided:
        x, dout = (np.ascontiguousarray(a.T).T for a in (x, dout))
    exact_x, exact_dout = x.astype(np.float64), dout.astype(np.float64)
    eps, N = np.finfo(dtype).eps, shape[-1]

    y = log_softmax.forward_fast(x)
    exact = log_softmax.forward_reference(exact_x)
    # Rounded are x - max, the N terms of the sum, and the difference that is the result.
    spread = np.ptp(exact_x, axis=-1, keepdims=True) if x.size else 0
    assert y.dtype == dtype and y.shape == shape
    assert (abs(y - exact) <= (N + 16 + 2 * spread) * eps).all()

    dx = log_softmax.backward_fast(dout, y)
    exact_y = y.astype(np.float64)
    exact = log_softmax.backward_reference(exact_dout, exact_y)
    size = abs(exact_dout) + np.exp(exact_y) * abs(exact_dout).sum(-1, keepdims=True)
    assert dx.dtype == dtype and dx.shape == shape
    assert (abs(dx - exact) <= (N + 16) * eps * size + np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_equals_pytorch(name):
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, 3, 5, 67))
    peer = torch.tensor(x, requires_grad=True)
    expected = torch.log_softmax(peer, -1)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        y = log_softmax.forward(x)
        np.testing.assert_allclose(y, expected.detach(), rtol=1e-13)
        np.testing.assert_allclose(log_softmax.backward(dout, y), peer.grad, atol=1e-14)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_improbable_masked_and_nan(name):
    x = np.array([[0, -1e4, -np.inf], [0, np.nan, 1]], np.float32)
    with backend.use(name), np.errstate(invalid="ignore"):
        y = log_softmax.forward(x)
        dx = log_softmax.backward(np.ones_like(x), y)
    np.testing.assert_array_equal(y[0], [0, -1e4, -np.inf])  # log(softmax) would be -inf twice
    np.testing.assert_array_equal(dx[0], [-2, 1, 1])
    assert np.isnan(y[1]).all()
