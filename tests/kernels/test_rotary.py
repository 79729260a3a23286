"""Rotary embedding: lengths stay, only distances count, and backward turns back."""

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from minillm import backend
from minillm.kernels import rotary


def case(shape, dtype, rows=1, seed=0):
    B, H, T, D = shape
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((B, T, H, D)).astype(dtype).swapaxes(1, 2)
    cos, sin = rotary.tables(rng.integers(0, 500, (rows, T)), D, 1e4, dtype)
    return x, cos, sin


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 3, 5, 6), (2, 1, 0, 4), (3, 2, 7, 16)])
@pytest.mark.parametrize("own_positions", [False, True])
def test_fast_twin_equals_reference(shape, dtype, own_positions):
    x, cos, sin = case(shape, dtype, shape[0] if own_positions else 1)
    bound = {"rtol": 8 * np.finfo(dtype).eps, "atol": 8 * np.finfo(dtype).eps}
    for ways in ("forward", "backward"):
        fast = getattr(rotary, f"{ways}_fast")(x, cos, sin)
        plain = getattr(rotary, f"{ways}_reference")(x, cos, sin)
        assert fast.dtype == plain.dtype == dtype
        np.testing.assert_allclose(fast, plain, **bound)


def test_the_result_lies_in_memory_as_attention_reads_it():
    x, cos, sin = case((2, 3, 4, 6), np.float32)
    assert rotary.forward_fast(x, cos, sin).swapaxes(1, 2).flags.c_contiguous


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_equals_hugging_face(name):
    x, cos, sin = case((2, 3, 5, 8), np.float64)
    peer = torch.tensor(np.ascontiguousarray(x), requires_grad=True)
    doubled = [torch.tensor(np.concatenate([part, part], axis=-1)) for part in (cos, sin)]
    expected, _ = apply_rotary_pos_emb(peer, peer, *doubled)
    dout = np.random.default_rng(1).standard_normal(x.shape)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        np.testing.assert_allclose(rotary.forward(x, cos, sin), expected.detach(), rtol=1e-12)
        np.testing.assert_allclose(rotary.backward(dout, cos, sin), peer.grad, rtol=1e-12)


def test_a_dot_product_depends_on_the_distance_alone():
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, 1, 1, 1, 8))

    def score(t: int, s: int) -> float:
        turned = [
            rotary.forward(x, *rotary.tables(np.array([[place]]), 8, 1e4, np.float64))
            for x, place in ((query, t), (key, s))
        ]
        return float((turned[0] * turned[1]).sum())

    assert abs(score(5, 2) - score(105, 102)) < 1e-12
    assert abs(score(5, 2) - score(5, 3)) > 1e-3
