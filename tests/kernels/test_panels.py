"""Packing: panels hold the matrix as their definition says, whatever its layout and its edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_matmul import LAYOUTS, arranged

from minillm.jit import jit
from minillm.kernels.bfloat16 import round_to_bfloat16, widen
from minillm.kernels.packing import pack
from minillm.kernels.processor import WORD
from minillm.kernels.tile import halves, tile

KINDS = [("float32", "float32"), ("float64", "float64"), ("float32", WORD), ("uint16", WORD)]


@jit(reads=("source",))
def pack_any(source, first, last, start, stop, panels, base, into):
    pack(source, first, last, start, stop, panels, base, into)


def as_numbers(source):
    """What the panels should hold, in float32 or float64."""
    return widen(source) if source.dtype == np.uint16 else source


@pytest.mark.parametrize(("stored", "packed"), KINDS)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 70), depth=st.integers(1, 90), layout=st.sampled_from(LAYOUTS),
    operand=st.sampled_from(["a", "b"]), skipped=st.integers(0, 2), blocks=st.integers(0, 1),
)  # fmt: skip
def test_panels_hold_rows_by_k(stored, packed, rows, depth, layout, operand, skipped, blocks):
    this, each = tile(packed), tile(packed).per_word
    width = this.rows if operand == "a" else this.columns
    first, last = min(skipped, (rows - 1) // width), -(-rows // width)
    source = np.random.default_rng(rows * depth).standard_normal((rows, depth))
    source = source.astype("float32" if stored == "uint16" else stored)
    source = arranged(round_to_bfloat16(source) if stored == "uint16" else source, layout)
    stop = -(-depth // (each * this.lanes)) * this.lanes
    start = min(blocks * this.lanes, stop - this.lanes)
    base, into = 1, 3
    panels = np.full((base + last - first + 1, into + stop - start, width), 77, packed)
    pack_any(source, first, last, start, stop, panels, base, into)

    numbers = as_numbers(np.ascontiguousarray(source))
    if packed == WORD:
        numbers = widen(round_to_bfloat16(numbers))
    padded = np.zeros((rows, stop * each), numbers.dtype)
    padded[:, :depth] = numbers
    for t in range(first, last):
        those = np.arange(t * width, min((t + 1) * width, rows))
        found = halves(panels[None, base + t - first, into:])[0, :, : len(those)]
        np.testing.assert_array_equal(found, padded[those, start * each :].T)
    assert (panels[0] == 77).all() and (panels[-1] == 77).all() and (panels[:, :into] == 77).all()
