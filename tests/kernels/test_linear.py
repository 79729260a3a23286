"""The linear layer: twin, reference and PyTorch agree, in float32, float64 and bfloat16."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.errors import InputError
from minillm.kernels import linear

SIZES = st.integers(0, 40)


def case(rows, K, N, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x, weight, bias, dout = (
        rng.standard_normal(shape).astype(dtype) for shape in ((rows, K), (N, K), N, (rows, N))
    )
    return x, weight, bias, dout


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=15, deadline=None)
@given(rows=SIZES, K=SIZES, N=SIZES, with_bias=st.booleans())
def test_fast_twin_equals_reference(dtype, rows, K, N, with_bias):
    x, weight, bias, dout = case(rows, K, N, dtype)
    bound = {"rtol": 20 * np.finfo(dtype).eps, "atol": 80 * np.finfo(dtype).eps}
    used = bias if with_bias else None
    fast, plain = linear.forward_fast(x, weight, used), linear.forward_reference(x, weight, used)
    assert fast.shape == plain.shape == (rows, N)
    np.testing.assert_allclose(fast, plain, **bound)
    fast = linear.backward_fast(dout, x, weight, with_bias)
    plain = linear.backward_reference(dout, x, weight, with_bias)
    for one, other in zip(fast, plain, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == dtype and one.shape == other.shape
            np.testing.assert_allclose(one, other, **bound)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_equals_pytorch(name):
    x, weight, bias, dout = case(12, 7, 9, np.float64)
    x, dout = x.reshape(3, 4, 7), dout.reshape(3, 4, 9)
    peers = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    expected = torch.nn.functional.linear(*peers)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        np.testing.assert_allclose(linear.forward(x, weight, bias), expected.detach(), rtol=1e-12)
        for ours, peer in zip(linear.backward(dout, x, weight, True), peers, strict=True):
            np.testing.assert_allclose(ours, peer.grad, rtol=1e-12, atol=1e-14)


def test_bfloat16_rounds_the_operands_and_nothing_else():
    x, weight, bias, dout = case(33, 50, 20, np.float32)
    exact = linear.forward_fast(x, weight, bias)
    with backend.precision("bfloat16"):
        fast, plain = (f(x, weight, bias) for f in (linear.forward_fast, linear.forward_reference))
        grads = linear.backward_fast(dout, x, weight, True)
        expected = linear.backward_reference(dout, x, weight, True)
        double = linear.forward_fast(x.astype(np.float64), weight.astype(np.float64))
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-4)
    for one, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    assert 1e-4 < np.abs(fast - exact).max() < 0.2  # 8 bits of 50 products
    np.testing.assert_allclose(double, x.astype(np.float64) @ weight.T.astype(np.float64))


def test_an_unknown_precision_is_named():
    with pytest.raises(InputError, match="float16"):
        backend.precision("float16")


@pytest.mark.parametrize("rows", [0, 1, 7, 65, 131, 5000])
def test_the_sum_of_rows(rows):
    x = np.random.default_rng(0).standard_normal((rows, 37))
    np.testing.assert_allclose(linear.sum_of_rows(x), x.sum(axis=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_threads_do_not_change_a_bit(precision):
    if backend.cores() < 2:
        pytest.skip("one core")
    x, weight, bias, dout = case(200, 130, 300, np.float32)
    before, results = backend.threads(), []
    try:
        for count in (1, 2):
            backend.set_threads(count)
            with backend.precision(precision):
                grads = linear.backward_fast(dout, x, weight, True)
                results.append((linear.forward_fast(x, weight, bias), *grads))
    finally:
        backend.set_threads(before)
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()
