"""Module: an object with parameters, and parts that are modules themselves.

Nothing is registered. A module's attributes are looked through when somebody asks: a `Parameter` is
a weight, a `Module` or a list of them is a part, and the path of attribute names that leads to a
weight is its name, as in `blocks.0.attention.qkv.weight`. A part that hangs in two places (tied
weights, a shared dropout) is found once, under the first name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from minillm import backend
from minillm.autograd import Tensor
from minillm.backend import Array
from minillm.errors import CheckpointError


class Parameter(Tensor):
    """A tensor that is trained: it requires a gradient, and adopts its array without a copy."""

    __slots__ = ()

    def __init__(self, array: Array) -> None:
        super().__init__(array.dtype.type(0), requires_grad=True)
        self.adopt(array)

    @classmethod
    def unfilled(cls, shape: tuple[int, ...], dtype: Any = np.float32) -> Parameter:
        """A parameter that waits for `load_state_dict`: all NaN, in the memory of one number."""
        xp = backend.module()
        return cls(xp.broadcast_to(xp.asarray(np.nan, dtype=dtype), shape))

    @property
    def is_filled(self) -> bool:
        """Whether the elements have memory of their own, unlike those of `unfilled`."""
        return self.size == 0 or any(self.array.strides)


class Module:
    """Base of layers and models: gives `forward` a call, and finds parameters by their names."""

    training: bool = True

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.forward(*arguments, **named)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    # ------------------------------------------------------------------ finding the parts

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module under the name `prefix` and every part below it, each once, parents first."""
        yield from self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, value in vars(self).items():
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(value, Module):
                yield from value._named_modules(path, seen)
            elif isinstance(value, list):
                for position, part in enumerate(value):
                    if isinstance(part, Module):
                        yield from part._named_modules(f"{path}.{position}", seen)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor held below here, each once: the parameters, and tables that are constant."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its name, each once, in the order in which they were made."""
        for name, tensor in self.named_tensors():
            if isinstance(tensor, Parameter):
                yield name, tensor

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def num_parameters(self) -> int:
        """How many numbers are trained; a shared parameter counts once."""
        return sum(parameter.size for parameter in self.parameters())

    # ------------------------------------------------------------------ changing them together

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on in this module and all below it (`mode=False`: off)."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch dropout off, for evaluation and generation."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside a `with`; takes no time for a module that is in it already."""
        training = self.training
        try:
            if training:
                self.eval()
            yield
        finally:
            if training:
                self.train()

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def astype(self, dtype: Any) -> Self:
        """Convert all parameters and tables to `dtype`; gradients are forgotten."""
        for _, tensor in self.named_tensors():
            if isinstance(tensor, Parameter) and not tensor.is_filled:
                tensor.array = Parameter.unfilled(tensor.shape, dtype).array
            else:
                tensor.array = tensor.array.astype(dtype)
            tensor.grad = None
        return self

    # ------------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Array]:
        """Name to array for every parameter: views of the values, not copies."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy the arrays of `state` into the parameters of the same names, in their dtype.

        Nothing changes unless everything fits. Raises `CheckpointError` that names the first
        missing or unexpected parameter, or one of another shape.
        """
        own = dict(self.named_parameters())
        kind = type(self).__name__
        if missing := [name for name in own if name not in state]:
            raise CheckpointError(f"{_some(missing)} of this {kind} not found among the weights")
        if extra := [name for name in state if name not in own]:
            raise CheckpointError(f"{_some(extra)} among the weights, but not in this {kind}")
        for name, parameter in own.items():
            if tuple(state[name].shape) != parameter.shape:
                raise CheckpointError(
                    f"{name} has shape {tuple(state[name].shape)} among the weights,"
                    f" but {parameter.shape} in this {kind}"
                )
        for name, parameter in own.items():
            own_copy = backend.module().array(state[name], dtype=parameter.dtype, order="C")
            parameter.adopt(own_copy)


def _some(names: list[str]) -> str:
    """The first of `names`, and how many more there are."""
    more = len(names) - 1
    return f"{names[0]!r} and {more} more are" if more else f"{names[0]!r} is"
