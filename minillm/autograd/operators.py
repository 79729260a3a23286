"""Arithmetic on tensors: each operator with its derivative beside it.

`Operators` is the part of `Tensor` that knows mathematics and nothing of graphs. Every method takes
the arrays out, computes, and records the result with a local `backward(dout)`, which turns the
gradient of the result into one gradient per operand:

    out = f(a, b)      da = dout * df/da,      db = dout * df/db       (element by element)

Broadcasting needs no care here: the engine sums a gradient over the axes along which its operand
was repeated. An operand that needs no gradient may be answered with None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minillm import backend
from minillm.autograd import arrays
from minillm.autograd.recording import is_recording
from minillm.backend import Array
from minillm.errors import GraphError
from minillm.kernels import matmul

if TYPE_CHECKING:
    from minillm.autograd.tensor import Tensor


class Operators:
    """The operators and array methods of `Tensor`, which supplies `array`, `_record`, `_other`."""

    __slots__ = ()

    if TYPE_CHECKING:  # what `Tensor` supplies
        array: Array
        data: Any
        requires_grad: bool
        shape: Any
        dtype: Any
        ndim: Any
        size: Any
        _other: Callable[[Any], Tensor]
        _plain: Callable[[Array], Tensor]
        parents: tuple[Tensor, ...]
        writable: Callable[[], Array]
        _record: Callable[..., Tensor]
        _view: Callable[..., Tensor]

    # ------------------------------------------------------------------ arithmetic

    def __add__(self, other: Any) -> Tensor:
        other = self._other(other)

        def backward(dout: Array) -> tuple[Array, Array]:
            return dout, dout

        return self._record(
            "add", self.array + other.array, (self, other), backward, saves="nothing"
        )

    def __sub__(self, other: Any) -> Tensor:
        other = self._other(other)

        def backward(dout: Array) -> tuple[Array, Array]:
            return dout, -dout

        return self._record(
            "sub", self.array - other.array, (self, other), backward, saves="nothing"
        )

    def __mul__(self, other: Any) -> Tensor:
        other = self._other(other)
        a, b = self.array, other.array
        need_a, need_b = self.requires_grad, other.requires_grad

        def backward(dout: Array) -> tuple[Array | None, Array | None]:
            return dout * b if need_a else None, dout * a if need_b else None

        return self._record("mul", a * b, (self, other), backward, saves="inputs")

    def __truediv__(self, other: Any) -> Tensor:
        other = self._other(other)
        a, b = self.array, other.array
        need_a, need_b = self.requires_grad, other.requires_grad

        def backward(dout: Array) -> tuple[Array | None, Array | None]:
            return dout / b if need_a else None, -dout * a / (b * b) if need_b else None

        return self._record("div", a / b, (self, other), backward, saves="inputs")

    def __pow__(self, other: Any) -> Tensor:
        a = self.array
        if isinstance(other, (int, float, np.number)):
            other = other.item() if isinstance(other, np.number) else other

            def slope(dout: Array) -> tuple[Array]:  # 0 ** 0 has slope 0, not 0 * infinity
                return (dout * (other * a ** (other - 1)) if other else 0 * dout,)

            return self._record("pow", a**other, (self,), slope, saves="inputs")
        other = self._other(other)
        b = other.array
        out = a**b

        def backward(dout: Array) -> tuple[Array, Array]:
            return arrays.power_gradients(dout, a, b, out)

        return self._record("pow", out, (self, other), backward)

    def __neg__(self) -> Tensor:
        def backward(dout: Array) -> tuple[Array]:
            return (-dout,)

        return self._record("neg", -self.array, (self,), backward, saves="nothing")

    def __matmul__(self, other: Any) -> Tensor:
        """a (..., M, K) @ b (..., K, N); batches broadcast, a vector is one row or one column."""
        other = self._other(other)
        a, b = self.array, other.array
        if a.ndim == 1:
            out = self.reshape(1, -1) @ other
            return out.reshape(*out.shape[:-2], *b.shape[-1:]) if b.ndim > 1 else out.reshape(())
        if b.ndim == 1:
            return (self @ other.reshape(-1, 1)).reshape(a.shape[:-1])

        wanted = self.requires_grad, other.requires_grad

        def backward(dout: Array) -> tuple[Array | None, Array | None]:
            return matmul.backward(dout, a, b, wanted)

        return self._record("matmul", matmul.forward(a, b), (self, other), backward, saves="inputs")

    def __radd__(self, other: Any) -> Tensor:
        return self._other(other) + self

    def __rmul__(self, other: Any) -> Tensor:
        return self._other(other) * self

    def __rsub__(self, other: Any) -> Tensor:
        return self._other(other) - self

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._other(other) / self

    def __rpow__(self, other: Any) -> Tensor:
        return self._other(other) ** self

    def __rmatmul__(self, other: Any) -> Tensor:
        return self._other(other) @ self

    # ------------------------------------------------------------------ comparisons: no gradient

    def __lt__(self, other: Any) -> Tensor:
        return self._plain(self.data < self._other(other).data)

    def __le__(self, other: Any) -> Tensor:
        return self._plain(self.data <= self._other(other).data)

    def __gt__(self, other: Any) -> Tensor:
        return self._plain(self.data > self._other(other).data)

    def __ge__(self, other: Any) -> Tensor:
        return self._plain(self.data >= self._other(other).data)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._plain(self.data == self._other(other).data)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._plain(self.data != self._other(other).data)

    __hash__ = object.__hash__

    # ------------------------------------------------------------------ functions of each element

    def exp(self) -> Tensor:
        """e to the power of each element."""
        out = backend.array_module(self.array).exp(self.array)

        def backward(dout: Array) -> tuple[Array]:
            return (dout * out,)

        return self._record("exp", out, (self,), backward, saves="output")

    def log(self) -> Tensor:
        """The natural logarithm of each element."""
        x = self.array

        def backward(dout: Array) -> tuple[Array]:
            return (dout / x,)

        return self._record(
            "log", backend.array_module(x).log(x), (self,), backward, saves="inputs"
        )

    def sqrt(self) -> Tensor:
        """The square root of each element; its slope at 0 is infinite."""
        out = backend.array_module(self.array).sqrt(self.array)

        def backward(dout: Array) -> tuple[Array]:
            return (dout / (2 * out),)

        return self._record("sqrt", out, (self,), backward, saves="output")

    def tanh(self) -> Tensor:
        """The hyperbolic tangent of each element, between -1 and 1."""
        out = backend.array_module(self.array).tanh(self.array)

        def backward(dout: Array) -> tuple[Array]:
            return (dout * (1 - out * out),)

        return self._record("tanh", out, (self,), backward, saves="output")

    def astype(self, dtype: Any) -> Tensor:
        """The same values in another floating-point type; gradients come back in this one."""

        def backward(dout: Array) -> tuple[Array]:
            return (dout,)

        return self._record("astype", self.array.astype(dtype), (self,), backward, saves="nothing")

    # ------------------------------------------------------------------ reductions

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The sum over `axis`: all axes, one, or a tuple of them."""
        x, xp = self.array, backend.array_module(self.array)
        shape, kept = x.shape, arrays.kept_shape(x.shape, axis)

        def backward(dout: Array) -> tuple[Array]:  # every element counts once
            dx = xp.empty(shape, dout.dtype)
            dx[...] = dout.reshape(kept)
            return (dx,)

        out = x.sum(axis=axis, keepdims=keepdims)
        return self._record("sum", out, (self,), backward, saves="nothing")

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The sum over `axis` divided by the number of elements summed; NaN over none."""
        count = 1
        for length, kept in zip(self.shape, arrays.kept_shape(self.shape, axis), strict=True):
            count *= length if kept == 1 else 1
        return self.sum(axis, keepdims) * (1 / count if count else float("nan"))

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The largest element along `axis`; elements that tie share the gradient equally."""
        x, kept = self.array, arrays.kept_shape(self.shape, axis)
        out = x.max(axis=axis, keepdims=keepdims)

        def backward(dout: Array) -> tuple[Array]:
            winners = (x == out.reshape(kept)).astype(x.dtype)
            return (dout.reshape(kept) * winners / winners.sum(axis=axis, keepdims=True),)

        return self._record("max", out, (self,), backward)

    # ------------------------------------------------------------------ shape

    def reshape(self, *shape: Any) -> Tensor:
        """The elements in the same order under another shape; one length may be -1."""
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        own = self.shape

        def backward(dout: Array) -> tuple[Array]:
            return (dout.reshape(own),)

        return self._view("reshape", self.array.reshape(shape), backward)

    def transpose(self, *axes: int) -> Tensor:
        """The axes in the order given, reversed by default."""
        order = [axis % self.ndim for axis in axes] or list(range(self.ndim))[::-1]
        back = sorted(range(len(order)), key=order.__getitem__)

        def backward(dout: Array) -> tuple[Array]:
            return (dout.transpose(back),)

        return self._view("transpose", self.array.transpose(order), backward)

    def swapaxes(self, first: int, second: int) -> Tensor:
        """Two axes exchanged."""

        def backward(dout: Array) -> tuple[Array]:
            return (dout.swapaxes(first, second),)

        return self._view("swapaxes", self.array.swapaxes(first, second), backward)

    def __getitem__(self, index: Any) -> Tensor:
        """Elements by integers, slices, None, `...`, integer arrays or boolean masks."""
        index = arrays.plain_index(index)
        x, xp = self.array, backend.array_module(self.array)
        shape, may_repeat = x.shape, arrays.may_repeat(index)

        def backward(dout: Array) -> tuple[Array]:
            dx = xp.zeros(shape, dout.dtype)
            if may_repeat:  # an element picked twice collects both gradients
                xp.add.at(dx, index, dout)
            else:
                dx[index] = dout
            return (dx,)

        if arrays.picks(index):
            return self._record("getitem", x[index], (self,), backward, saves="nothing")
        return self._view("getitem", x[index], backward)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Change elements of a leaf in place; not recorded, so an error where it would matter."""
        if self.parents or (getattr(value, "requires_grad", False) and is_recording()):
            raise GraphError(
                "assignment is not recorded; build the tensor with where, stack or concatenate"
            )
        self.writable()[arrays.plain_index(index)] = getattr(value, "array", value)
