"""Facts that hold for every operation of the table in `ops.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops import OPS, Case, Op

from minillm import backend
from minillm.autograd import Tensor
from minillm.autograd import functional as F
from minillm.autograd.gradcheck import gradcheck
from minillm.errors import GraphError, InputError

over_ops = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
over_backends = pytest.mark.parametrize("kernels", ["numpy", "numba"])
few = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def upstream(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """A gradient that is different in every place."""
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def leaves(case: Case, dtype: Any = np.float64) -> list[Tensor]:
    """The arrays as leaves, with their memory layout."""
    found = [Tensor(0.0, requires_grad=True) for _ in case.arrays]
    for leaf, array in zip(found, case.arrays, strict=True):
        leaf.array = array if array.dtype == dtype else array.astype(dtype)
    return found


def run(op: Op, case: Case, dtype: Any = np.float64) -> tuple[np.ndarray, list[np.ndarray]]:
    """Our result and our gradients."""
    inputs = leaves(case, dtype)
    out = op.ours(*inputs, **case.constants)
    result = out.array.copy()
    out.backward(upstream(out.shape, dtype))
    return result, [leaf.grad for leaf in inputs]


@over_backends
@over_ops
@few
@given(data=st.data())
def test_gradient_is_the_derivative(op: Op, kernels: str, data: Any) -> None:
    case = data.draw(op.cases())
    with backend.use(kernels):
        gradcheck(lambda *inputs: op.ours(*inputs, **case.constants), case.arrays)


@over_ops
@few
@given(data=st.data())
def test_equals_pytorch(op: Op, data: Any) -> None:
    case = data.draw(op.cases())
    for dtype, digits in ((np.float64, 1e-10), (np.float32, 2e-5)):
        result, gradients = run(op, case, dtype)
        theirs = [torch.tensor(a.astype(dtype), requires_grad=True) for a in case.arrays]
        expected = op.torch(*theirs, **case.constants)
        expected.backward(torch.tensor(upstream(tuple(expected.shape), dtype)))
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected.detach().numpy(), digits, digits)
        for ours, leaf in zip(gradients, theirs, strict=True):
            assert ours.dtype == dtype
            wanted = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
            np.testing.assert_allclose(ours, wanted, 10 * digits, 10 * digits)


@over_ops
@few
@given(data=st.data())
def test_fast_kernels_equal_the_references(op: Op, data: Any) -> None:
    case = data.draw(op.cases())
    for dtype, digits in ((np.float64, 1e-11), (np.float32, 1e-5)):
        with backend.use("numpy"):
            result, gradients = run(op, case, dtype)
        with backend.use("numba"):
            fast_result, fast_gradients = run(op, case, dtype)
        np.testing.assert_allclose(fast_result, result, digits, digits)
        for fast, gradient in zip(fast_gradients, gradients, strict=True):
            np.testing.assert_allclose(fast, gradient, 10 * digits, 10 * digits)


@over_ops
@few
@given(data=st.data())
def test_a_second_pass_adds_the_same_and_shares_no_memory(op: Op, data: Any) -> None:
    case = data.draw(op.cases())
    inputs = leaves(case)
    out = op.ours(*inputs, **case.constants)
    dout = upstream(out.shape)
    out.backward(dout, retain_graph=True)
    first = [leaf.grad for leaf in inputs]
    kept = [gradient.copy() for gradient in first]
    for leaf in inputs:
        leaf.grad = None
    out.backward(dout)
    for leaf, gradient, copy in zip(inputs, first, kept, strict=True):
        np.testing.assert_array_equal(leaf.grad, copy)
        assert not np.shares_memory(leaf.grad, gradient)
        leaf.grad[...] = np.pi
    for gradient, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(gradient, copy)
    np.testing.assert_array_equal(dout, upstream(out.shape))


@over_ops
@few
@given(data=st.data())
def test_what_the_guard_lets_be_changed_does_not_matter(op: Op, data: Any) -> None:
    """Overwrite everything that can be written to between the passes: the gradients stay."""
    case = data.draw(op.cases())
    _, expected = run(op, case)
    inputs = leaves(Case([array.copy() for array in case.arrays], case.constants))
    constants = {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in case.constants.items()
    }
    out = op.ours(*inputs, **constants)
    dout = upstream(out.shape)
    for name, value in constants.items():
        if name not in ("cos", "sin") and isinstance(value, np.ndarray):
            value[...] = 0
    for tensor in (*inputs, out):
        try:
            tensor.writable()[...] = 7.0
        except GraphError:
            with pytest.raises(GraphError, match="still needed by the backward"):
                tensor.data[...] = 7.0
    out.backward(dout)
    for leaf, gradient in zip(inputs, expected, strict=True):
        np.testing.assert_allclose(leaf.grad, gradient, 1e-12, 1e-12)  # the copies lie otherwise
        leaf.writable()[...] = 0  # free again


@over_ops
@few
@given(data=st.data())
def test_no_gradient_is_made_for_who_needs_none(op: Op, data: Any) -> None:
    """Each input alone gives the same gradient as all together, and the result is the same."""
    case = data.draw(op.cases())
    result, expected = run(op, case)
    for alone, gradient in enumerate(expected):
        inputs = leaves(case)
        for position, leaf in enumerate(inputs):
            leaf.requires_grad = position == alone
        out = op.ours(*inputs, **case.constants)
        np.testing.assert_array_equal(out.array, result)
        out.backward(upstream(out.shape))
        np.testing.assert_array_equal(inputs[alone].grad, gradient)
        assert all(leaf.grad is None for leaf in inputs if leaf is not inputs[alone])


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((1, 3, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),  # three query heads cannot share two
        ((1, 4, 4, 8), (1, 2, 4, 6), (1, 2, 4, 6)),
        ((1, 4, 4, 8), (1, 2, 4, 8), (1, 2, 5, 8)),
        ((2, 4, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),
        ((4, 4, 8), (4, 4, 8), (4, 4, 8)),
    ],
)
def test_heads_that_do_not_fit_are_refused(q: Any, k: Any, v: Any) -> None:
    with pytest.raises(InputError, match=r"attention takes q \(B, H, T, D\)"):
        F.attention(*(Tensor(np.ones(shape)) for shape in (q, k, v)))
