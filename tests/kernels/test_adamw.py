"""The AdamW update: one pass equals the formula, PyTorch's, and itself on any number of threads."""

import numpy as np
import pytest
import torch

from minillm import backend
from minillm.kernels import adamw

SETTINGS = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}


def arrays(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    weight, grad, m, v = (rng.standard_normal(shape).astype(dtype) for _ in range(4))
    return weight, grad, m, np.abs(v)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2 * adamw.PART + 17,)])
def test_fast_twin_equals_reference(shape, dtype):
    fast, plain = arrays(shape, dtype), arrays(shape, dtype)
    adamw.update_fast(*fast, **SETTINGS, step=3, grad_scale=0.5)
    adamw.update_reference(*plain, **SETTINGS, step=3, grad_scale=0.5)
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=50 * np.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
def test_ten_steps_equal_pytorch(backend_name):
    weight, _, _, _ = arrays((7, 3), np.float64)
    peer = torch.nn.Parameter(torch.tensor(weight))
    optimizer = torch.optim.AdamW([peer], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    rng = np.random.default_rng(1)
    with backend.use(backend_name):
        for step in range(1, 11):
            grad = rng.standard_normal(weight.shape)
            adamw.update(weight, grad, m, v, **SETTINGS, step=step, grad_scale=1.0)
            peer.grad = torch.tensor(grad)
            optimizer.step()
            np.testing.assert_allclose(weight, peer.detach().numpy(), rtol=1e-12)


def test_threads_do_not_change_a_bit():
    if backend.cores() < 2:
        pytest.skip("one core")
    before, results = backend.threads(), []
    try:
        for count in (1, 2):
            backend.set_threads(count)
            state = arrays((5 * adamw.PART,), np.float32)
            adamw.update_fast(*state, **SETTINGS, step=1)
            results.append(state)
    finally:
        backend.set_threads(before)
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()


def test_a_transposed_gradient_is_read_by_its_strides():
    weight, grad, m, v = arrays((4, 4), np.float32)
    state = [weight.copy(), m.copy(), v.copy()]
    adamw.update_fast(weight, grad.T, m, v, **SETTINGS, step=1)
    adamw.update_fast(state[0], np.ascontiguousarray(grad.T), *state[1:], **SETTINGS, step=1)
    np.testing.assert_array_equal(weight, state[0])


def test_a_transposed_weight_is_changed_too():
    weight, grad, m, v = arrays((4, 3), np.float32)
    turned = [np.asfortranarray(array) for array in (weight, m, v)]
    adamw.update(turned[0], grad, *turned[1:], **SETTINGS, step=1)
    adamw.update(weight, grad, m, v, **SETTINGS, step=1)
    for one, other in zip(turned, (weight, m, v), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
