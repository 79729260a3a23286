"""What the table of fast kernels is made of: a case's dtype, arrays, layouts and special numbers.

An entry of the table is a function that draws its arguments and returns two more: one calls the
fast twin, one computes the formula in `Real` numbers (running_error.py), from which the bound
follows. The entries are in fuzz_products.py and fuzz_rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from running_error import Real

SIZES = [0, 1, 1, 2, 3, 4, 7, 8, 17, 33, 64, 65, 130]
SCALES = [1e-4, 0.03, 1.0, 1.0, 30.0, 1e4]
LAYOUTS = ["plain", "plain", "transposed", "strided", "reversed", "repeated", "shifted"]
LAYOUTS += ["read-only"]
Entry = Callable[["Draw"], tuple[Callable[[], Sequence[Any]], Callable[[], Sequence[Any]]]]


class Draw:
    """One case: what dtype, which special number goes somewhere, and the arrays."""

    def __init__(self, draw: Any, dtype: Any, special: float | None) -> None:
        self.one, self.dtype, self.special, self.placed = draw, np.dtype(dtype), special, False
        self.spreads = False  # whether a NaN may reach results of the same tile, 0 times NaN

    def choice(self, values: Sequence[Any]) -> Any:
        return self.one(st.sampled_from(list(values)))

    def size(self, most: int = 130, least: int = 0) -> int:
        return self.choice([n for n in SIZES if least <= n <= most])

    def shape(self, last: int | None = None) -> tuple[int, ...]:
        """Up to two leading axes and a last one; now and then enough numbers for all threads."""
        if last is None and self.choice(range(12)) == 0:
            return self.choice([(3, 20_011), (70_001,), (257, 300)])
        lead = self.one(st.lists(st.sampled_from(SIZES[:8]), max_size=2))
        return (*lead, self.size() if last is None else last)

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.one(st.integers(0, 2**32 - 1)))

    def floats(
        self, *shape: int, takes: str = "", low: float = -1, dtype: Any = None
    ) -> np.ndarray:
        """Numbers from `low` to 1, times a scale up to 1e4, in any layout.

        `takes`: the special numbers that may stand among them.
        """
        x = self.rng().uniform(low, 1, shape) * self.choice(SCALES)
        x = x.astype(self.dtype if dtype is None else dtype)
        if str(self.special) in takes.split() and x.size and not self.placed:
            self.placed = self.special is not None
            x[np.unravel_index(self.one(st.integers(0, x.size - 1)), shape)] = self.special
        return laid_out(x, self.choice(LAYOUTS))

    def given(self, numbers: Real | np.ndarray) -> np.ndarray:
        """What an earlier kernel would have handed over: rounded, in any layout.

        But not "repeated", which makes other numbers of it: a row's lse is that of its own scores.
        """
        values = numbers.value if isinstance(numbers, Real) else numbers
        layouts = [layout for layout in LAYOUTS if layout != "repeated"]
        return laid_out(values.astype(self.dtype), self.choice(layouts))

    def real(self, *arrays: np.ndarray) -> list[Real]:
        return [Real(array, self.dtype) for array in arrays]


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers, otherwise in memory ("repeated": the first row's numbers in every row)."""
    if x.ndim == 0 or layout == "plain":
        return x
    if layout == "transposed":
        return np.asfortranarray(x)
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(x[::-1])[::-1]
    if layout == "shifted":  # not at a multiple of 16, 32 or 64 bytes
        room = np.empty(x.size + 1, x.dtype)
        room[1:] = x.reshape(-1)
        return room[1:].reshape(x.shape)
    if layout == "repeated" and len(x) and np.isfinite(x.astype(np.float64)).all():
        return np.broadcast_to(x[:1], x.shape)
    x = x.copy()
    x.flags.writeable = layout != "read-only"
    return x


TABLE: dict[str, Entry] = {}


def entry(function: Entry) -> Entry:
    TABLE[function.__name__] = function
    return function
