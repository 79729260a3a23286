"""The walk from a result back to its leaves: the order, the sums, the release of memory.

This file applies the chain rule and knows no operation. A node is a tensor: `parents`, the function
`_backward` that made-by operations carry (None in a leaf), and `place`, a number that grows with
every tensor made. Parents are made before children, so the waiting node with the highest place has
already heard from everybody who used it: a heap of places is all the ordering there is. Nothing
recurses, so a chain of 100,000 operations is as good as one of ten.

Put a breakpoint in `_walk` to see each operation's backward called in turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from minillm import backend
from minillm.autograd.guard import check_seals
from minillm.backend import Array
from minillm.errors import GraphError
from minillm.kernels.bfloat16 import BFLOAT16
from minillm.kernels.layout import sum_to

if TYPE_CHECKING:
    from minillm.autograd.tensor import Tensor


# The gradient of one input, as a backward returns it: an array, or a function that adds it to one
# (an embedding's is 0 almost everywhere), or None for none.
Part = Array | Callable[[Array], None] | None


class _Pass(threading.local):
    retained = False  # whether the pass under way in this thread keeps the graph


_pass = _Pass()


def graph_is_retained() -> bool:
    """Whether the pass under way may come again; if not, a backward may give its arrays away."""
    return _pass.retained


def backward(output: Tensor, seed: Array, retain_graph: bool) -> None:
    """Add to the `.grad` of all leaves below `output`; `seed` is d(final)/d(output)."""

    def arrive(node: Tensor, gradient: Array, own: bool) -> None:
        if node._backward is not None:
            return
        if node.grad is None:
            node.grad = gradient if own else gradient.copy()
        else:
            node.grad += gradient

    _walk(output, seed, retain_graph, arrive)


def gradients(
    output: Tensor, seed: Array, inputs: Sequence[Tensor], retain_graph: bool
) -> list[Array | None]:
    """The gradients that arrive at `inputs`, which may be leaves or tensors in between."""
    found: dict[int, Array] = {}
    wanted = {id(tensor) for tensor in inputs}

    def arrive(node: Tensor, gradient: Array, own: bool) -> None:
        if id(node) in wanted:
            found[id(node)] = gradient if own else gradient.copy()

    _walk(output, seed, retain_graph, arrive)
    return [found.get(id(tensor)) for tensor in inputs]


def _walk(
    output: Tensor, seed: Array, retain_graph: bool, arrive: Callable[[Tensor, Array, bool], None]
) -> None:
    """Visit every node after all nodes that used it, with the sum of what they sent it.

    `arrive(node, gradient, own)` sees each complete gradient; `own` says that nobody else holds
    that array.
    """
    outer, _pass.retained = _pass.retained, retain_graph
    sums = Sums()
    sums.add(output, seed, False)  # it may be the caller's
    try:
        while sums.heap:
            node, gradient, own = sums.pop()
            arrive(node, gradient, own)
            if node._backward is not None:
                op, run, parents = node.op, node._backward, node.parents
                if node._holds is not None:
                    check_seals(node._holds)
                if not retain_graph:
                    node.release()
                del node  # its array is free unless `run` reads it
                _send(op, gradient, parents, run(gradient), sums)
    finally:
        _pass.retained = outer


class Sums:
    """The gradients on their way: for every waiting node, the sum of what has come so far."""

    def __init__(self) -> None:
        self.heap: list[int] = []  # places, negative because Python's heaps give the smallest
        self.waiting: dict[int, tuple[Tensor, Array, bool]] = {}  # by place

    def add(self, node: Tensor, part: Array, own: bool) -> None:
        """Add `part` to the gradient of `node`; `own` says that nobody else holds the array."""
        place = node.place
        known = self.waiting.get(place)
        if known is None:
            heappush(self.heap, -place)
            self.waiting[place] = (node, part, own)
        elif known[2]:
            total = known[1]
            total += part
        elif own:
            part += known[1]
            self.waiting[place] = (node, part, True)
        else:
            total = known[1] + part
            if isinstance(total, np.generic):  # NumPy's answer where 0-d arrays went in
                total = np.asarray(total)
            self.waiting[place] = (node, total, True)

    def scatter(self, node: Tensor, add_to: Callable[[Array], None]) -> None:
        """Have `add_to(total)` add to the gradient of `node` in its place."""
        known = self.waiting.get(node.place)
        if known is None or not known[2]:
            self.add(node, backend.array_module(node.array).zeros_like(node.array), True)
        add_to(self.waiting[node.place][1])

    def pop(self) -> tuple[Tensor, Array, bool]:
        """The node that nobody in the heap was made from, with its complete gradient."""
        return self.waiting.pop(-heappop(self.heap))


class Continuation:
    """What a backward may return in place of gradients: new nodes, for the walk to go on with.

    `gradients` are those of `nodes`, None where there is none. See `checkpoint.py`.
    """

    def __init__(self, nodes: Sequence[Tensor], gradients: Sequence[Array | None]) -> None:
        self.nodes, self.gradients = nodes, gradients

    def join(self, sums: Sums) -> None:
        for node, part in zip(self.nodes, self.gradients, strict=True):
            if part is not None and node.requires_grad:
                sums.add(node, part, False)


def _send(
    op: str,
    gradient: Array,
    parents: Sequence[Tensor],
    parts: Sequence[Part] | Continuation,
    sums: Sums,
) -> None:
    """Add what a node's backward returned, checked, to the sums of its parents."""
    if isinstance(parts, Continuation):
        parts.join(sums)
        return
    if len(parts) != len(parents):
        raise GraphError(
            f"backward of '{op}' returned {len(parts)} gradients for {len(parents)} inputs"
        )
    seen = [id(gradient)]
    for position, part in enumerate(parts):
        node = parents[position]
        if part is None or not node.requires_grad:
            continue
        if callable(part):
            sums.scatter(node, part)
            continue
        if isinstance(part, np.generic):
            part = np.asarray(part)
        own = id(part) not in seen and part.flags.owndata
        seen.append(id(part))
        array = node.array
        if part.shape != array.shape:
            part, own = _unbroadcast(part, array.shape, op, position), True
        if part.dtype != array.dtype and array.dtype != BFLOAT16:  # summed in float32
            part, own = part.astype(array.dtype), True
        sums.add(node, part, own)


def _unbroadcast(part: Array, shape: tuple[int, ...], op: str, position: int) -> Array:
    """Sum a gradient over the axes along which its input was repeated by broadcasting."""
    lead = part.ndim - len(shape)
    if lead < 0 or any(
        length not in (1, repeated)
        for length, repeated in zip(shape, part.shape[lead:], strict=True)
    ):
        raise GraphError(
            f"backward of '{op}' returned a gradient of shape {part.shape} for input {position},"
            f" whose shape is {shape}"
        )
    return sum_to(part, shape)


def topological_order(output: Tensor) -> list[Tensor]:
    """The nodes below `output` that need gradients, every node after all of its parents."""
    found, stack = {id(output): output}, [output]
    while stack:
        for parent in stack.pop().parents:
            if parent.requires_grad and id(parent) not in found:
                found[id(parent)] = parent
                stack.append(parent)
    return sorted(found.values(), key=attrgetter("place"))


def released(dout: Array) -> Sequence[Array | None]:
    """Stands where the backward of a node was, once a backward pass has gone by."""
    raise GraphError(
        "backward over a graph that an earlier backward has released;"
        " pass retain_graph=True to the earlier one, or run the forward pass again"
    )
