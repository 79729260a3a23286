"""Arrays as the fast twins take them: contiguous, flat or in rows, and read-only.

Numba compiles a kernel anew for every combination of strides and writability it meets. Bringing
every input to one form means one version of each kernel for each dtype.
"""

from __future__ import annotations

import numpy as np

from minillm.backend import Array

# Elements that one thread takes at a time: three such arrays fit in a core's own cache. Work is
# cut at multiples of it whatever the number of threads, and less than two parts is done by one.
PART = 1 << 14


def flat(x: Array) -> Array:
    """The numbers of `x` (...) in a row (x.size,), without a copy where `x` is contiguous."""
    view = np.ascontiguousarray(x).reshape(-1)
    view.flags.writeable = False
    return view


def rows(x: Array) -> Array:
    """`x` (..., C) as rows (N, C), without a copy where `x` is contiguous; C is not 0."""
    view = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    view.flags.writeable = False
    return view
