"""Tensor: an array that remembers how it was made, so that gradients can flow back through it.

Every operation on tensors leaves a note: which tensors went in (`parents`) and a function that
turns the gradient of the result into the gradients of those parents (the vector-Jacobian product).
Together the notes form a graph. `backward()` walks it from the result to the leaves, each node
after all nodes that used it, and applies the chain rule at each:

    d loss        d loss     d out
    -------  +=   ------  *  -------       for every parent of every `out`
    d parent      d out      d parent

This is reverse-mode differentiation (Linnainmaa 1970; Griewank and Walther, "Evaluating
Derivatives"). The notes are made while the program runs, so any Python control flow is allowed.

Three rules keep it true:

* a backward function closes over arrays, never over its output tensor: no reference cycles, and
  the memory of a node is free as soon as the walk has passed it;
* the engine alone adds gradients up, sums them over broadcast axes and checks their shapes;
* an array that a recorded operation will read again is *pinned*: changing it in place is an error
  (`guard.py`), because the gradient would silently be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import engine
from minillm.autograd.guard import Guard
from minillm.autograd.operators import Operators
from minillm.autograd.recording import enable_grad, is_recording, mode, no_grad
from minillm.backend import Array
from minillm.errors import GraphError
from minillm.kernels.bfloat16 import BFLOAT16

__all__ = ["Tensor", "as_tensor", "enable_grad", "grad", "is_recording", "no_grad", "record"]

Backward = Callable[[Array], Sequence[engine.Part] | engine.Continuation]
_blank = object.__new__
next_place = count().__next__  # a number higher than every tensor's so far


class Tensor(Operators):
    """An array with a gradient.

    `data` is copied. Arrays keep their dtype; Python floats and lists of them become float32.

    >>> x = Tensor([2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([4., 6.], dtype=float32)

    Attributes: `array` (the values, unguarded: for operations), `grad` (an array like it, or None),
    `parents` and `op` (how it was made), `requires_grad`, `place` (parents come before children).
    """

    __slots__ = (
        "__weakref__", "_backward", "_guard", "_holds",
        "array", "grad", "op", "parents", "place", "requires_grad",
    )  # fmt: skip
    array: Array
    grad: Array | None
    op: str  # what made it; "" for a leaf
    parents: tuple[Tensor, ...]
    place: int  # grows with every tensor made
    requires_grad: bool
    _backward: Backward | None
    _guard: Guard | None
    _holds: Any
    __array_ufunc__ = None  # so that `ndarray * tensor` asks the tensor

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        array = backend.module().array(data.data if isinstance(data, Tensor) else data)  # a copy
        if array.dtype == np.float64 and not hasattr(data, "dtype"):
            array = array.astype(np.float32)
        if requires_grad and array.dtype.kind != "f":
            raise GraphError(f"only floating-point tensors have gradients; this is {array.dtype}")
        _fill(self, array).requires_grad = requires_grad

    # ------------------------------------------------------------------ what it holds

    @property
    def data(self) -> Array:
        """The values, as a view that is read-only while a recorded operation needs them."""
        return guard_of(self).show(self.array)

    @data.setter
    def data(self, values: Any) -> None:
        if guard_of(self).showed(values):  # `x.data += 1` changed it in place and gives it back
            return
        values = backend.module().array(values, dtype=self.array.dtype)  # a copy
        if values.shape != self.array.shape:
            raise ValueError(f"data of shape {values.shape} for a tensor of shape {self.shape}")
        self.adopt(values)

    def adopt(self, array: Array) -> None:
        """Hold `array`, which nobody else may write to, from now on.

        Recorded operations keep the old array as it is.
        """
        self.array, self._guard = array, None

    def writable(self) -> Array:
        """The values, to change in place; raises `GraphError` while a graph needs them."""
        self.check_writable()
        return guard_of(self).show(self.array)

    def check_writable(self) -> None:
        """Raise `GraphError` while a graph needs the values as they are."""
        guard_of(self).check_writable(self.array.shape)

    shape = property(lambda self: self.array.shape, doc="Length of each axis.")
    dtype = property(lambda self: self.array.dtype, doc="Type of one element.")
    ndim = property(lambda self: self.array.ndim, doc="Number of axes.")
    size = property(lambda self: self.array.size, doc="Number of elements.")
    T = property(lambda self: self.transpose(), doc="All axes reversed.")

    def __len__(self) -> int:
        return len(self.array)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __repr__(self) -> str:
        made = f", op='{self.op}'" if self.op else ""
        flag = ", requires_grad=True" if self.requires_grad and not self.parents else ""
        return f"Tensor({self.numpy()}{made}{flag})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise GraphError("a tensor that requires gradients is no array; use .detach() or .data")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.parents:
            raise GraphError("only leaves can be copied or pickled; take .detach() of this result")
        return _leaf, (type(self), self.data, self.requires_grad)

    def item(self) -> float:
        """The single value of a tensor of size one, as a Python number."""
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """The values in main memory; read-only while a recorded operation needs them."""
        data = self.data
        return data if isinstance(data, np.ndarray) else backend.to_numpy(data)

    def detach(self) -> Tensor:
        """The same array without its history: gradients stop here."""
        return _fill(_blank(Tensor), self.array, guard=guard_of(self))

    def release(self) -> None:
        """Forget how this tensor was made, which frees what its backward kept."""
        self.parents, self._backward, self._holds = (), engine.released, None

    # ------------------------------------------------------------------ gradients

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Add d(self)/d(leaf) to the `.grad` of every leaf that requires it.

        `grad` is the gradient of the final quantity with respect to this tensor, of its shape; it
        may be left out for a tensor of size one, where it is 1. The graph is released on the way
        unless `retain_graph`; a second backward over a released graph raises `GraphError`.
        """
        engine.backward(self, _seed(self, grad), retain_graph)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    # ------------------------------------------------------------------ what the operators need

    def _other(self, value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else as_tensor(value, self)

    def _view(self, op: str, array: Array, backward: Backward) -> Tensor:
        """Record an operation whose result shares this tensor's memory and reads none of it."""
        return record(op, array, (self,), backward, saves="nothing", guard=guard_of(self))

    @staticmethod
    def _plain(array: Array) -> Tensor:
        return _fill(_blank(Tensor), array)


# -------------------------------------------------------------------------------- making tensors


def record(
    op: str,
    array: Array,
    parents: tuple[Tensor, ...],
    backward: Backward,
    *,
    saves: str = "both",
    guard: Guard | None = None,
) -> Tensor:
    """A new tensor holding `array`, made by `op` from `parents`.

    `backward(dout)` gets the gradient of `array` and returns one gradient per parent, in order:
    an array, None, or a function that adds it to an array. It closes over arrays only, never
    changes `dout`, and returns arrays that it does not keep and that share no memory, unless with
    `dout`. `saves` says whose values it reads again, so that they are pinned until then: "inputs",
    "output", "both" or "nothing". `guard` is that of a parent whose memory `array` shares.
    """
    out = _fill(_blank(Tensor), array, op, guard)
    if mode.recording and any(parent.requires_grad for parent in parents):
        out.parents, out.requires_grad, out._backward = parents, True, backward
        if saves == "inputs":
            out._holds = [guard_of(parent).pin(op, parent.array) for parent in parents]
        elif saves == "output":
            out._holds = [guard_of(out).pin(op, array)]
        elif saves == "both":
            out._holds = [guard_of(tensor).pin(op, tensor.array) for tensor in (out, *parents)]
    if mode.watch is not None:
        mode.watch(out)
    return out


Tensor._record = staticmethod(record)


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """`value` itself if it is a tensor, else one; plain numbers take the dtype of `like`.

    An array is copied, so that changing it later does not change a gradient.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (int, float, np.number)):
        value = value.item() if isinstance(value, np.number) else value
        keeps = like.dtype.kind == "f" or like.dtype == BFLOAT16
        dtype = like.dtype if keeps else np.result_type(like.dtype, value)
        return Tensor._plain(backend.array_module(like.array).asarray(value, dtype=dtype))
    return Tensor._plain(backend.module().array(value))


def guard_of(tensor: Tensor) -> Guard:
    """The guard of a tensor's memory, made when it is first asked for."""
    guard = tensor._guard
    if guard is None:
        guard = tensor._guard = Guard()
    return guard


def _fill(tensor: Tensor, array: Array, op: str = "", guard: Guard | None = None) -> Tensor:
    """A new tensor's attributes, as those of a leaf that requires no gradient."""
    if isinstance(array, np.generic):  # NumPy's answer where 0-d arrays went in
        array = np.asarray(array)
    tensor.array, tensor.grad = array, None
    tensor.op, tensor.parents, tensor.requires_grad = op, (), False
    tensor._backward, tensor._guard, tensor._holds = None, guard, None
    tensor.place = next_place()
    return tensor


def _leaf(kind: type[Tensor], array: Array, requires_grad: bool) -> Tensor:
    """A tensor with a copy of `array`: what `copy`, `deepcopy` and `pickle` make of one."""
    tensor = _fill(_blank(kind), array.copy())
    tensor.requires_grad = requires_grad
    return tensor


def grad(
    output: Tensor, inputs: Tensor | Sequence[Tensor], grad: Any = None, retain_graph: bool = False
) -> Any:
    """d(output)/d(input) for each of `inputs`, leaves or not; no `.grad` is touched.

    `inputs` is a tensor, whose gradient is returned, or a sequence of tensors, for a list of
    gradients. None stands for an input that `output` does not depend on. See `Tensor.backward` for
    `grad`.

    >>> x = Tensor(3.0, requires_grad=True)
    >>> grad(x * x, x)
    array(6., dtype=float32)
    """
    wanted = [inputs] if isinstance(inputs, Tensor) else inputs
    found = engine.gradients(output, _seed(output, grad), wanted, retain_graph)
    return found[0] if isinstance(inputs, Tensor) else found


def _seed(output: Tensor, grad: Any) -> Array:
    """The gradient that a backward pass starts from, checked; it may be the caller's own array."""
    if not output.requires_grad:
        raise GraphError("nothing to differentiate: no input of this tensor has requires_grad=True")
    if grad is None:
        if output.size != 1:
            raise GraphError(
                f"backward of a tensor of shape {output.shape} needs `grad`, the gradient of the"
                " final scalar with respect to it; or reduce it first, with .sum() or .mean()"
            )
        return backend.array_module(output.array).ones(output.shape, output.dtype)
    array = backend.asarray(getattr(grad, "array", grad), dtype=output.dtype)
    if array.shape != output.shape:
        raise GraphError(f"grad of shape {array.shape} for a tensor of shape {output.shape}")
    return array
