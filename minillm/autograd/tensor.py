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
  (`GraphError`, or NumPy's "read-only"), because the gradient would silently be wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import engine
from minillm.backend import Array
from minillm.errors import GraphError, InputError
from minillm.kernels import matmul

Backward = Callable[[Array], Sequence["Array | None"]]


class _Mode(threading.local):
    recording = True  # every thread for itself


_mode = _Mode()


def is_recording() -> bool:
    """Whether operations of this thread leave notes at the moment."""
    return _mode.recording


@contextmanager
def no_grad() -> Iterator[None]:
    """Operations inside the block leave no notes: for evaluation and generation."""
    previous, _mode.recording = _mode.recording, False
    try:
        yield
    finally:
        _mode.recording = previous


@contextmanager
def enable_grad() -> Iterator[None]:
    """Operations inside the block leave notes, also within `no_grad`: for recomputation."""
    previous, _mode.recording = _mode.recording, True
    try:
        yield
    finally:
        _mode.recording = previous


class Guard:
    """How many recorded operations will still read an array; views of the array share it."""

    __slots__ = ("count", "op")

    def __init__(self) -> None:
        self.count, self.op = 0, ""


class Tensor:
    """An array with a gradient.

    `data` is copied. Arrays keep their dtype; Python numbers and lists become float32.

    >>> x = Tensor([2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([4., 6.], dtype=float32)
    """

    __slots__ = ("array", "grad", "parents", "op", "requires_grad", "_backward", "_guard", "_pins",
                 "__weakref__")  # fmt: skip
    __array_ufunc__ = None  # so that `ndarray * tensor` asks the tensor

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            data = data.array
        array = backend.module().array(data)  # a copy
        if array.dtype == np.float64 and not hasattr(data, "dtype"):
            array = array.astype(np.float32)
        if requires_grad and array.dtype.kind != "f":
            raise GraphError(
                f"only floating-point tensors have gradients, this one is {array.dtype}"
            )
        _fill(self, array, requires_grad)

    # ------------------------------------------------------------------ what it holds

    @property
    def data(self) -> Array:
        """The values; a read-only view of them while a recorded operation still needs them."""
        if self._guard.count and isinstance(self.array, np.ndarray):
            view = self.array.view()
            view.flags.writeable = False
            return view
        return self.array

    @data.setter
    def data(self, values: Any) -> None:
        values = backend.asarray(values, dtype=self.array.dtype)
        if values.shape != self.array.shape:
            raise ValueError(f"data of shape {values.shape} for a tensor of shape {self.shape}")
        if values is not self.array:  # recorded operations keep the old array, which stays as it is
            self.array, self._guard = values, Guard()

    def writable(self) -> Array:
        """The array itself, to change in place; raises `GraphError` while a graph needs it."""
        if self._guard.count:
            raise GraphError(
                f"this tensor of shape {self.shape} is still needed by the backward of"
                f" '{self._guard.op}'; call backward() first, or change a copy"
            )
        return self.array

    shape = property(lambda self: self.array.shape, doc="Length of each axis.")
    dtype = property(lambda self: self.array.dtype, doc="Type of one element.")
    ndim = property(lambda self: self.array.ndim, doc="Number of axes.")
    size = property(lambda self: self.array.size, doc="Number of elements.")
    T = property(lambda self: self.transpose(), doc="All axes reversed.")

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        made = f", op='{self.op}'" if self.op else ""
        flag = ", requires_grad=True" if self.requires_grad and not self.parents else ""
        return f"Tensor({backend.to_numpy(self.array)}{made}{flag})"

    def item(self) -> float:
        """The single value of a tensor of size one, as a Python number."""
        return self.array.item()

    def numpy(self) -> np.ndarray:
        """The values in main memory; read-only while a recorded operation needs them."""
        return backend.to_numpy(self.data)

    def detach(self) -> Tensor:
        """The same array without its history: gradients stop here."""
        out = _new(self.array)
        out._guard = self._guard
        return out

    def _release(self) -> None:
        """Forget how this tensor was made, which frees what its backward kept."""
        _unpin(self._pins)
        self._pins, self.parents, self._backward = (), (), engine.released

    def __del__(self) -> None:
        try:
            pins = self._pins
        except AttributeError:  # the constructor raised
            return
        if pins:
            _unpin(pins)

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

    # ------------------------------------------------------------------ arithmetic

    def __add__(self, other: Any) -> Tensor:
        other = as_tensor(other, self)
        return record("add", self.array + other.array, (self, other), lambda d: (d, d), saves=False)

    def __sub__(self, other: Any) -> Tensor:
        other = as_tensor(other, self)
        return record(
            "sub", self.array - other.array, (self, other), lambda d: (d, -d), saves=False
        )

    def __mul__(self, other: Any) -> Tensor:
        other = as_tensor(other, self)
        a, b = self.array, other.array
        return record("mul", a * b, (self, other), lambda d: (d * b, d * a))

    def __truediv__(self, other: Any) -> Tensor:
        other = as_tensor(other, self)
        a, b = self.array, other.array
        return record("div", a / b, (self, other), lambda d: (d / b, -d * a / (b * b)))

    def __pow__(self, other: Any) -> Tensor:
        if isinstance(other, (int, float)):
            a = self.array
            zero = a * 0  # 0 ** 0 has derivative 0, not 0 * inf
            slope = (
                (lambda d: (d * other * a ** (other - 1),)) if other else (lambda d: (d * zero,))
            )
            return record("pow", a**other, (self,), slope)
        other = as_tensor(other, self)
        a, b = self.array, other.array
        out = a**b
        return record("pow", out, (self, other), lambda d: _pow_backward(d, a, b, out))

    def __neg__(self) -> Tensor:
        return record("neg", -self.array, (self,), lambda d: (-d,), saves=False)

    def __matmul__(self, other: Any) -> Tensor:
        other = as_tensor(other, self)
        a, b = self.array, other.array
        return record(
            "matmul", matmul.forward(a, b), (self, other), lambda d: matmul.backward(d, a, b)
        )

    def __radd__(self, other: Any) -> Tensor:
        return self + other

    def __rmul__(self, other: Any) -> Tensor:
        return self * other

    def __rsub__(self, other: Any) -> Tensor:
        return as_tensor(other, self) - self

    def __rtruediv__(self, other: Any) -> Tensor:
        return as_tensor(other, self) / self

    def __rpow__(self, other: Any) -> Tensor:
        return as_tensor(other, self) ** self

    def __rmatmul__(self, other: Any) -> Tensor:
        return as_tensor(other, self) @ self

    def __lt__(self, other: Any) -> Tensor:
        return _new(self.array < as_tensor(other, self).array)

    def __le__(self, other: Any) -> Tensor:
        return _new(self.array <= as_tensor(other, self).array)

    def __gt__(self, other: Any) -> Tensor:
        return _new(self.array > as_tensor(other, self).array)

    def __ge__(self, other: Any) -> Tensor:
        return _new(self.array >= as_tensor(other, self).array)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return _new(self.array == as_tensor(other, self).array)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return _new(self.array != as_tensor(other, self).array)

    __hash__ = object.__hash__

    # ------------------------------------------------------------------ functions of each element

    def exp(self) -> Tensor:
        out = backend.array_module(self.array).exp(self.array)
        return record("exp", out, (self,), lambda d: (d * out,))

    def log(self) -> Tensor:
        x = self.array
        return record("log", backend.array_module(x).log(x), (self,), lambda d: (d / x,))

    def sqrt(self) -> Tensor:
        out = backend.array_module(self.array).sqrt(self.array)
        return record("sqrt", out, (self,), lambda d: (d / (2 * out),))

    def tanh(self) -> Tensor:
        out = backend.array_module(self.array).tanh(self.array)
        return record("tanh", out, (self,), lambda d: (d * (1 - out * out),))

    def astype(self, dtype: Any) -> Tensor:
        """The same values as another floating-point type; gradients come back in this one's."""
        own = self.dtype
        return record("astype", self.array.astype(dtype), (self,), lambda d: (d.astype(own),),
                      saves=False)  # fmt: skip

    # ------------------------------------------------------------------ reductions

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        x, xp = self.array, backend.array_module(self.array)
        shape, kept = x.shape, _reduced_shape(x, axis)

        def backward(dout: Array) -> tuple[Array]:  # every element counted once
            return (xp.broadcast_to(dout.reshape(kept), shape),)

        out = x.sum(axis=axis, keepdims=keepdims)
        return record("sum", xp.asarray(out), (self,), backward, saves=False)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The sum over `axis` divided by the number of elements summed."""
        kept = _reduced_shape(self.array, axis)
        count = self.size / max(1, int(np.prod(kept)))
        return self.sum(axis, keepdims) * (1.0 / count if count else float("nan"))

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The largest element along `axis`; elements that tie share the gradient equally."""
        x, xp = self.array, backend.array_module(self.array)
        out, kept = (
            xp.asarray(x.max(axis=axis, keepdims=keepdims)),
            _reduced_shape(self.array, axis),
        )

        def backward(dout: Array) -> tuple[Array]:
            winners = (x == out.reshape(kept)).astype(x.dtype)
            return (dout.reshape(kept) * winners / winners.sum(axis=axis, keepdims=True),)

        return record("max", out, (self,), backward)

    # ------------------------------------------------------------------ shape

    def reshape(self, *shape: Any) -> Tensor:
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        own = self.shape
        return record("reshape", self.array.reshape(shape), (self,), lambda d: (d.reshape(own),),
                      saves=False, view_of=self)  # fmt: skip

    def transpose(self, *axes: int) -> Tensor:
        axes = axes or tuple(reversed(range(self.ndim)))
        back = tuple(int(i) for i in np.argsort([axis % self.ndim for axis in axes]))
        return record("transpose", self.array.transpose(axes), (self,),
                      lambda d: (d.transpose(back),), saves=False, view_of=self)  # fmt: skip

    def swapaxes(self, first: int, second: int) -> Tensor:
        return record("swapaxes", self.array.swapaxes(first, second), (self,),
                      lambda d: (d.swapaxes(first, second),), saves=False, view_of=self)  # fmt: skip

    def __getitem__(self, index: Any) -> Tensor:
        index = _plain_index(index)
        x, xp = self.array, backend.array_module(self.array)
        shape, dtype = x.shape, x.dtype
        repeats = any(hasattr(part, "dtype") and part.dtype.kind in "iu" for part in _parts(index))

        def backward(dout: Array) -> tuple[Array]:
            dx = xp.zeros(shape, dtype)
            if repeats:  # an element picked twice collects both gradients
                xp.add.at(dx, index, dout)
            else:
                dx[index] = dout
            return (dx,)

        return record("getitem", xp.asarray(x[index]), (self,), backward, saves=False, view_of=self)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.parents or (isinstance(value, Tensor) and value.requires_grad and _mode.recording):
            raise GraphError(
                "assignment is not recorded; build the tensor with where or concatenate"
            )
        self.writable()[_plain_index(index)] = value.array if isinstance(value, Tensor) else value


# -------------------------------------------------------------------------------- making tensors


def record(
    op: str,
    array: Array,
    parents: tuple[Tensor, ...],
    backward: Backward,
    *,
    saves: bool = True,
    view_of: Tensor | None = None,
) -> Tensor:
    """A new tensor holding `array`, made by `op` from `parents`.

    `backward(dout)` gets the gradient of `array` and returns one gradient (or None) per parent, in
    order; it must close over arrays only. `saves=False` says that it reads neither its parents'
    arrays nor its own, so that they need not be pinned. `view_of` names a parent whose memory
    `array` shares.
    """
    out = _new(array)
    out.op = op
    if view_of is not None:
        out._guard = view_of._guard
    if _mode.recording and any(parent.requires_grad for parent in parents):
        out.requires_grad, out.parents, out._backward = True, parents, backward
        if saves:
            out._pins = (out._guard, *(parent._guard for parent in parents))
            for guard in out._pins:
                guard.count += 1
                guard.op = op
    return out


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """`value` itself if it is a tensor, else one; plain numbers take the dtype of `like`."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (int, float, np.number)):
        return _new(backend.array_module(like.array).asarray(value, dtype=like.dtype))
    return _new(backend.asarray(value))


def integers(values: Any) -> Array:
    """Token ids as an array of our own, which nobody changes before the backward pass."""
    values = values.array if isinstance(values, Tensor) else values
    array = backend.module().array(values)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"token ids are whole numbers, these are {array.dtype}")
    return array if array.size else array.astype(np.int32)


def _new(array: Array) -> Tensor:
    tensor = Tensor.__new__(Tensor)
    _fill(tensor, array, False)
    return tensor


def _fill(tensor: Tensor, array: Array, requires_grad: bool) -> None:
    tensor.array, tensor.grad, tensor.requires_grad = array, None, requires_grad
    tensor.parents, tensor.op, tensor._backward = (), "", None
    tensor._guard, tensor._pins = Guard(), ()


def _unpin(pins: tuple[Guard, ...]) -> None:
    for guard in pins:
        guard.count -= 1


def grad(
    output: Tensor, inputs: Sequence[Tensor], grad: Any = None, retain_graph: bool = False
) -> list[Array | None]:
    """d(output)/d(input) for each of `inputs`, leaves or not; no `.grad` is touched.

    None stands for an input that `output` does not depend on. See `Tensor.backward` for `grad`.
    """
    return engine.gradients(output, _seed(output, grad), inputs, retain_graph)


def _seed(output: Tensor, grad: Any) -> Array:
    """The gradient that a backward pass starts from, checked."""
    if not output.requires_grad:
        raise GraphError("nothing to differentiate: no input of this tensor has requires_grad=True")
    if grad is None:
        if output.size != 1:
            raise GraphError(
                f"backward of a tensor of shape {output.shape} needs `grad`, the gradient of the"
                " final scalar with respect to it; or reduce it first, with .sum() or .mean()"
            )
        return backend.array_module(output.array).ones(output.shape, output.dtype)
    grad = grad.array if isinstance(grad, Tensor) else grad
    grad = backend.asarray(grad, dtype=output.dtype)
    if grad.shape != output.shape:
        raise GraphError(f"grad of shape {grad.shape} for a tensor of shape {output.shape}")
    return grad


# -------------------------------------------------------------------------------- small helpers


def _reduced_shape(x: Array, axis: Any) -> tuple[int, ...]:
    """The shape of `x` after a reduction that keeps the reduced axes with length one."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    reduced = {a % x.ndim for a in axes} if x.ndim else set()
    return tuple(1 if i in reduced else length for i, length in enumerate(x.shape))


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _plain_index(index: Any) -> Any:
    """An index without tensors or lists in it."""
    parts = tuple(
        part.array
        if isinstance(part, Tensor)
        else np.asarray(part)
        if isinstance(part, list)
        else part
        for part in _parts(index)
    )
    return parts if isinstance(index, tuple) else parts[0]


def _pow_backward(dout: Array, a: Array, b: Array, out: Array) -> tuple[Array, Array]:
    """d a**b = b a**(b-1) da + a**b log(a) db; where a <= 0 the second term is taken as 0."""
    xp = backend.array_module(a)
    positive = a > 0
    log_a = xp.where(positive, xp.log(xp.where(positive, a, 1)), 0)
    power = xp.where(b == 0, 0, b * a ** xp.where(b == 0, 1, b - 1))
    return dout * power, dout * out * log_a
