"""ReLU, SiLU and SwiGLU: twin, reference, PyTorch, the far ends, threads. GELU has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cases import BACKENDS, DTYPES, SHAPES, assert_close, assert_same_on_any_threads, exact, numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.kernels import gelu, layout, relu, silu, swiglu


class Activation(NamedTuple):
    kernel: Any
    inputs: int
    peer: Callable


ACTIVATIONS = [
    Activation(relu, 1, torch.relu),
    Activation(silu, 1, torch.nn.functional.silu),
    Activation(swiglu, 2, lambda gate, up: torch.nn.functional.silu(gate) * up),
]
EACH = pytest.mark.parametrize(
    "activation",
    ACTIVATIONS,
    ids=[entry.kernel.__name__.rpartition(".")[2] for entry in ACTIVATIONS],
)


def listed(result: Any) -> list[np.ndarray]:
    return list(result) if isinstance(result, tuple) else [result]


@EACH
@DTYPES
@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, scale=st.sampled_from([0.1, 3, 1e4]), strided=st.booleans())
def test_fast_twin_equals_reference(activation, dtype, shape, scale, strided):
    inputs = [numbers(shape, dtype, seed, scale, strided) for seed in range(activation.inputs)]
    dout = numbers(shape, dtype, 9, strided=strided)
    kernel, wide, wide_dout = activation.kernel, exact(*inputs), *exact(dout)
    assert_close([kernel.forward_fast(*inputs)], [kernel.forward_reference(*wide)], dtype, 20)
    assert_close(
        listed(kernel.backward_fast(dout, *inputs)),
        listed(kernel.backward_reference(wide_dout, *wide)),
        dtype,
        20,
    )


@EACH
@BACKENDS
def test_equals_pytorch(activation, name):
    inputs = [numbers((3, 5, 21), np.float64, seed, 3) for seed in range(activation.inputs)]
    dout = numbers((3, 5, 21), np.float64, 9)
    peers = [torch.tensor(part, requires_grad=True) for part in inputs]
    expected = activation.peer(*peers)
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        out = activation.kernel.forward(*inputs)
        gradients = listed(activation.kernel.backward(dout, *inputs))
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-13, atol=1e-15)
    for ours, peer in zip(gradients, peers, strict=True):
        np.testing.assert_allclose(ours, peer.grad, rtol=1e-12, atol=1e-14)


@BACKENDS
@DTYPES
@pytest.mark.parametrize("kernel", [relu, silu])
def test_far_ends(kernel, name, dtype):
    x = np.array([-np.inf, -1e30, -1e4, 1e4, 1e30, np.inf, np.nan], dtype)
    with backend.use(name), np.errstate(invalid="ignore"):
        out, slope = kernel.forward(x), kernel.backward(np.ones_like(x), x)
    np.testing.assert_array_equal(slope, np.array([0, 0, 0, 1, 1, 1, np.nan], dtype))
    np.testing.assert_array_equal(out[1:], np.array([0, 0, 1e4, 1e30, np.inf, np.nan], dtype))


@BACKENDS
def test_swiglu_shows_a_bad_gate_and_a_bad_operand(name):
    gate, up = np.array([np.nan, 1.0, -1e4]), np.array([1.0, np.inf, 5.0])
    with backend.use(name):
        out, (dgate, dup) = swiglu.forward(gate, up), swiglu.backward(np.ones(3), gate, up)
    np.testing.assert_array_equal(out[:2], [np.nan, np.inf])
    np.testing.assert_array_equal(dgate[:2], [np.nan, np.inf])
    assert np.isnan(dup[0]) and abs(out[2]) < 1e-300 and dgate[2] == 0 == dup[2]


@BACKENDS
def test_relu_of_a_zero_has_slope_zero(name):
    with backend.use(name):
        assert not relu.backward(np.ones(2), np.array([0.0, -0.0])).any()


def test_threads_do_not_change_a_bit():
    x, dout = (numbers((3 * layout.PART + 5,), np.float32, seed) for seed in (0, 1))
    assert_same_on_any_threads(
        lambda: [
            part
            for kernel, *inputs in [(relu, x), (silu, x), (gelu, x), (swiglu, x, x[::-1])]
            for part in [
                kernel.forward_fast(*inputs),
                *listed(kernel.backward_fast(dout, *inputs)),
            ]
        ]
    )
