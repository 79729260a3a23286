"""Changing what a later backward needs is an error, by every route; any other change works."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

import minillm.autograd.functional as F
from minillm.autograd import Tensor, guard, no_grad
from minillm.autograd.tensor import guard_of
from minillm.errors import GraphError


def leaf() -> Tensor:
    return Tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)


def add_to_data(x: Tensor) -> None:
    x.data += 1


def assign_elements(x: Tensor) -> None:
    x.data[0] = 5


def assign_by_index(x: Tensor) -> None:
    x[0, 1] = 5


def ask_for_the_array(x: Tensor) -> None:
    x.writable()[...] = 5


def through_numpy(x: Tensor) -> None:
    x.numpy()[...] = 5


def through_a_reshaped_view(x: Tensor) -> None:
    x.reshape(4).data[0] = 5


def through_a_slice(x: Tensor) -> None:
    x.detach()[0].data[...] = 5


def through_a_slices_index(x: Tensor) -> None:
    x.detach()[0][1] = 5


def through_a_transposed_view(x: Tensor) -> None:
    x.detach().T.writable()[...] = 5


def through_detach(x: Tensor) -> None:
    x.detach().data[...] = 5


def with_no_grad(x: Tensor) -> None:
    with no_grad():
        x[0] = 5


ROUTES: list[Callable[[Tensor], None]] = [
    add_to_data,
    assign_elements,
    assign_by_index,
    ask_for_the_array,
    through_numpy,
    through_a_reshaped_view,
    through_a_slice,
    through_a_slices_index,
    through_a_transposed_view,
    through_detach,
    with_no_grad,
]
over_routes = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)


@over_routes
def test_an_input_that_backward_needs_cannot_be_changed(route: Callable) -> None:
    x = leaf()
    out = (x * x).sum()
    with pytest.raises(GraphError, match="still needed by the backward of 'mul'"):
        route(x)
    out.backward()
    np.testing.assert_array_equal(x.grad, [[2, 4], [6, 8]])


@over_routes
def test_it_can_be_changed_before_after_and_when_the_graph_is_gone(route: Callable) -> None:
    x = leaf()
    route(x)
    before = x.array.copy()
    out = (x * x).sum()
    out.backward()
    np.testing.assert_array_equal(x.grad, 2 * before)
    route(x)
    out = (x * x).sum()
    del out
    route(x)
    assert not np.array_equal(x.array, leaf().array)


@over_routes
def test_it_can_be_changed_where_no_backward_needs_it(route: Callable) -> None:
    x = leaf()
    out = (x + 1).sum()
    route(x)
    out.backward()
    np.testing.assert_array_equal(x.grad, np.ones((2, 2)))


@pytest.mark.parametrize("make", [Tensor.exp, Tensor.tanh, F.softmax], ids=lambda f: f.__name__)
def test_a_result_that_its_own_backward_needs_cannot_be_changed(make: Callable) -> None:
    x = leaf()
    out = make(x)
    with pytest.raises(GraphError, match=f"backward of '{make.__name__}'"):
        out.data[...] = 0
    with pytest.raises(GraphError):
        out[0] = 0
    out.sum().backward()
    out.data[...] = 0


def test_an_array_handed_out_before_is_read_only_in_the_meantime() -> None:
    x = leaf()
    early = x.data
    out = (x * x).sum()
    with pytest.raises(ValueError, match="read-only"):
        early[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        early += 1
    out.backward()
    early[0] = 5
    np.testing.assert_array_equal(x.array[0], [5, 5])


PARTS: dict[str, Callable[[Tensor], Callable[[], None]]] = {
    "slice": lambda x: partial(x.data[:1].fill, 7),
    "slice of a slice": lambda x: partial(x.data[:, 1:][1:].fill, 7),
    "reshaped": lambda x: partial(x.data.reshape(4)[2:].fill, 7),
    "transposed": lambda x: partial(x.data.T.fill, 7),
    "of writable()": lambda x: partial(x.writable()[0].fill, 7),
    "of numpy()": lambda x: partial(np.asarray(x.numpy()[0]).fill, 7),
    "of a view": lambda x: partial(x.detach().reshape(4).data[1:3].fill, 7),
    "buffer": lambda x: partial(memoryview(x.data).__setitem__, (0, 0), 7.0),
    "torch": lambda x: torch.from_numpy(x.data).zero_,
}


@pytest.mark.parametrize("cut", PARTS.values(), ids=PARTS)
def test_a_part_cut_out_before_and_written_to_later_is_found_by_backward(cut: Callable) -> None:
    """NumPy cannot lock it any more: a seal on the values finds the change."""
    x = leaf()
    write = cut(x)
    out = (x * x).sum()
    write()
    with pytest.raises(GraphError, match=r"\(2, 2\).* 'mul' needs was changed after the forward"):
        out.backward()

    x = leaf()
    write = cut(x)
    (x * x).sum().backward()  # nobody has written
    np.testing.assert_array_equal(x.grad, [[2, 4], [6, 8]])
    write()
    out = (x * x).sum()
    del write
    out.backward()
    assert not np.array_equal(x.grad, [[4, 8], [12, 16]])


def test_no_seal_is_computed_where_no_part_of_the_data_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: np.ndarray) -> int:
        raise AssertionError

    monkeypatch.setattr(guard, "_checksum", refuse)
    x = leaf()
    x.data[0] += x.numpy()[1]
    x.writable()[...] = 1
    x.data += 1
    (x * x).sum().backward()
    part = x.data[0]
    with pytest.raises(AssertionError):
        x * x
    del part
    x * x


def test_any_dtype_and_size_can_be_sealed() -> None:
    for array in (np.float32(3.0), np.zeros((0, 3)), np.zeros((3, 0)), np.ones((2, 3, 4)).T):
        x = Tensor(array, requires_grad=True)
        held = x.data
        (x * x).sum().backward()
        del held


def test_what_is_computed_from_pinned_data_is_a_plain_array() -> None:
    x = leaf()
    out = x * x
    data = x.data
    results = [data + 1, -data, data @ data, np.exp(data), data > 2, np.asarray(data),
               data.sum(axis=0), data.sum(), Tensor(data).array]  # fmt: skip
    assert all(type(result) in (np.ndarray, np.float64) for result in results)
    assert data.guard is guard_of(x)
    copy = data.copy()
    copy[0] = 5
    copy -= 1
    with pytest.raises(GraphError):
        data[0][1:] *= 2
    out.sum().backward()
    data[0] = 5
    data += 1
    np.testing.assert_array_equal(x.array, [[6, 6], [4, 5]])


def test_data_is_copied_from_what_it_is_set_to() -> None:
    x, values = leaf(), np.full((2, 2), 3.0)
    x.data = values
    out = (x * x).sum()
    values[...] = 0
    out.backward()
    np.testing.assert_array_equal(x.grad, np.full((2, 2), 6.0))


def test_a_view_of_a_pinned_tensor_is_read_only_whichever_came_first() -> None:
    x = leaf()
    row = x.detach()[0]
    out = (x * x).sum()
    with pytest.raises(GraphError, match="needed by the backward of 'mul'"):
        row.writable()
    out.backward()
    row.writable()[...] = 9
    np.testing.assert_array_equal(x.array[0], [9, 9])


def test_the_pin_is_held_until_the_last_operation_lets_go() -> None:
    x = leaf()
    first, second = (x * x).sum(), (x * x).sum()
    first.backward()
    with pytest.raises(GraphError):
        x.data[0] = 5
    del second, first
    x.data[0] = 5


def test_retain_graph_keeps_the_pin() -> None:
    x = leaf()
    out = (x * x).sum()
    out.backward(retain_graph=True)
    with pytest.raises(GraphError):
        x.data[0] = 5
    out.backward()
    x.data[0] = 5


def test_replacing_the_data_leaves_the_graph_its_old_array() -> None:
    x = leaf()
    out = (x * x).sum()
    x.data = np.zeros((2, 2))
    x.data[0] = 7
    out.backward()
    np.testing.assert_array_equal(x.grad, [[2, 4], [6, 8]])
    np.testing.assert_array_equal(x.array, [[7, 7], [0, 0]])
    with pytest.raises(ValueError, match=r"data of shape \(3,\)"):
        x.data = np.zeros(3)


def test_an_array_given_to_an_operation_is_copied() -> None:
    x, factor = leaf(), np.full((2, 2), 3.0)
    out = (x * factor).sum() + (factor * x).sum()
    chosen = np.array([0, 0])
    picked = x[chosen].sum()
    factor[...] = 0
    chosen[...] = 1
    (out + picked).backward()
    np.testing.assert_array_equal(x.grad, [[8, 8], [6, 6]])


def test_the_error_says_who_needs_it() -> None:
    x = leaf()
    kept = F.gelu(x)
    with pytest.raises(GraphError, match=r"shape \(2, 2\) .* backward of 'gelu'.*call backward"):
        x.writable()
    del kept


def test_under_no_grad_nothing_is_pinned() -> None:
    x = leaf()
    with no_grad():
        out = x * x
    x.data[0] = 5
    out.data[0] = 5


def test_assigning_a_tensor_that_requires_gradients_is_an_error() -> None:
    x, y = leaf(), leaf()
    with pytest.raises(GraphError, match="not recorded"):
        x[0] = y[1]
    with pytest.raises(GraphError, match="not recorded"):
        (x + 1)[0] = 5
    x[0] = y[1].detach()
    np.testing.assert_array_equal(x.array[0], [3, 4])
