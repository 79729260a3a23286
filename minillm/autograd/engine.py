"""The walk from a result back to its leaves: the order, the sums, the release of memory.

This file applies the chain rule and knows no operation: a node is anything with `parents`,
`_backward`, `array`, `grad`, `requires_grad` and `_release()`. Put a breakpoint in `_walk` to see
each operation's backward called in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from minillm import backend
from minillm.backend import Array
from minillm.errors import GraphError

if TYPE_CHECKING:
    from minillm.autograd.tensor import Tensor

Arrive = Callable[["Tensor", Array, bool], None]


def backward(output: Tensor, seed: Array, retain_graph: bool) -> None:
    """Add to the `.grad` of every leaf below `output`, starting from d(final)/d(output) = `seed`."""

    def arrive(node: Tensor, gradient: Array, fresh: bool) -> None:
        if node._backward is not None:
            return
        if node.grad is None:
            node.grad = gradient if fresh else gradient.copy()
        else:
            node.grad += gradient

    _walk(output, seed, retain_graph, arrive)


def gradients(
    output: Tensor, seed: Array, inputs: Sequence[Tensor], retain_graph: bool
) -> list[Array | None]:
    """The gradients that arrive at `inputs`, which may be leaves or tensors in between."""
    found: dict[int, Array | None] = {id(tensor): None for tensor in inputs}

    def arrive(node: Tensor, gradient: Array, fresh: bool) -> None:
        if id(node) in found:
            found[id(node)] = gradient if fresh else gradient.copy()

    _walk(output, seed, retain_graph, arrive)
    return [found[id(tensor)] for tensor in inputs]


def _walk(output: Tensor, seed: Array, retain_graph: bool, arrive: Arrive) -> None:
    """Visit every node after all nodes that used it, with the sum of what they sent it.

    `arrive(node, gradient, fresh)` sees each complete gradient; `fresh` says that nothing else
    holds that array.
    """
    waiting = topological_order(output)
    sums: dict[int, Array] = {id(output): seed}
    fresh: set[int] = set()  # nodes whose sum is an array that only we hold
    while waiting:
        node = waiting.pop()
        gradient = sums.pop(id(node), None)
        if gradient is not None:
            arrive(node, gradient, id(node) in fresh)
            if node._backward is not None:
                _send(node, gradient, sums, fresh)
        if node._backward is not None and not retain_graph:
            node._release()


def topological_order(output: Tensor) -> list[Tensor]:
    """The nodes below `output` that need gradients, every node after all of its parents.

    Depth first with a stack of our own: Python's would overflow on a chain of 100,000 operations.
    """
    order: list[Tensor] = []
    seen: set[int] = set()
    stack = [(output, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            if node._backward is released:
                released(None)
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((p, False) for p in node.parents if p.requires_grad and id(p) not in seen)
    return order


def _send(node: Tensor, gradient: Array, sums: dict[int, Array], fresh: set[int]) -> None:
    """Run one node's backward and add what it returns to its parents' sums."""
    parts = node._backward(gradient)
    if len(parts) != len(node.parents):
        raise GraphError(
            f"backward of '{node.op}' returned {len(parts)} gradients for {len(node.parents)} inputs"
        )
    for position, (parent, part) in enumerate(zip(node.parents, parts, strict=True)):
        if part is None or not parent.requires_grad:
            continue
        own = part is not gradient and part.flags.owndata  # not the caller's array, nor a view
        if part.shape != parent.array.shape:
            part, own = _unbroadcast(part, parent.array.shape, node.op, position), True
        if part.dtype != parent.array.dtype:
            part, own = part.astype(parent.array.dtype), True
        key = id(parent)
        if key not in sums:
            sums[key] = part
            if own:
                fresh.add(key)
        elif key in fresh:
            sums[key] += part
        else:
            sums[key] = sums[key] + part
            fresh.add(key)


def _unbroadcast(part: Array, shape: tuple[int, ...], op: str, position: int) -> Array:
    """Sum a gradient over the axes along which its input was repeated by broadcasting."""
    extra = part.ndim - len(shape)
    stretched = tuple(
        extra + i
        for i, n in enumerate(shape)
        if extra >= 0 and n == 1 and part.shape[extra + i] != 1
    )
    total = part.sum(axis=(*range(extra), *stretched), keepdims=True) if extra >= 0 else part
    if total.shape[max(extra, 0) :] != shape:
        raise GraphError(
            f"backward of '{op}' returned a gradient of shape {part.shape} for input {position},"
            f" whose shape is {shape}"
        )
    return backend.array_module(part).asarray(total).reshape(shape)


def released(dout: Array) -> Sequence[Array | None]:
    """Stands where the backward of a node was, once a backward pass has gone by."""
    raise GraphError(
        "backward over a graph that an earlier backward has released;"
        " pass retain_graph=True to the earlier one, or run the forward pass again"
    )
