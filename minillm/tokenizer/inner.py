"""A mark for the small functions inside the tokenizers' compiled loops.

Numba counts references to every array that a function holds, and each count is an atomic
instruction: five nanoseconds, as much as reading a whole word of text. A function that allocates
nothing needs no counts, so these go without, and are pasted into the loops that call them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minillm.jit import jit


def inner(function: Callable[..., Any]) -> Any:
    """Mark a function that allocates nothing to be compiled into its callers."""
    return jit(function, borrows=True, forceinline=True)
