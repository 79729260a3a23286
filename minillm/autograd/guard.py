"""The in-place guard: memory that a backward pass will read again cannot be changed until then.

A backward function closes over arrays. If such an array changed between the two passes, the
gradient would be wrong and nobody would notice. So an array that is needed again is *pinned*:

    y = x * x                  # pins x, whose values the derivative 2x needs
    x.data[0] = 5.0            # GraphError: .. still needed by the backward of 'mul' ..
    y.sum().backward()         # releases the pin
    x.data[0] = 5.0            # fine

A pin is a reference. Every recorded operation keeps a `Hold` on each array that it needs, the
array's `Guard` knows the hold only weakly, and Python's reference counting does the rest: when the
last such operation is released or dropped, the hold is gone and the array is free.

While an array is pinned, the views of it that `Tensor.data` has handed out are read-only. The array
itself stays writable: compiled kernels would take a read-only one for another type.

NumPy does not tell an array of its views, so a part that was cut out of `x.data` before the pin
(`part = x.data[:2]`) cannot be locked. But every such part keeps the view alive that it was cut
from, and so the guard knows whether there may be one. If there is, the operation takes a *seal*: a
checksum of the values, compared when its backward is about to read them. A change is then found at
`backward()` instead of at the assignment. Where no view is left, as in any training loop that keeps
none, there is nothing to compute.

What the guard does not see: changes through `Tensor.array`, which is for operations; and, on a GPU,
where arrays have no read-only flag, anything but `x[...] = value` and `x.writable()`.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from minillm.backend import Array
from minillm.errors import GraphError

Views = list["weakref.ref[np.ndarray]"]


class Hold:
    """Kept by recorded operations for as long as they need an array."""

    __slots__ = ("__weakref__", "op")
    op: str  # the first of them, for the error message


class Seal:
    """A hold on an array of which somebody has a view: it knows what the values were."""

    __slots__ = ("array", "checksum", "hold", "op")

    def __init__(self, hold: Hold, op: str, array: np.ndarray) -> None:
        self.hold, self.op, self.array = hold, op, array
        self.checksum = _checksum(array)

    def check(self) -> None:
        """Raise `GraphError` where the values are others now."""
        if _checksum(self.array) != self.checksum:
            raise GraphError(
                f"an array of shape {self.array.shape} that the backward of '{self.op}' needs was"
                " changed after the forward pass, through a part of its .data that was taken"
                " before; change it after backward(), or take a copy"
            )


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)


def _nothing() -> None:
    return None


class Guard:
    """What is known about one piece of memory; tensors that are views of each other share it."""

    __slots__ = ("hold", "views")

    def __init__(self) -> None:
        self.hold: Callable[[], Hold | None] = _nothing  # a weak reference, once pinned
        self.views: Views | None = None  # what users may have in their hands

    def pin(self, op: str, array: Array) -> Hold | Seal:
        """A hold on the memory, to be kept for as long as `op` needs `array`."""
        hold = self.hold()
        if hold is None:
            hold = Hold()
            hold.op = op
            self.hold = weakref.ref(hold)
            if self.views:
                self._lock(hold, self.views)
        return Seal(hold, op, array) if self.views else hold

    def _lock(self, hold: Hold, views: Views) -> None:
        """Make the views read-only until `hold` is gone."""
        _let_write(views, False)
        self.hold = weakref.ref(hold, lambda _: _let_write(views, True))

    def show(self, array: Array) -> Array:
        """`array` for a user's eyes and hands: a view that is read-only while pinned."""
        if not isinstance(array, np.ndarray):
            return array
        hold = self.hold()
        view = array.view(_Anchor).view(_Anchor).view(np.ndarray if hold is None else Pinned)
        if self.views is None:
            self.views = []
        self.views.append(weakref.ref(view, self.views.remove))
        if hold is not None and isinstance(view, Pinned):  # both or neither
            view.guard = self
            self._lock(hold, self.views)
        return view

    def showed(self, array: Array) -> bool:
        """Whether `array` is a view that `show` handed out."""
        return any(view() is array for view in self.views or ())

    def check_writable(self, shape: tuple[int, ...]) -> None:
        """Raise `GraphError` while a recorded operation needs the memory."""
        hold = self.hold()
        if hold is not None:
            raise GraphError(
                f"this tensor of shape {shape} is still needed by the backward of '{hold.op}';"
                " call backward() first, or change a copy"
            )


class _Anchor(np.ndarray):
    """What stands between an array and its views, so that parts keep the view they were cut from.

    NumPy makes a view of a view refer to the array below, for as long as all are of one class.
    """


class Pinned(np.ndarray):
    """A view of pinned memory: NumPy's array, but who writes is told which operation needs it.

    What is computed from it is a plain array.
    """

    guard: Guard | None

    def __array_finalize__(self, source: Any) -> None:
        self.guard = getattr(source, "guard", None)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else array

    def __setitem__(self, index: Any, value: Any) -> None:
        self._check()
        super().__setitem__(index, value)

    def _check(self) -> None:
        if not self.flags.writeable and self.guard is not None:
            self.guard.check_writable(self.shape)


def _checked(name: str) -> Callable[[Pinned, Any], Pinned]:
    """An operator like `+=` that looks at the guard first."""
    plain = getattr(np.ndarray, name)

    def operator(self: Pinned, other: Any) -> Pinned:
        self._check()
        plain(self, other)
        return self

    return operator


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    setattr(Pinned, f"__i{_name}__", _checked(f"__i{_name}__"))


def check_seals(holds: list[Hold | Seal]) -> None:
    """Raise `GraphError` where sealed values have changed."""
    for hold in holds:
        if type(hold) is Seal:
            hold.check()


def _let_write(views: Views, allowed: bool) -> None:
    for reference in views:
        view = reference()
        if view is not None and view.base is not None:  # every view has a base
            view.flags.writeable = allowed and view.base.flags.writeable
