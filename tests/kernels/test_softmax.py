"""Softmax: the twin against the reference in float64, PyTorch, masks, NaN and thread counts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.kernels import softmax
from minillm.kernels.layout import rows

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

    y = softmax.forward_fast(x)
    exact = softmax.forward_reference(exact_x)
    # x - max is rounded to eps |x - max|, which is a relative error of its exponential; then come
    # N additions of positive numbers.
    spread = np.ptp(exact_x, axis=-1, keepdims=True) if x.size else 0
    assert y.dtype == dtype and y.shape == shape
    assert (abs(y - exact) <= (N + 16 + 2 * spread) * eps * exact + np.finfo(dtype).tiny).all()

    dx = softmax.backward_fast(dout, y)
    exact_y = y.astype(np.float64)
    exact = softmax.backward_reference(exact_dout, exact_y)
    size = exact_y * (abs(exact_dout) + (abs(exact_dout) * exact_y).sum(-1, keepdims=True))
    assert dx.dtype == dtype and dx.shape == shape
    assert (abs(dx - exact) <= (N + 16) * eps * size + np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_equals_pytorch(name):
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, 3, 5, 67))
    peer = torch.tensor(x, requires_grad=True)
    expected = torch.softmax(peer, -1)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        y = softmax.forward(x)
        np.testing.assert_allclose(y, expected.detach(), rtol=1e-13)
        np.testing.assert_allclose(softmax.backward(dout, y), peer.grad, atol=1e-15)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("N", [3, 200])
def test_masked_scores_weigh_nothing_and_nan_stays_visible(name, N):
    x = np.zeros((4, N), np.float32)
    x[0, 1:] = -np.inf  # one score left
    x[1, N // 2] = np.nan
    x[2] = -np.inf  # none left: there is no answer
    x[3, 0] = 1e30
    with backend.use(name), np.errstate(invalid="ignore"):
        y = softmax.forward(x)
        dx = softmax.backward(np.ones_like(y), y)
    only_first = np.eye(N)[0]
    np.testing.assert_array_equal(y[0], only_first)
    np.testing.assert_array_equal(y[3], only_first)
    np.testing.assert_array_equal(dx[0], 0)
    assert np.isnan(y[1:3]).all()


def test_the_number_of_threads_changes_no_bit():
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, 82, 401)).astype(np.float32)
    results = []
    before = backend.threads()
    for threads in (1, min(2, backend.cores())):
        backend.set_threads(threads)
        y = softmax.forward_fast(x)
        results.append(y.tobytes() + softmax.backward_fast(dout, y).tobytes())
    backend.set_threads(before)
    assert results[0] == results[1]


def test_bits_do_not_depend_on_where_the_arrays_lie():
    numbers = np.random.default_rng(0).standard_normal(17, dtype=np.float32)
    room = np.zeros(8192, np.uint8)
    start = -room.ctypes.data % 64 + 2048
    x = room[start : start + numbers.nbytes].view(np.float32)
    x[:] = numbers
    found = set()
    for distance in [*range(-400, 1 - x.nbytes, 4), *range(x.nbytes, 400, 4)]:
        y = room[start + distance : start + distance + x.nbytes].view(np.float32)
        softmax._forward(rows(x), y.reshape(1, -1))
        found.add(y.tobytes())
    assert len(found) == 1
