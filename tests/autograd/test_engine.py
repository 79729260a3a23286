"""The walk: order, sums, memory, errors."""

from __future__ import annotations

import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import minillm.autograd.functional as F
from minillm.autograd import Tensor, concatenate, enable_grad, grad, no_grad
from minillm.autograd.engine import topological_order
from minillm.autograd.tensor import record
from minillm.errors import GraphError


def leaf(*shape: int, dtype: type = np.float64, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), True)


def test_a_chain_of_100000_operations() -> None:
    x, y = leaf(3), leaf(3)
    out = x
    for _ in range(100_000):
        out = out + y
    out.backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, np.ones(3))
    np.testing.assert_array_equal(y.grad, np.full(3, 100_000.0))


def test_a_chain_of_100000_operations_can_be_dropped() -> None:
    out = leaf(3)
    first = weakref.ref(out)
    for _ in range(100_000):
        out = out * 1.0
    assert len(topological_order(out)) == 100_001
    del out
    assert first() is None


def test_every_node_sends_once_after_all_that_used_it() -> None:
    """A ladder of diamonds: 2**60 paths, 120 nodes."""
    x = leaf()
    out = x
    for _ in range(60):
        out = out * 0.5 + out * 0.5
    out.backward()
    assert x.grad == pytest.approx(1.0)


def test_topological_order_has_parents_first() -> None:
    x = leaf(2)
    late = x * 2
    out = (x + late) * late
    order = topological_order(out)
    assert order[0] is x
    assert order[-1] is out
    for position, node in enumerate(order):
        earlier = {id(tensor) for tensor in order[:position]}
        assert all(id(parent) in earlier for parent in node.parents if parent.requires_grad)


def test_memory_is_released_while_backward_passes() -> None:
    """With 40 results of 1 MB on the tape, backward needs only a few more at any time."""
    x = Tensor(np.ones(2**17), True)
    out = x
    for _ in range(40):
        out = out.exp().log()
    tracemalloc.start()
    out.backward(np.ones(2**17))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20

    inner = weakref.ref(out)
    assert out.parents == ()
    del out
    assert inner() is None


def test_results_in_between_are_freed_as_the_walk_passes_them() -> None:
    x = leaf(4)
    seen: list[bool] = []

    def backward(dout: np.ndarray) -> tuple[np.ndarray]:
        seen.append(alive() is None)
        return (dout,)

    early = record("early", x.array.copy(), (x,), backward)
    middle = x * 2  # made later, so visited earlier
    alive = weakref.ref(middle)
    out = (early + 0.0) * (middle * middle)
    del middle
    assert alive() is not None
    out.sum().backward()
    assert seen == [True]


def test_dropping_the_result_drops_the_graph() -> None:
    x = leaf(4)
    out = (x * 2).exp()
    inner = weakref.ref(out.parents[0])
    del out
    assert inner() is None


def test_a_second_backward_is_an_error_unless_retained() -> None:
    x = leaf(3)
    out = (x * x).sum()
    out.backward(retain_graph=True)
    once = x.grad.copy()
    out.backward()
    np.testing.assert_array_equal(x.grad, 2 * once)
    with pytest.raises(GraphError, match="retain_graph=True"):
        out.backward()


def test_a_backward_through_a_part_that_was_released_is_an_error() -> None:
    x = leaf(3)
    shared = x * x
    first, second = shared.sum(), shared.exp().sum()
    first.backward()
    with pytest.raises(GraphError, match="released"):
        second.backward()


def test_gradients_of_leaves_add_up_over_passes() -> None:
    x = leaf(3)
    x.sum().backward()
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad, np.full(3, 3.0))
    x.zero_grad()
    assert x.grad is None


def test_the_gradient_of_a_result_in_between_is_not_kept_but_can_be_asked_for() -> None:
    x = leaf(3)
    middle = x * 3
    out = (middle * middle).sum()
    (dmiddle, dx, nothing) = grad(out, [middle, x, leaf(2)], retain_graph=True)
    np.testing.assert_allclose(dmiddle, 2 * middle.array)
    np.testing.assert_allclose(dx, 18 * x.array)
    assert nothing is None
    assert x.grad is None
    out.backward()
    assert middle.grad is None


def test_grad_of_a_tensor_by_itself_is_its_seed() -> None:
    x = leaf(2)
    out = x * 2
    np.testing.assert_array_equal(grad(out, [out], np.array([3.0, 4.0]))[0], [3.0, 4.0])


def test_gradients_take_the_dtype_and_shape_of_their_leaf() -> None:
    """Also under a wider upstream gradient, and where NumPy would answer with a scalar."""
    narrow, wide, scalar = leaf(2, 3, dtype=np.float32), leaf(3), leaf(dtype=np.float32)
    out = narrow * wide * scalar
    assert out.dtype == np.float64
    out.sum().backward()
    for tensor in (narrow, wide, scalar):
        assert type(tensor.grad) is np.ndarray
        assert tensor.grad.dtype == tensor.dtype
        assert tensor.grad.shape == tensor.shape


def test_scalar_results_are_arrays() -> None:
    x = leaf()
    for out in (x * 2, -x, x.exp(), x.sum(), x + x, x.max(), x[()], F.maximum(x, 0.0)):
        assert type(out.array) is np.ndarray
        out.backward()
    assert type(x.grad) is np.ndarray


def test_a_gradient_that_arrives_at_two_places_is_not_shared() -> None:
    x, y = leaf(3), leaf(3)
    seed = np.ones(3)
    (x + y).backward(seed)
    x.grad[...] = 5
    np.testing.assert_array_equal(y.grad, np.ones(3))
    np.testing.assert_array_equal(seed, np.ones(3))


def test_parts_of_one_array_are_not_shared() -> None:
    x, y = leaf(2), leaf(3)
    concatenate([x, y]).backward(np.arange(5.0))
    assert x.grad.base is None
    assert y.grad.base is None


@pytest.mark.parametrize("first", [False, True])
def test_a_gradient_that_is_added_in_place_joins_the_others(first: bool) -> None:
    """A lookup in a table that is used elsewhere, too: as a tied head and an embedding are."""
    table = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    looked_up = F.embedding(table, [2, 0, 2]) if first else None
    rest = (table * 5).sum()
    looked_up = F.embedding(table, [2, 0, 2]) if looked_up is None else looked_up
    seed = np.full((3, 2), 1.0)
    (looked_up.sum() + rest + (table * Tensor(seed)).sum()).backward()
    np.testing.assert_array_equal(table.grad, [[7, 7], [6, 6], [8, 8]])
    np.testing.assert_array_equal(seed, 1)


def test_the_seed_must_fit() -> None:
    x = leaf(3)
    with pytest.raises(GraphError, match=r"shape \(3,\) needs `grad`"):
        (x * 2).backward()
    with pytest.raises(GraphError, match=r"grad of shape \(2,\) for a tensor of shape \(3,\)"):
        (x * 2).backward(np.ones(2))
    with pytest.raises(GraphError, match="requires_grad"):
        Tensor([1.0]).backward()


def test_a_backward_of_the_wrong_form_is_named() -> None:
    x = leaf(3)
    with pytest.raises(GraphError, match="'odd' returned 2 gradients for 1 inputs"):
        record("odd", x.array, (x,), lambda dout: (dout, dout)).sum().backward()
    with pytest.raises(GraphError, match=r"'odd' returned a gradient of shape \(2,\) for input 0"):
        record("odd", x.array, (x,), lambda dout: (dout[:2],)).sum().backward()


def test_no_grad_leaves_no_notes_and_enable_grad_does() -> None:
    x = leaf(3)
    with no_grad():
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad


def test_every_thread_decides_for_itself() -> None:
    x = leaf(3)
    entered, leave = threading.Event(), threading.Event()
    seen: list[bool] = []

    def other() -> None:
        with no_grad():
            entered.set()
            leave.wait(10)
            seen.append((x * 2).requires_grad)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with no_grad():
        pass
    assert (x * 2).requires_grad
    leave.set()
    thread.join()
    assert seen == [False]
    assert (x * 2).requires_grad


def test_two_threads_can_run_backward_at_once() -> None:
    def work(results: list[np.ndarray], seed: int) -> None:
        x = leaf(5, seed=seed)
        for _ in range(50):
            x.zero_grad()
            (x * x).sum().backward()
        results.append(x.grad - 2 * x.array)

    results: list[np.ndarray] = []
    threads = [threading.Thread(target=work, args=(results, seed)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.array(results), 0)


def test_a_result_is_freed_while_its_own_backward_runs_unless_that_reads_it() -> None:
    x = leaf(4)
    alive: list[bool] = []

    def backward(dout: np.ndarray) -> tuple[np.ndarray]:
        alive.append(values() is not None)
        return (dout,)

    out = record("copy", x.array.copy(), (x,), backward, saves="nothing")
    values = weakref.ref(out.array)
    loss = out.sum()
    del out
    loss.backward()
    assert alive == [False]
