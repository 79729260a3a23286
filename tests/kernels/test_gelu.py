"""GELU, exact and by tanh: reference, twin, PyTorch, and the far ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.errors import InputError
from minillm.kernels import gelu

KINDS = ["none", "tanh"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(0, 5), columns=st.integers(0, 70), scale=st.sampled_from([0.1, 3, 1e4]))
def test_fast_twin_equals_reference(kind, dtype, rows, columns, scale):
    rng = np.random.default_rng(rows)
    x, dout = (rng.standard_normal((columns, rows)).astype(dtype).T for _ in range(2))
    x = x * dtype(scale)
    eps = np.finfo(dtype).eps
    fast, plain = gelu.forward_fast(x, kind), gelu.forward_reference(x, kind)
    assert fast.dtype == plain.dtype == dtype
    np.testing.assert_allclose(fast, plain, rtol=100 * eps, atol=8 * eps)
    fast, plain = gelu.backward_fast(dout, x, kind), gelu.backward_reference(dout, x, kind)
    assert fast.dtype == plain.dtype == dtype
    # The reference's 1 - tanh(u)^2 is off by up to 2 eps; P'(x) times x then makes much of it.
    held = np.abs(np.clip(x, -gelu.CLIP[kind], gelu.CLIP[kind]))
    allowed = eps * (20 + 100 * np.abs(plain) + np.abs(dout) * (held + held**3 / 4))
    assert np.all(np.abs(fast - plain) <= allowed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_equals_pytorch(kind, name):
    x = np.linspace(-6, 6, 201).reshape(3, 67)
    dout = np.random.default_rng(0).standard_normal(x.shape)
    peer = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.gelu(peer, approximate=kind)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        np.testing.assert_allclose(gelu.forward(x, kind), expected.detach(), rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(gelu.backward(dout, x, kind), peer.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_ends(kind, name, dtype):
    x = np.array([-1e30, -1e4, 1e4, 1e30, np.inf, np.nan], dtype)
    with backend.use(name), np.errstate(all="ignore"):
        slope = gelu.backward(np.ones_like(x), x, kind)
        out = gelu.forward(x, kind)
    np.testing.assert_array_equal(slope, np.array([0, 0, 1, 1, 1, np.nan], dtype))
    np.testing.assert_array_equal(out, np.array([0, 0, 1e4, 1e30, np.inf, np.nan], dtype))


def test_an_unknown_approximation_is_named():
    with pytest.raises(InputError, match="sigmoid"):
        gelu.forward(np.zeros(1), "sigmoid")
