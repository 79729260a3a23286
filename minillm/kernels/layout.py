"""Arrays as the fast twins take them: contiguous, flat or in rows, and read-only.

Numba compiles a kernel anew for every combination of strides and writability it meets. Bringing
every input to one form means one version of each kernel for each dtype.

Inside of kernels, `on_stack` is room for numbers that nobody has to allocate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm.backend import Array
from minillm.jit import intrinsic

# Elements that one thread takes at a time: three such arrays fit in a core's own cache. Work is
# cut at multiples of it whatever the number of threads, and less than two parts is done by one.
PART = 1 << 14


def flat(x: Array) -> Array:
    """The numbers of `x` (...) in a row (x.size,), without a copy where `x` is contiguous."""
    view = np.ascontiguousarray(x).reshape(-1)
    view.setflags(write=False)
    return view


def rows(x: Array) -> Array:
    """`x` (..., C) as rows (N, C), without a copy where `x` is contiguous; C is not 0."""
    view = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    view.setflags(write=False)
    return view


def side_by_side(x: Array) -> Array:
    """`x` if the numbers of its last axis are neighbours in memory, else a copy where they are."""
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def sum_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """`gradient` summed over the axes along which an array of `shape` had been broadcast."""
    lead = gradient.ndim - len(shape)
    stretched = (
        lead + axis
        for axis, length in enumerate(shape)
        if length == 1 and gradient.shape[lead + axis] != 1
    )
    axes = (*range(lead), *stretched)
    return gradient.sum(axis=axes, keepdims=True).reshape(shape) if axes else gradient


def _neighbours_plain(x):
    return x


@intrinsic(plain=_neighbours_plain)
def neighbours(typing, x):
    """`x` (N,), whose numbers must lie side by side, to be read as an array known to be so.

    Loops over an array of unknown stride are not made into vector instructions.
    """
    from numba.core import types

    known = types.Array(x.dtype, 1, "C", readonly=True)
    return known(x), _write_neighbours


def _write_neighbours(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The argument itself, with one more reference: Numba will drop that of the result too."""
    from numba.core.imputils import impl_ret_borrowed

    return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])


STACK = 512  # numbers: a tile of any processor, or a square of vectors


def _on_stack_plain(like):
    return np.empty(STACK, like.dtype)


@intrinsic(plain=_on_stack_plain)
def on_stack(typing, like):
    """Room for STACK numbers of the dtype of `like`, on the stack of the function that asks.

    It costs nothing and is gone when that function returns, so it must not be returned or kept.
    Asked for again, in a loop, it is the same room.
    """
    from numba.core import types

    return types.Array(like.dtype, 1, "C")(like), _write_on_stack


def _write_on_stack(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """An array without an owner around the stack's memory."""
    from numba.core import cgutils
    from numba.np.arrayobj import populate_array

    kind = signature.return_type
    array = context.make_array(kind)(context, builder)
    number = context.get_data_type(kind.dtype)
    room = cgutils.alloca_once(builder, number, size=STACK)
    room.align = 64
    size, step = (cgutils.intp_t(n) for n in (STACK, context.get_abi_sizeof(number)))
    populate_array(array, room, [size], [step], step, None)
    return array._getvalue()
