"""Recomputed equals stored, bit for bit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minillm.autograd.functional as F
from minillm.autograd import Tensor, checkpoint, grad, no_grad
from minillm.errors import GraphError


def leaf(*shape: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Tensor(values, requires_grad=True)


def plainly(function: Callable[..., Any], *inputs: Any) -> Any:
    return function(*inputs)


def both_ways(build: Callable[[Callable], tuple[Tensor, list[Tensor]]]) -> list[np.ndarray]:
    """The gradients that `build(checkpoint)` gives, checked against those of `build(plainly)`."""
    results = []
    for way in (plainly, checkpoint):
        out, inputs = build(way)
        out.backward(np.random.default_rng(9).standard_normal(out.shape))
        results.append([out.array, *(tensor.grad for tensor in inputs)])
    for stored, recomputed in zip(*results, strict=True):
        assert stored is not None
        np.testing.assert_array_equal(recomputed, stored)
    return results[1][1:]


def test_with_dropout_and_parameters_from_outside() -> None:
    def build(way: Callable) -> tuple[Tensor, list[Tensor]]:
        x, weight, rng = leaf(4, 6), leaf(6, 6, seed=1), np.random.default_rng(3)

        def block(h: Tensor) -> Tensor:
            return F.dropout(F.gelu(F.linear(h, weight)) @ weight, 0.4, rng) + h

        h = x * weight.sum()
        for _ in range(3):
            h = way(block, h)
        return h + F.dropout(h, 0.5, rng), [x, weight]

    both_ways(build)


def test_nested() -> None:
    def build(way: Callable) -> tuple[Tensor, list[Tensor]]:
        x, weight, rng = leaf(4, 6), leaf(6, 6, seed=1), np.random.default_rng(3)

        def inner(h: Tensor) -> Tensor:
            return F.dropout(h @ weight, 0.3, rng).tanh() * h

        def middle(h: Tensor) -> Tensor:
            return way(inner, F.dropout(h, 0.1, rng)) + way(inner, h) + weight[0]

        def outer(h: Tensor) -> Tensor:
            return way(middle, way(middle, h)) * weight.sum()

        return way(outer, way(outer, x)), [x, weight]

    both_ways(build)


def test_several_results_used_several_times() -> None:
    def build(way: Callable) -> tuple[Tensor, list[Tensor]]:
        x, y = leaf(4, 6), leaf(4, 6, seed=1)

        def parts(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
            c = a * b
            return c, c.exp(), a, c, b[0]

        c, e, a, again, row = way(parts, x, y)
        return (c * e + c * a).tanh() * (again + e) + row + row * c, [x, y]

    both_ways(build)


def test_a_result_that_nobody_uses() -> None:
    def build(way: Callable) -> tuple[Tensor, list[Tensor]]:
        x = leaf(4)
        used, _, _ = way(lambda a: (a * a, a.exp(), Tensor(np.ones(2))), x)
        return used, [x]

    both_ways(build)


def test_inputs_that_need_no_gradient_and_other_arguments() -> None:
    def build(way: Callable) -> tuple[Tensor, list[Tensor]]:
        weight, constant = leaf(5, 3), Tensor(np.ones((2, 3), np.float32))

        def layer(h: Tensor, ids: np.ndarray, name: str) -> Tensor:
            assert name == "layer"
            return F.embedding(weight, ids) * h

        return way(layer, constant, np.array([1, 4]), "layer"), [weight]

    both_ways(build)


def test_a_tensor_in_between_from_outside() -> None:
    def build(way: Callable) -> tuple[Tensor, list[Tensor]]:
        x = leaf(4)
        scale = x.exp()
        return way(lambda a: a * scale, x) * scale, [x]

    both_ways(build)


def test_retain_graph() -> None:
    x, rng = leaf(4), np.random.default_rng(0)
    out = checkpoint(lambda a: F.dropout(a * a, 0.5, rng), x).sum()
    out.backward(retain_graph=True)
    once = x.grad.copy()
    out.backward()
    np.testing.assert_array_equal(x.grad, 2 * once)
    with pytest.raises(GraphError, match="retain_graph"):
        out.backward()


def test_grad_reaches_tensors_on_both_sides() -> None:
    x = leaf(4)
    middle = x * 2
    out = checkpoint(lambda a: a * a, middle)
    dmiddle, dx = grad(out.sum(), [middle, x])
    np.testing.assert_array_equal(dmiddle, 2 * middle.array)
    np.testing.assert_array_equal(dx, 4 * middle.array)


def test_nothing_to_differentiate() -> None:
    constant = Tensor(np.ones(3))
    calls = []
    out = checkpoint(lambda a: calls.append(1) or a * 2, constant)
    assert not out.requires_grad
    with no_grad():
        assert not checkpoint(lambda a: a * 2, leaf(3)).requires_grad
    assert len(calls) == 1


def test_what_the_second_run_reads_cannot_be_changed() -> None:
    x, weight, mask = leaf(3), leaf(3, seed=1), Tensor(np.ones(3, np.float32))
    out = checkpoint(lambda a, m: a * weight * m, x, mask)
    for tensor in (x, weight, mask):
        with pytest.raises(GraphError, match="still needed"):
            tensor.writable()
    out.sum().backward()
    for tensor in (x, weight, mask):
        tensor.writable()


def test_a_function_that_does_something_else_the_second_time() -> None:
    runs = []
    x, rng = leaf(3), np.random.default_rng(0)

    def shrinking(a: Tensor) -> Tensor:
        runs.append(1)
        return (a * 2)[len(runs) - 1 :]

    def drawing_more(a: Tensor) -> Tensor:
        runs.append(1)
        for _ in runs:
            a = F.dropout(a, 0.5, rng)
        return a

    def drawing_less(a: Tensor) -> Tensor:
        runs.append(1)
        return F.dropout(a, 0.5, rng) if len(runs) == 1 else a * 2

    for function, message in (
        (shrinking, r"shapes \[\(3,\)\] the first time and \[\(2,\)\] the second"),
        (drawing_more, "more than the 1 seeds"),
        (drawing_less, "drew 0 seeds, the first one 1"),
    ):
        runs.clear()
        with pytest.raises(GraphError, match=message):
            checkpoint(function, x).sum().backward()
    with pytest.raises(TypeError, match="returned a list"):
        checkpoint(lambda a: [a], x)


def test_the_generator_ends_where_it_would_have() -> None:
    rngs = []
    for way in (plainly, checkpoint):
        rngs.append(np.random.default_rng(5))
        way(lambda a: F.dropout(a, 0.5, rngs[-1]), leaf(3)).sum().backward()
    assert rngs[0].random() == rngs[1].random()


def test_it_keeps_the_inputs_of_a_layer_and_not_its_insides() -> None:
    def held(way: Callable) -> int:
        x = Tensor(np.ones(2**15, np.float32), requires_grad=True)

        def layer(h: Tensor) -> Tensor:
            for _ in range(10):
                h = h.tanh()
            return h

        tracemalloc.start()
        out = x
        for _ in range(5):
            out = way(layer, out)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        out.sum().backward()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - size < 16 * 2**17  # one layer's insides, not five
        return size // 2**17  # in arrays

    assert held(plainly) >= 50
    assert held(checkpoint) <= 6
