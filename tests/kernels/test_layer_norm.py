"""Layer norm: the twin against the reference in float64, PyTorch, shifts, NaN, thread counts."""

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
from minillm.kernels import layer_norm
from minillm.kernels.bfloat16 import BFLOAT16

EPS = 1e-5


@DTYPES
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, scale=st.sampled_from([0.1, 1e4]), strided=st.booleans(), plain=st.booleans())
def test_fast_twin_equals_reference(dtype, shape, scale, strided, plain):
    x, dout = (numbers(shape, dtype, seed, strided=strided) for seed in (0, 1))
    x = x * dtype(scale)
    weight, bias = (None if plain else numbers(shape[-1:], dtype, seed) for seed in (2, 3))
    wide_weight, wide_bias = (None if plain else part.astype(np.float64) for part in (weight, bias))
    wide_x, wide_dout = exact(x, dout)

    saved = layer_norm.forward_fast(x, weight, bias, EPS)
    wanted = layer_norm.forward_reference(wide_x, wide_weight, wide_bias, EPS)
    span = 1 + largest(x, wanted[2])  # a row minus its mean is as exact as the numbers in it
    sizes = [span * largest(weight) + largest(bias), largest(x), span * largest(wanted[2])]
    assert_close(saved, wanted, dtype, 40, sizes)

    gradients = layer_norm.backward_fast(dout, x, weight, *saved[1:])
    wanted = layer_norm.backward_reference(wide_dout, wide_x, wide_weight, *wanted[1:])
    rows, slope = x.size // max(1, shape[-1]), span * largest(dout)
    sizes = [slope * span * largest(saved[2], weight), rows * slope, rows * largest(dout)]
    assert_close(gradients, wanted, dtype, 40, sizes)


@BACKENDS
def test_equals_pytorch(name):
    x, dout = numbers((3, 5, 67), np.float64), numbers((3, 5, 67), np.float64, 1)
    weight, bias = numbers((67,), np.float64, 2), numbers((67,), np.float64, 3)
    peers = [torch.tensor(part, requires_grad=True) for part in (x, weight, bias)]
    expected = torch.nn.functional.layer_norm(peers[0], (67,), *peers[1:], EPS)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        out, mean, rstd = layer_norm.forward(x, weight, bias, EPS)
        gradients = layer_norm.backward(dout, x, weight, mean, rstd)
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-12, atol=1e-14)
    for ours, peer in zip(gradients, peers, strict=True):
        np.testing.assert_allclose(ours, peer.grad, rtol=1e-11, atol=1e-13)


@BACKENDS
def test_a_shift_of_the_row_changes_nothing(name):
    x, dout = numbers((4, 64), np.float64), numbers((4, 64), np.float64, 1)
    with backend.use(name):
        near, far = (layer_norm.forward(x + by, None, None, EPS)[0] for by in (0, 1e4))
        np.testing.assert_allclose(near, far, atol=1e-10)
        saved = layer_norm.forward(x, None, None, EPS)[1:]
        dx = layer_norm.backward(dout, x, None, *saved)[0]
    np.testing.assert_allclose(dx.sum(axis=-1), 0, atol=1e-13)  # so the shift has no gradient


@BACKENDS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_is_seen_in_its_row_alone(name, bad):
    x, dout = numbers((3, 40), np.float32), numbers((3, 40), np.float32, 1)
    x[1, 7] = bad
    with backend.use(name), np.errstate(invalid="ignore"):
        out, mean, rstd = layer_norm.forward(x, None, None, EPS)
        dx, dweight, dbias = layer_norm.backward(dout, x, None, mean, rstd)
    for array in (out, dx):
        assert np.isnan(array[1]).all() and np.isfinite(array[[0, 2]]).all()
    assert np.isnan(dweight).all() and np.isfinite(dbias).all()


@BACKENDS
def test_a_constant_row_is_brought_to_zero(name):
    with backend.use(name):
        out, mean, rstd = layer_norm.forward(np.full((2, 8), 3.0), None, None, EPS)
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_array_equal(mean, 3)
    np.testing.assert_allclose(rstd, EPS**-0.5)


def test_threads_do_not_change_a_bit():
    x, dout = numbers((301, 77), np.float32), numbers((301, 77), np.float32, 1)
    weight = numbers((77,), np.float32, 2)

    def run():
        saved = layer_norm.forward_fast(x, weight, weight, EPS)
        return [*saved, *layer_norm.backward_fast(dout, x, weight, *saved[1:])]

    assert_same_on_any_threads(run)


@BACKENDS
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4, 7), (70, 65)])
def test_the_result_may_be_stored_in_bfloat16(name, shape):
    x, weight = numbers(shape, np.float32), numbers(shape[-1:], np.float32, 1)
    with backend.use(name):
        wide, *kept = layer_norm.forward(x, weight, weight, EPS)
        half, *kept_too = layer_norm.forward(x, weight, weight, EPS, BFLOAT16)
    assert half.dtype == BFLOAT16
    np.testing.assert_array_equal(half, wide.astype(BFLOAT16))
    for one, other in zip(kept, kept_too, strict=True):
        np.testing.assert_array_equal(one, other)
