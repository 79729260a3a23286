"""Proof of a gradient by the definition of the derivative, in float64.

For a scalar loss L, a tensor x in it and a direction u of length one, a right gradient g fulfils

    (L(x + h u) - L(x - h u)) / 2h  =  <g, u>  +  O(h^2)                (central differences)

so two runs of the forward pass test all of g at once: a random u has a share in every coordinate,
and an error anywhere shows. Where the two sides differ, the direction is cut in half again and
again until one coordinate is left. And since any tensor on the way can be moved by h u as well as a
leaf can, the operation whose backward went wrong is found too: all gradients above it are right.

A function with kinks (ReLU) may have one between x - h u and x + h u. So a difference counts only
if it is there with a larger and a smaller h too. Exactly at a kink there is no derivative: the
slopes to the left and to the right differ however small h is, and the error then says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import seeds
from minillm.autograd.recording import enable_grad, watching
from minillm.autograd.tensor import Tensor, grad
from minillm.backend import Array
from minillm.errors import InputError, MiniLLMError

STEPS = (1e-5, 1e-4, 1e-6)  # h, in the order in which it is tried


class GradientError(MiniLLMError, AssertionError):
    """A backward that does not give what central differences give."""


def gradcheck(
    subject: Any,
    inputs: Sequence[Any],
    *,
    rng: np.random.Generator | None = None,
    rtol: float = 1e-7,
    atol: float = 1e-9,
) -> float:
    """Check the gradients of a function or a model against central differences, in float64.

    `gradcheck(function, inputs)`: `function(*inputs)` returns a tensor or several. Inputs that are
    floating-point arrays, or tensors that require gradients, are checked, as float64 copies; all
    others are handed on as they are. An only input need not stand in a list.

    `gradcheck(model, batch)`: `model.loss(*batch)` is checked for every parameter; the parameters
    are float64 for the duration. Dropout may be on: all runs get the seeds of the first.

    `rng` chooses the directions. Returns the largest difference found, relative to the length of
    the gradient. Raises `GradientError`, which names the operation, the input, the index and both
    numbers, where a difference exceeds `atol` + `rtol` times that length by more than rounding can
    explain, and `InputError` where there is nothing that could be checked.

    >>> gradcheck(lambda x: x.exp() * x, [np.array([0.5, -1.0])]) < 1e-6
    True
    """
    rng = rng or np.random.default_rng(0)
    if hasattr(subject, "named_parameters"):
        with _in_float64(subject) as parameters:
            names = {f"parameter '{name}'": tensor for name, tensor in parameters}
            return _Check(lambda: subject.loss(*inputs), names, rng, rtol, atol).run()
    inputs = [inputs] if hasattr(inputs, "dtype") else inputs
    arguments = [_float64(value) for value in inputs]
    names = {
        f"argument {i}": argument
        for i, argument in enumerate(arguments)
        if isinstance(argument, Tensor) and argument.requires_grad
    }
    return _Check(lambda: subject(*arguments), names, rng, rtol, atol).run()


class _Check:
    """One function of no arguments, the leaves it is differentiated by, and how strictly."""

    def __init__(
        self,
        function: Callable[[], Any],
        leaves: dict[str, Tensor],
        rng: np.random.Generator,
        rtol: float,
        atol: float,
    ) -> None:
        if not leaves:
            raise InputError("nothing to check: no input is a floating-point array")
        self.function, self.leaves, self.rng = function, leaves, rng
        self.rtol, self.atol = rtol, atol
        with seeds.recorded() as self.seeds:
            results = _as_tuple(function())
        for result in results:
            if result.dtype != np.float64:
                raise InputError(
                    f"gradients are checked in float64, but the result is {result.dtype}:"
                    " the function uses a tensor or an array of its own of that type"
                )
        self.weights = [self._direction(result.shape) for result in results]

    def run(self) -> float:
        """The largest relative difference; raises `GradientError` where one is too large."""
        loss = self._loss()
        if not loss.requires_grad:
            raise InputError("nothing to check: the result does not depend on any input")
        worst = 0.0
        for (name, leaf), found in zip(
            self.leaves.items(), grad(loss, list(self.leaves.values())), strict=True
        ):
            gradient = backend.array_module(leaf.array).zeros_like(leaf.array)
            gradient = gradient if found is None else found
            difference, excess = self._difference(leaf, gradient, self._direction(leaf.shape))
            if not excess <= self._allowed(gradient):
                self._explain(name, leaf, gradient)
            worst = max(worst, difference / max(self._length(gradient), self.atol))
        return worst

    # ------------------------------------------------------------------ the two sides

    def _loss(self) -> Tensor:
        """The results weighted and added up, each time with the same dropout."""
        with enable_grad(), seeds.replayed(self.seeds):
            results = _as_tuple(self.function())
        return sum((r * w).sum() for r, w in zip(results, self.weights, strict=True))

    def _loss_at(self, where: Tensor | int, move: Array) -> float:
        """The loss with a leaf, or the result of the n-th operation, changed by `move`."""
        if isinstance(where, int):
            with watching(_Nudge(where, move)):
                return self._loss().item()
        kept, where.array = where.array, where.array + move
        try:
            return self._loss().item()
        finally:
            where.array = kept

    def _slope(self, where: Tensor | int, direction: Array, step: float) -> tuple[float, float]:
        """Central difference along `direction`, and how far rounding of both losses may move it."""
        ends = [self._loss_at(where, move) for move in (step * direction, -step * direction)]
        rounding = np.finfo(np.float64).eps * max(map(abs, ends)) / step
        return (ends[0] - ends[1]) / (2 * step), 4 * rounding

    def _difference(
        self, where: Tensor | int, gradient: Array, direction: Array
    ) -> tuple[float, float]:
        """How far the two sides are apart, and how much of it is no rounding.

        Both with the step that brings the sides closest.
        """
        expected, nearest = float((gradient * direction).sum()), (float("inf"), float("inf"))
        for step in STEPS:
            slope, rounding = self._slope(where, direction, step)
            difference = abs(slope - expected)
            excess = max(difference - rounding, 0.0)
            if excess < nearest[1]:  # NaN is not near
                nearest = difference, excess
            if nearest[1] <= self._allowed(gradient):
                break
        return nearest

    def _kink(self, where: Tensor | int, direction: Array) -> tuple[float, float] | None:
        """The slopes to the left and to the right, if they do not meet as the step shrinks.

        Where the second derivative exists, a step 100 times smaller brings them 100 times closer.
        """
        sides = []
        for step in (1e-4, 1e-6):
            low, middle, high = (self._loss_at(where, k * step * direction) for k in (-1, 0, 1))
            sides.append(((middle - low) / step, (high - middle) / step))
        (left, right), (near_left, near_right) = sides
        rounding = 8 * np.finfo(np.float64).eps * abs(middle) / 1e-6
        gap = abs(near_right - near_left)
        is_kink = gap > abs(right - left) / 4 and gap > rounding + self.rtol * abs(near_right)
        return (near_left, near_right) if is_kink else None

    def _allowed(self, gradient: Array) -> float:
        return self.atol + self.rtol * self._length(gradient)

    @staticmethod
    def _length(gradient: Array) -> float:
        return float((gradient * gradient).sum()) ** 0.5

    def _direction(self, shape: tuple[int, ...]) -> Array:
        direction = self.rng.standard_normal(shape)
        return backend.asarray(direction / max(np.sqrt(np.sum(direction**2)), 1e-300))

    # ------------------------------------------------------------------ who is to blame

    def _explain(self, name: str, leaf: Tensor, gradient: Array) -> None:
        """Raise the error: the operation nearest to the result that sends back a wrong gradient."""
        made: list[Tensor] = []
        with watching(made.append):
            loss = self._loss()
        wrong: Tensor | int = leaf
        node, dnode = leaf, gradient
        for place, (tensor, found) in reversed(
            list(enumerate(zip(made, grad(loss, made, retain_graph=True), strict=True)))
        ):
            if found is None:
                continue
            direction = self._direction(tensor.shape)
            if not self._difference(place, found, direction)[1] <= self._allowed(found):
                wrong, node, dnode = place, tensor, found
                break
        index, direction = self._worst_index(wrong, dnode)
        users = " or ".join(
            f"'{user.op}' (its input {position})"
            for user in made
            for position, parent in enumerate(user.parents)
            if parent is node
        )
        place = f"at index {index} of an input of shape {node.shape}"
        if kink := self._kink(wrong, direction):
            raise GradientError(
                f"{users} has no derivative {place}: to the left the slope is {kink[0]:.6g},"
                f" to the right {kink[1]:.6g}. It is a kink, as ReLU has at 0; check {name}"
                " at other values"
            )
        raise GradientError(
            f"the backward of {users} is wrong: {place}"
            f" the gradient is {float(dnode[index]):.9g},"
            f" but central differences give {self._slope(wrong, direction, STEPS[0])[0]:.9g};"
            f" this spoils the gradient of {name}"
        )

    def _worst_index(
        self, where: Tensor | int, gradient: Array
    ) -> tuple[tuple[int, ...], Array]:
        """A coordinate where the two sides differ, found by halving, and the direction to it."""
        places = np.flatnonzero(~np.isfinite(backend.to_numpy(gradient)))[:1]
        places = places if len(places) else np.arange(gradient.size)
        while len(places) > 1:
            halves = np.array_split(places, 2)
            errors = []
            for half in halves:
                direction = np.zeros(gradient.size)
                direction[half] = self.rng.standard_normal(len(half)) / len(half) ** 0.5
                direction = backend.asarray(direction.reshape(gradient.shape))
                errors.append(self._difference(where, gradient, direction)[1])
            places = halves[0] if not errors[0] < errors[1] else halves[1]
        direction = np.zeros(gradient.size)
        direction[places] = 1
        index = tuple(int(i) for i in np.unravel_index(int(places[0]), gradient.shape))
        return index, backend.asarray(direction.reshape(gradient.shape))


class _Nudge:
    """Adds `move` to the result of the operation number `place` of a run."""

    def __init__(self, place: int, move: Array) -> None:
        self.left, self.move = place, move

    def __call__(self, tensor: Tensor) -> None:
        if self.left == 0:
            tensor.array = tensor.array + self.move
        self.left -= 1


def _as_tuple(results: Any) -> tuple[Tensor, ...]:
    """The results of the function, checked to be tensors."""
    tensors = tuple(results) if isinstance(results, (tuple, list)) else (results,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise InputError(
                "the function to check returns a tensor or several,"
                f" but this one returned a {type(tensor).__name__}"
            )
    return tensors


def _float64(value: Any) -> Any:
    """A checked argument as a float64 leaf, a constant tensor as float64, the rest as it is."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.kind != "f":
        return value
    needed = not isinstance(value, Tensor) or value.requires_grad
    return Tensor(getattr(value, "array", value).astype(np.float64), requires_grad=needed)


@contextmanager
def _in_float64(model: Any) -> Iterator[list[tuple[str, Tensor]]]:
    """The model's named parameters, while all its tensors are float64; then all is as it was."""
    tensors = [tensor for _, tensor in model.named_tensors()]
    kept = [(tensor.array, tensor.grad) for tensor in tensors]
    model.astype(np.float64)
    try:
        yield list(model.named_parameters())
    finally:
        for tensor, (array, gradient) in zip(tensors, kept, strict=True):
            tensor.array, tensor.grad = array, gradient
