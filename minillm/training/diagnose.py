"""Which layer went wrong: the first activation or gradient that is not a finite number.

When a loss is NaN or infinite, every number after the culprit is spoilt too, so the last layer says
nothing. The tape knows better: it lists every operation after the operations that it depends on. So
the step is computed once more, and the first operation in that order whose result is not finite,
while everything that went into it is, is where the trouble began. If all results are finite, the
gradients are walked in the opposite order in the same way.

An operation has no layer's name, but parameters do: it is reported with the parameter that it uses,
or with the nearest one before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from minillm import backend
from minillm.autograd import Tensor, grad
from minillm.autograd.engine import topological_order
from minillm.backend import Array
from minillm.errors import MiniLLMError
from minillm.models.base import LanguageModel


class DivergedError(MiniLLMError, ArithmeticError):
    """Training produced NaN or infinity."""


def first_bad(model: LanguageModel, pieces: Iterable[tuple[np.ndarray, ...]]) -> str:
    """A phrase that says where, in a batch taken piece by piece, the first bad number appears.

    The caller has set the dropout generator to where the step started with it.
    """
    for name, parameter in model.named_parameters():
        if not is_finite(parameter.array):
            return f"the weight {name} itself"
    recompute, model.recompute = model.recompute, False  # every operation on the tape
    try:
        found = (_first_in_piece(model, *piece) for piece in pieces)
        return next(filter(None, found), "the sum over the pieces of the batch")
    finally:
        model.recompute = recompute


def _first_in_piece(
    model: LanguageModel,
    ids: np.ndarray,
    targets: np.ndarray,
    documents: np.ndarray | None = None,
) -> str | None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with np.errstate(all="ignore"):  # the warnings are what we are about to explain
        loss = model.loss(ids, targets, documents=documents)
        order = topological_order(loss)  # every node after its parents
        for node in order:
            if not is_finite(node.array):
                return f"the activations of '{node.op}' at {_layer(node, names)}"
        order.reverse()
        for node, gradient in zip(order, grad(loss, order, retain_graph=True), strict=True):
            if gradient is not None and not is_finite(gradient):
                where = names.get(id(node)) or f"'{node.op}' at {_layer(node, names)}"
                return f"the gradient of {where}"
    return None


def _layer(node: Tensor, names: dict[int, str]) -> str:
    """The parameter that `node` uses, or the nearest one among the operations before it."""
    queue, seen = deque([node]), {id(node)}
    while queue:
        tensor = queue.popleft()
        if id(tensor) in names:
            return names[id(tensor)].rpartition(".")[0] or names[id(tensor)]
        for parent in tensor.parents:
            if id(parent) not in seen:
                seen.add(id(parent))
                queue.append(parent)
    return "the input"


def is_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(backend.array_module(array).isfinite(array).all())
