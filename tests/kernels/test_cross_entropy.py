"""Cross-entropy and its fused linear form: reference, twin, PyTorch, slices, extreme scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.kernels import cross_entropy, linear_cross_entropy
from minillm.kernels.bfloat16 import BFLOAT16

SHAPES = st.tuples(st.integers(0, 6), st.integers(1, 90))


def rows(shape, dtype, seed=0, ignored=True):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal(shape)).astype(dtype)
    targets = rng.integers(0, shape[1], shape[0])
    if ignored and len(targets) > 1:
        targets[0] = -100
    return logits, targets, rng.standard_normal(shape[0]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_fast_twin_equals_reference(dtype, shape, seed):
    logits, targets, dlosses = rows(shape, dtype, seed)
    bound = {"rtol": 60 * np.finfo(dtype).eps, "atol": 60 * np.finfo(dtype).eps}
    fast, plain = cross_entropy.forward_fast, cross_entropy.forward_reference
    for one, other in zip(fast(logits, targets), plain(logits, targets), strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_allclose(one, other, **bound)
    lse = plain(logits, targets)[1]
    given_back = cross_entropy.backward_fast(dlosses, logits, targets, lse)
    expected = cross_entropy.backward_reference(dlosses, logits, targets, lse)
    np.testing.assert_allclose(given_back, expected, **bound)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_equals_pytorch(name):
    logits, targets, dlosses = rows((9, 33), np.float64)
    peer = torch.tensor(logits, requires_grad=True)
    losses = torch.nn.functional.cross_entropy(peer, torch.tensor(targets), reduction="none")
    losses.backward(torch.tensor(dlosses))
    with backend.use(name):
        ours, lse = cross_entropy.forward(logits, targets)
        dlogits = cross_entropy.backward(dlosses, logits, targets, lse)
    np.testing.assert_allclose(ours, losses.detach(), rtol=1e-13)
    np.testing.assert_allclose(dlogits, peer.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_backward_may_write_over_the_logits(name):
    logits, targets, dlosses = rows((5, 40), np.float32)
    with backend.use(name):
        lse = cross_entropy.forward(logits, targets)[1]
        apart = cross_entropy.backward(dlosses, logits, targets, lse)
        over = cross_entropy.backward(dlosses, logits, targets, lse, out=logits)
    assert over is logits
    np.testing.assert_array_equal(over, apart)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("V", [1, 40, 5001])
def test_backward_may_write_over_the_logits_in_bfloat16(name, V):
    logits, targets, dlosses = rows((5, V), np.float32)
    with backend.use(name):
        lse = cross_entropy.forward(logits, targets)[1]
        apart = cross_entropy.backward(dlosses, logits, targets, lse)
        over = cross_entropy.backward(dlosses, logits, targets, lse, out=logits.view(BFLOAT16))
    assert np.shares_memory(over, logits)
    np.testing.assert_array_equal(over[:, :V], apart.astype(BFLOAT16))


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_huge_scores_and_masked_classes(name):
    logits = np.array([[1e4, -1e4, 0.0], [-np.inf, 2.0, -np.inf]], np.float32)
    targets = np.array([1, 1])
    with backend.use(name):
        losses, lse = cross_entropy.forward(logits, targets)
        dlogits = cross_entropy.backward(np.ones(2, np.float32), logits, targets, lse)
    np.testing.assert_array_equal(losses, [2e4, 0])
    np.testing.assert_array_equal(dlogits, [[1, -1, 0], [0, 0, 0]])


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_nan_is_seen_unless_its_row_is_ignored(name):
    logits = np.zeros((2, 3), np.float32)
    logits[:, 1] = np.nan
    targets = np.array([0, -100])
    with backend.use(name):
        losses, lse = cross_entropy.forward(logits, targets)
        dlogits = cross_entropy.backward(np.ones(2, np.float32), logits, targets, lse)
    assert np.isnan(losses[0]) and np.isnan(dlogits[0]).all()
    assert losses[1] == 0 and not dlogits[1].any()


# -------------------------------------------------------------------- with the linear layer


NOBODY = (False, False)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("logits_at_once", [7, 40, 1 << 24])
def test_slices_equal_the_two_kernels_in_turn(name, logits_at_once, monkeypatch):
    monkeypatch.setattr(linear_cross_entropy, "SLICE", logits_at_once)
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((8, 5)), rng.standard_normal((13, 5))
    targets, scale = rng.integers(0, 13, 8), rng.random(8)
    targets[3] = -100
    with backend.use(name):
        losses, dx, dweight = linear_cross_entropy.forward(x, weight, targets, scale)
        only, no_dx, no_dweight = linear_cross_entropy.forward(x, weight, targets, scale, NOBODY)
    logits = x @ weight.T
    expected, lse = cross_entropy.forward_reference(logits, targets)
    dlogits = cross_entropy.backward_reference(scale, logits, targets, lse)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(dx, dlogits @ weight, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(dweight, dlogits.T @ x, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(only, losses)
    assert no_dx is None and no_dweight is None


def test_no_array_of_all_logits_exists(monkeypatch):
    import tracemalloc

    monkeypatch.setattr(linear_cross_entropy, "SLICE", 1 << 16)
    x, weight = np.ones((512, 8), np.float32), np.ones((4096, 8), np.float32)
    targets, scale = np.zeros(512, int), np.ones(512, np.float32)
    linear_cross_entropy.forward(x, weight, targets, scale)  # compiles
    tracemalloc.start()
    linear_cross_entropy.forward(x, weight, targets, scale)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 512 * 4096 * 4 / 4  # a quarter of what the logits would take


def test_threads_do_not_change_a_bit():
    if backend.cores() < 2:
        pytest.skip("one core")
    logits, targets, dlosses = rows((70, 501), np.float32)
    before, results = backend.threads(), []
    try:
        for count in (1, 2):
            backend.set_threads(count)
            losses, lse = cross_entropy.forward_fast(logits, targets)
            results.append((losses, cross_entropy.backward_fast(dlosses, logits, targets, lse)))
    finally:
        backend.set_threads(before)
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()
