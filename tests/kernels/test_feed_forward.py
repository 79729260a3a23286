"""The feed-forward layer: the same as its parts one after the other."""

import numpy as np
import pytest
from cases import DTYPES, assert_same_on_any_threads, exact

from minillm import backend
from minillm.kernels import feed_forward, gelu, linear


def case(dtype, rows=50, C=40, F=130, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (rows, C), (F, C), (F,), (C, F), (C,), (rows, C), (rows, C)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@DTYPES
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_twin_equals_the_parts(dtype, approximate, precision):
    x, up, up_bias, down, down_bias, residual, dout = case(dtype)
    weights = up, up_bias, down, down_bias
    with backend.precision(precision):
        out, u = feed_forward.forward_fast(x, *weights, residual, approximate)
        wanted_u = linear.forward_fast(x, up, up_bias)
        g = gelu.forward_fast(wanted_u, approximate)
        wanted = linear.forward_fast(g, down, down_bias, residual)
        grads = feed_forward.backward_fast(dout, x, u, up, down, True, approximate)
        dg, ddown, ddown_bias = linear.backward_fast(dout, g, down, True)
        du = gelu.backward_fast(dg, wanted_u, approximate)
        dx, dup, dup_bias = linear.backward_fast(du, x, up, True)
    assert out.dtype == dtype
    halved = precision == "bfloat16" and dtype == np.float32  # one rounding more shows in g and du
    bound = {"rtol": 3e-3, "atol": 0.05} if halved else {"rtol": 1e-5, "atol": 1e-3}
    for ours, parts in zip(
        (out, u, *grads), (wanted, wanted_u, dx, dup, dup_bias, ddown, ddown_bias), strict=True
    ):
        np.testing.assert_allclose(ours, parts, **bound)


def test_reference_in_float64_judges_the_twin():
    x, up, up_bias, down, down_bias, residual, dout = case(np.float32)
    doubles = exact(x, up, up_bias, down, down_bias, residual)
    out, u = feed_forward.forward_fast(x, up, up_bias, down, down_bias, residual)
    wanted, wanted_u = feed_forward.forward_reference(*doubles)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-4)
    grads = feed_forward.backward_fast(dout, x, u, up, down, True)
    [douts] = exact(dout)
    wanted = feed_forward.backward_reference(
        douts, doubles[0], wanted_u, doubles[1], doubles[3], True
    )
    for ours, parts in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(ours, parts, rtol=1e-5, atol=1e-3)


def test_spends_u_only_when_told():
    x, up, up_bias, down, down_bias, _, dout = case(np.float32)
    _, u = feed_forward.forward_fast(x, up, up_bias, down, down_bias)
    kept = u.copy()
    first = feed_forward.backward_fast(dout, x, u, up, down, True)
    np.testing.assert_array_equal(u, kept)
    second = feed_forward.backward_fast(dout, x, u, up, down, True, spend=True)
    np.testing.assert_array_equal(u, gelu.forward_fast(kept))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_threads_change_no_bit(precision):
    x, up, up_bias, down, down_bias, residual, dout = case(np.float32, 200, 130, 300)

    def run():
        with backend.precision(precision):
            out, u = feed_forward.forward_fast(x, up, up_bias, down, down_bias, residual)
            return out, *feed_forward.backward_fast(dout, x, u, up, down, True)

    assert_same_on_any_threads(run)
