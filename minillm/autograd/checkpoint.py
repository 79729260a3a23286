"""Activation checkpointing: forget what a function computed inside, compute it again in backward.

A network of n layers keeps the activations of all of them until backward. With

    y = checkpoint(block, x)

only x and y are kept; when the walk comes to y it runs `block(x)` once more, this time with notes,
and goes on through the notes. That costs one more forward pass and brings the memory down from n
layers to one (Chen et al. 2016, "Training deep nets with sublinear memory cost").

Gradients are the same bits as without it, where forward and backward run in one precision (see
`backend.precision`), for two reasons. Dropout inside the function gets the seeds of the first run.
And the walk is not nested: the nodes of the second run join the walk that is under way, where those
of the first would have been, so that every sum of gradients adds up the same numbers in the same
order.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from minillm import backend
from minillm.autograd import seeds
from minillm.autograd.engine import Continuation
from minillm.autograd.recording import enable_grad, is_recording
from minillm.autograd.tensor import Tensor, guard_of, next_place, record
from minillm.backend import Array
from minillm.errors import GraphError


def checkpoint(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, without keeping what it computes on the way.

    The function returns a tensor or a tuple of tensors. It may use parameters and other tensors
    from outside, and checkpoints inside; it must compute the same thing when it is called again:
    its only randomness is that of `dropout`, and it changes nothing outside.

    Raises `TypeError` for another result, and `GraphError` from the backward pass where the second
    run differs from the first in its results' number or shapes, or in its draws of dropout seeds.
    """
    if not is_recording():
        return function(*inputs)
    birth = next_place()  # what is made inside comes after, what comes from outside before
    with seeds.recorded() as drawn:
        result = function(*inputs)
    first = _as_tuple(result)
    if not any(tensor.requires_grad for tensor in first):
        return result
    shapes = [tensor.shape for tensor in first]
    arrived: list[Array | None] = [None] * len(first)  # the gradients of the results

    def recompute(_: Array) -> Continuation:
        with enable_grad(), seeds.replayed(drawn):
            again = _as_tuple(function(*inputs))
        if [tensor.shape for tensor in again] != shapes:
            raise GraphError(
                f"a checkpointed function returned shapes {shapes} the first time"
                f" and {[tensor.shape for tensor in again]} the second"
            )
        gradients, arrived[:] = tuple(arrived), [None] * len(arrived)
        return Continuation(again, gradients)

    signal = backend.array_module(first[0].array).zeros(0, first[0].dtype)
    node = record("checkpoint", signal, _outside(first, inputs, birth), recompute, saves="inputs")
    made: dict[int, Tensor] = {}
    for position, tensor in enumerate(first):
        if id(tensor) not in made:
            inside = tensor.requires_grad and tensor.place > birth
            made[id(tensor)] = _result(tensor, node, position, arrived) if inside else tensor
    if isinstance(result, tuple):
        return tuple(made[id(tensor)] for tensor in first)
    return made[id(result)]


def _result(tensor: Tensor, node: Tensor, position: int, arrived: list[Array | None]) -> Tensor:
    """The array of `tensor` with the whole checkpoint as its only history.

    Its gradient waits in `arrived`; an empty signal tells the checkpoint's node to fetch it.
    """
    signal = node.array

    def backward(dout: Array) -> tuple[Array]:
        arrived[position] = dout
        return (signal,)

    return record("checkpointed", tensor.array, (node,), backward, saves="nothing",
                  guard=guard_of(tensor))  # fmt: skip


def _outside(results: tuple[Tensor, ...], inputs: Any, birth: int) -> tuple[Tensor, ...]:
    """The tensors made before `birth` that the results were made from, and the inputs."""
    found = {id(tensor): tensor for tensor in inputs if isinstance(tensor, Tensor)}
    seen: set[int] = set()
    stack = list(results)
    while stack:
        tensor = stack.pop()
        if tensor.place < birth:
            found[id(tensor)] = tensor
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            stack.extend(tensor.parents)
    return tuple(sorted(found.values(), key=attrgetter("place")))


def _as_tuple(result: Any) -> tuple[Tensor, ...]:
    tensors = result if isinstance(result, tuple) else (result,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                "a checkpointed function returns a tensor or a tuple of tensors,"
                f" but this one returned a {type(tensor).__name__}"
            )
    return tensors
