"""What a tensor holds, and how it behaves among Python's and NumPy's own values."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minillm.autograd.functional as F
from minillm.autograd import Tensor, no_grad
from minillm.autograd.recording import watching
from minillm.errors import GraphError


def test_it_holds_a_copy_and_keeps_the_dtype() -> None:
    array = np.ones((2, 3), np.float32)
    tensor = Tensor(array)
    array[...] = 0
    assert tensor.array.sum() == 6
    assert (tensor.shape, tensor.ndim, tensor.size, len(tensor)) == ((2, 3), 2, 6, 2)
    assert Tensor([1.5]).dtype == Tensor(1.5).dtype == np.float32
    assert Tensor(np.float64(1.5)).dtype == Tensor(np.ones(2)).dtype == np.float64
    assert Tensor([1, 2]).dtype.kind == "i"
    assert Tensor(tensor).array is not tensor.array


def test_only_floats_have_gradients() -> None:
    with pytest.raises(GraphError, match="this is int64"):
        Tensor(np.array([1, 2]), requires_grad=True)


def test_numbers_take_the_dtype_of_the_tensor() -> None:
    for dtype in (np.float32, np.float64):
        x = Tensor(np.ones(3, dtype))
        for out in (
            x + 1,
            2.5 * x,
            x / np.float64(3),
            x**2,
            x ** np.float64(2),
            2**x,
            1 - x,
            np.float64(3) * x,
        ):
            assert out.dtype == dtype
    whole = Tensor(np.array([1, 2]))
    assert (whole * 0.5).array.tolist() == [0.5, 1.0]
    assert (whole + 1).array.tolist() == [2, 3]


def test_numpy_on_the_left_asks_the_tensor() -> None:
    x = Tensor(np.full(2, 3.0), requires_grad=True)
    for out in (np.ones(2) * x, np.ones(2) - x, np.ones(2) / x, np.ones((1, 2)) @ x):
        assert isinstance(out, Tensor)
        assert out.requires_grad


def test_comparisons_are_tensors_without_history() -> None:
    x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    for out, expected in (
        (x < 2, [True, False, False]),
        (x <= 2, [True, True, False]),
        (x > 2, [False, False, True]),
        (x >= 2, [False, True, True]),
        (x == np.array([1.0, 0.0, 3.0]), [True, False, True]),
        (x != 2, [True, False, True]),
    ):
        assert out.array.tolist() == expected
        assert not out.requires_grad
    assert len({x, x + 0}) == 2  # still told apart by identity


def test_truth_and_numbers() -> None:
    x = Tensor(np.array([2.0, 0.0]))
    assert bool(x[0])
    assert not x[1]
    assert float(x[0]) == x[0].item() == 2.0
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    assert [part.item() for part in x] == [2.0, 0.0]


def test_numpy_gets_an_array_only_where_no_gradient_is_lost() -> None:
    x = Tensor(np.array([2.0, 0.0]))
    assert np.asarray(x).tolist() == [2.0, 0.0]
    assert np.array(x, dtype=np.float32).dtype == np.float32
    x.requires_grad = True
    with pytest.raises(GraphError, match="detach"):
        np.asarray(x)


def test_it_shows_its_values_and_origin() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "Tensor([1. 2.], requires_grad=True)"
    assert repr(x * 2) == "Tensor([2. 4.], op='mul')"
    assert (x * 2).op == "mul"
    assert (x * 2).parents[0] is x
    with no_grad():
        assert (x * 2).parents == ()


def test_detach_stops_the_gradient() -> None:
    x = Tensor([3.0], requires_grad=True)
    (x * x.detach()).sum().backward()
    assert x.grad.tolist() == [3.0]
    assert x.detach().array is x.array


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_is_a_leaf_of_its_own(duplicate: object) -> None:
    """Also for the engine, which tells tensors apart by their place."""
    x = Tensor([3.0], requires_grad=True)
    twin = duplicate(x)
    (x * 2 + twin * 5).sum().backward()
    assert (x.grad.item(), twin.grad.item()) == (2.0, 5.0)
    twin.data[...] = 0
    assert x.item() == 3.0
    with pytest.raises(GraphError, match="only leaves"):
        duplicate(x * 2)


def test_watching_sees_what_operations_make_and_may_change_it() -> None:
    x = Tensor([3.0], requires_grad=True)
    seen: list[str] = []

    def see(tensor: Tensor) -> None:
        seen.append(tensor.op)
        if tensor.op == "mul":
            tensor.array = tensor.array + 1

    with watching(see):
        out = F.relu(x * 2) + x
    assert seen == ["mul", "relu", "add"]
    assert out.item() == 10.0
    assert (x * 2).item() == 6.0


def test_vectors_and_matrices_multiply() -> None:
    a, b = np.arange(3.0), np.arange(6.0).reshape(3, 2)
    assert (Tensor(a) @ Tensor(b)).array.tolist() == (a @ b).tolist()
    assert (Tensor(b.T) @ Tensor(a)).array.tolist() == (b.T @ a).tolist()
    assert (Tensor(a) @ Tensor(a)).shape == ()
    with pytest.raises(ValueError, match="mismatch|shapes"):
        Tensor(a) @ Tensor(b.T)
