"""Every fast kernel on shapes, layouts, dtypes, sizes of numbers and threads that nobody chose.

Each result is held against the formula in float64, within a bound that follows from the formula,
the dtype and the very numbers (running_error.py). One thread and two give the same bits.
"""

from __future__ import annotations

from typing import Any

import fuzz_products  # noqa: F401 - imported for the entries that it adds to the table
import fuzz_rows  # noqa: F401
import numpy as np
import pytest
from fuzz_draw import TABLE, Draw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm import backend

SPECIALS = [None, None, np.nan, np.inf, -np.inf]


def check(name: str, data: Any) -> None:
    """One case: draw it, run it on one thread and two, compare."""
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    draw = Draw(data.draw, dtype, data.draw(st.sampled_from(SPECIALS), "special"))
    before = backend.threads()
    with np.errstate(all="ignore"):
        fast, exact = TABLE[name](draw)
        runs = []
        try:
            for count in range(1, 1 + min(2, backend.cores())):
                backend.set_threads(count)
                runs.append([np.array(result) for result in fast()])
        finally:
            backend.set_threads(before)
        expected = exact()
    assert len(runs[0]) == len(expected)
    for place, (result, wanted) in enumerate(zip(runs[0], expected, strict=True)):
        for run in runs[1:]:
            assert result.tobytes() == run[place].tobytes(), f"threads change result {place}"
        compare(result, wanted, place, draw)


def compare(result: np.ndarray, wanted: Any, place: int, draw: Draw) -> None:
    """Within the bound where it is finite; NaN where the formula says NaN."""
    assert result.shape == wanted.value.shape, f"result {place}"
    value, error = wanted.value, np.broadcast_to(wanted.error, wanted.value.shape)
    if draw.placed and np.isnan(draw.special):
        assert np.isnan(result[np.isnan(value)]).all(), f"result {place} hides a NaN"
    finite = abs(value) + error <= np.finfo(result.dtype).max  # beyond it, infinity may come first
    if draw.placed and draw.spreads:
        finite &= ~np.isnan(result)
    off = abs(result[finite].astype(np.float64) - value[finite])
    bad = ~(off <= error[finite])
    if bad.any():
        at = np.unravel_index(np.flatnonzero(finite)[bad.argmax()], value.shape)
        raise AssertionError(
            f"result {place} at {tuple(map(int, at))} is {result[at]!r}, not {value[at]!r}:"
            f" off by {abs(result[at] - value[at]):.3g}, bound {error[at]:.3g}"
        )


@pytest.mark.parametrize("name", TABLE)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_kernel_keeps_its_bound_on_any_threads(name: str, data: Any) -> None:
    check(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_deeper(name: str, data: Any) -> None:
    check(name, data)
