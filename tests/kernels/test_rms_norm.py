"""RMS norm: the twin against the reference in float64, PyTorch, stretching, NaN, thread counts."""

import numpy as np
import pytest
import torch
from cases import (
    BACKENDS,
    DTYPES,
    SHAPES,
    assert_close,
    assert_same_on_any_threads,
    exact,
    largest,
    numbers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.kernels import rms_norm
from minillm.kernels.bfloat16 import BFLOAT16

EPS = 1e-6


@DTYPES
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, scale=st.sampled_from([0.1, 1e4]), strided=st.booleans())
def test_fast_twin_equals_reference(dtype, shape, scale, strided):
    x, dout = (numbers(shape, dtype, seed, strided=strided) for seed in (0, 1))
    x = x * dtype(scale)
    weight = numbers(shape[-1:], dtype, 2)
    wide_x, wide_dout, wide_weight = exact(x, dout, weight)

    out, rstd = rms_norm.forward_fast(x, weight, EPS)
    wanted = rms_norm.forward_reference(wide_x, wide_weight, EPS)
    assert_close((out, rstd), wanted, dtype, 40, [largest(weight), largest(rstd)])

    gradients = rms_norm.backward_fast(dout, x, weight, rstd)
    wanted = rms_norm.backward_reference(wide_dout, wide_x, wide_weight, wanted[1])
    stretched = 1 + largest(x, rstd)
    sizes = [stretched**2 * largest(rstd, weight, dout), x.size * stretched * largest(dout)]
    assert_close(gradients, wanted, dtype, 40, sizes)


@BACKENDS
def test_equals_pytorch(name):
    x, dout = numbers((3, 5, 67), np.float64), numbers((3, 5, 67), np.float64, 1)
    weight = numbers((67,), np.float64, 2)
    peers = [torch.tensor(part, requires_grad=True) for part in (x, weight)]
    expected = torch.nn.functional.rms_norm(peers[0], (67,), peers[1], EPS)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        out, rstd = rms_norm.forward(x, weight, EPS)
        gradients = rms_norm.backward(dout, x, weight, rstd)
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-12, atol=1e-14)
    for ours, peer in zip(gradients, peers, strict=True):
        np.testing.assert_allclose(ours, peer.grad, rtol=1e-11, atol=1e-13)


@BACKENDS
def test_stretching_a_row_changes_nothing(name):
    x, dout = numbers((4, 64), np.float64), numbers((4, 64), np.float64, 1)
    weight = numbers((64,), np.float64, 2)
    with backend.use(name):
        near, far = (rms_norm.forward(x * by, weight, 0.0)[0] for by in (1, 1e4))
        np.testing.assert_allclose(near, far, rtol=1e-13)
        dx, _ = rms_norm.backward(dout, x, weight, rms_norm.forward(x, weight, 0.0)[1])
    np.testing.assert_allclose((dx * x).sum(axis=-1), 0, atol=1e-12)  # no gradient along the row


@BACKENDS
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_is_seen_in_its_row_alone(name, bad):
    x, dout = numbers((3, 40), np.float32), numbers((3, 40), np.float32, 1)
    weight = numbers((40,), np.float32, 2)
    x[1, 7] = bad
    with backend.use(name), np.errstate(invalid="ignore"):
        out, rstd = rms_norm.forward(x, weight, EPS)
        dx, dweight = rms_norm.backward(dout, x, weight, rstd)
    for array in (out, dx):
        assert np.isnan(array[1]).any() and np.isfinite(array[[0, 2]]).all()
    assert np.isnan(dweight).any()


def test_threads_do_not_change_a_bit():
    x, dout = numbers((301, 77), np.float32), numbers((301, 77), np.float32, 1)
    weight = numbers((77,), np.float32, 2)

    def run():
        out, rstd = rms_norm.forward_fast(x, weight, EPS)
        return [out, rstd, *rms_norm.backward_fast(dout, x, weight, rstd)]

    assert_same_on_any_threads(run)


@BACKENDS
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4, 7), (70, 65)])
def test_the_result_may_be_stored_in_bfloat16(name, shape):
    x, weight = numbers(shape, np.float32), numbers(shape[-1:], np.float32, 1)
    with backend.use(name):
        wide, *kept = rms_norm.forward(x, weight, EPS)
        half, *kept_too = rms_norm.forward(x, weight, EPS, BFLOAT16)
    assert half.dtype == BFLOAT16
    np.testing.assert_array_equal(half, wide.astype(BFLOAT16))
    for one, other in zip(kept, kept_too, strict=True):
        np.testing.assert_array_equal(one, other)
