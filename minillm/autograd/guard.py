"""The in-place guard: memory that a backward pass will read again cannot be changed until then.

A backward function closes over arrays. If such an array changed between the two passes, the
gradient would be wrong and nobody would notice. So an array that is needed again is *pinned*:

    y = x * x                  # pins x, whose values the derivative 2x needs
    x.data[0] = 5.0            # ValueError: assignment destination is read-only
    y.sum().backward()         # releases the pin
    x.data[0] = 5.0            # fine

A pin is a reference. Every recorded operation keeps a `Hold` on each array that it needs, the
array's `Guard` knows the hold only weakly, and Python's reference counting does the rest: when the
last such operation is released or dropped, the hold is gone and the array is free.

While an array is pinned, the views of it that `Tensor.data` has handed out are read-only. The array
itself stays writable: compiled kernels would take a read-only one for another type. What the guard
cannot see: a part that somebody cut out before the pin (`part = x.data[:2]`), an array that
`x.data = array` took over while its giver kept it, and, on a GPU, where arrays have no read-only
flag, anything but `x[...] = value` and `x.writable()`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np

from minillm.backend import Array
from minillm.errors import GraphError

Views = list["weakref.ref[np.ndarray]"]


class Hold:
    """Kept by recorded operations for as long as they need an array."""

    __slots__ = ("__weakref__", "op")
    op: str  # the first of them, for the error message


def _nothing() -> None:
    return None


class Guard:
    """What is known about one piece of memory; tensors that are views of each other share it."""

    __slots__ = ("hold", "spent_by", "views")

    def __init__(self) -> None:
        self.hold: Callable[[], Hold | None] = _nothing  # a weak reference, once pinned
        self.views: Views | None = None  # what users may have in their hands
        self.spent_by = ""  # the operation that wrote its gradient over the values

    def pin(self, op: str) -> Hold:
        """A hold on the memory, to be kept for as long as `op` needs it."""
        hold = self.hold()
        if hold is None:
            if self.spent_by:
                self.check(op)
            hold = Hold()
            hold.op = op
            self.hold = weakref.ref(hold)
            if self.views:
                self._lock(hold)
        return hold

    def _lock(self, hold: Hold) -> None:
        """Make the views read-only until `hold` is gone."""
        views = self.views
        _let_write(views, False)
        self.hold = weakref.ref(hold, lambda _: _let_write(views, True))

    def show(self, array: Array) -> Array:
        """`array` for a user's eyes and hands: a view that is read-only while pinned."""
        self.check("reading its data")
        if not isinstance(array, np.ndarray):
            return array
        view = array.view()
        if self.views is None:
            self.views = []
        self.views.append(weakref.ref(view, self.views.remove))
        hold = self.hold()
        if hold is not None:
            self._lock(hold)
        return view

    def showed(self, array: Array) -> bool:
        """Whether `array` is a view that `show` handed out."""
        return any(view() is array for view in self.views or ())

    def spend(self, op: str) -> bool:
        """Whether the backward of `op` may write over the memory; if so, it is spent from now on.

        It may not while another operation needs the values, or a user holds a view of them.
        """
        if self.hold() is not None or self.views:
            return False
        self.spent_by = op
        return True

    def check(self, use: str) -> None:
        """Raise `GraphError` where the values are gone."""
        if self.spent_by:
            raise GraphError(
                f"{use} needs values that the backward of '{self.spent_by}' has overwritten with"
                " their gradient, as its consume=True allowed; use them before backward()"
            )

    def check_writable(self, shape: tuple[int, ...]) -> None:
        """Raise `GraphError` while a recorded operation needs the memory, or where it is spent."""
        self.check("writing")
        hold = self.hold()
        if hold is not None:
            raise GraphError(
                f"this tensor of shape {shape} is still needed by the backward of '{hold.op}';"
                " call backward() first, or change a copy"
            )


def _let_write(views: Views, allowed: bool) -> None:
    for reference in views:
        view = reference()
        if view is not None:
            view.flags.writeable = allowed and view.base.flags.writeable
