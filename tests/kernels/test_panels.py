"""Packing: panels hold the matrix as their definition says, whatever its layout and its edges."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_matmul import LAYOUTS, arranged

from minillm.jit import disabled, jit
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


@pytest.mark.parametrize(("stored", "packed"), KINDS)
@pytest.mark.parametrize("step", [1, 0, -1])  # along memory, the same row again, backwards
def test_nothing_is_read_outside_of_the_matrix(stored, packed, step):
    this = tile(packed)
    nan = 0x7FC0 if stored == "uint16" else np.nan
    for rows, depth in ((1, 1), (5, 2), (13, 33), (30, 64), (this.columns + 1, 47)):
        memory = np.full(128 + rows * depth, nan, stored)
        inside = memory[64:-64].reshape(depth, rows)
        inside[...] = 0x3F80 if stored == "uint16" else 1
        source = np.lib.stride_tricks.as_strided(
            inside[::-1] if step < 0 else inside, strides=(step * inside.strides[0], inside.itemsize)
        ).T
        stop = -(-depth // (this.per_word * this.lanes)) * this.lanes
        for width in (this.rows, this.columns):
            tiles = -(-rows // width)
            panels = np.zeros((tiles, stop, width), packed)
            pack_any(source, 0, tiles, 0, stop, panels, 0, 0)
            found = halves(panels)
            assert ((found == 1) | (found == 0)).all() and (found[:, :depth] == 1).all()


@jit(reads=("source",))
def pack_again(source, panels, times):
    for _ in range(times):
        pack(source, 0, len(panels), 0, panels.shape[1], panels, 0, 0)


@jit
def differences(panels, wanted, times):
    """How often a number of `panels` was found to be another than is wanted."""
    found = 0
    for _ in range(times):
        for i in range(panels.shape[0]):
            for j in range(panels.shape[1]):
                for k in range(panels.shape[2]):
                    found += panels[i, j, k] != wanted[i, j, k]
    return found


@pytest.mark.parametrize(("stored", "packed"), KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_who_packs_a_panel_once_more_disturbs_nobody_who_reads_it(stored, packed, layout):
    this, times = tile(packed), 2 if disabled() else 3000
    rows, depth = 2 * this.rows - 1, 3 * this.lanes * this.per_word
    source = np.random.default_rng(0).standard_normal((rows, depth))
    source = source.astype("float32" if stored == "uint16" else stored)
    source = arranged(round_to_bfloat16(source) if stored == "uint16" else source, layout)
    panels = np.zeros((2, 3 * this.lanes, this.rows), packed)
    pack_again(source, panels, 1)
    wanted = panels.copy()
    assert differences(panels, wanted, 1) == 0  # and everything is compiled
    other = threading.Thread(target=pack_again, args=(source, panels, times))
    other.start()
    found = differences(panels, wanted, times)
    other.join()
    assert found == 0
