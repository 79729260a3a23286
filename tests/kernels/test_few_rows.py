"""Products with few rows: every number of them, each side of a vector's end, any strides of rows."""

import ml_dtypes
import numpy as np
import pytest
from cases import assert_same_on_any_threads
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.kernels.bfloat16 import round_to_bfloat16, widen
from minillm.kernels.few_rows import FEW, PART, product_fast, suits
from minillm.kernels.processor import WORD
from minillm.kernels.tile import tile

KINDS = [
    ("float32", "float32", "float32"),
    ("float64", "float64", "float64"),
    ("float32", "float32", WORD),
    ("float32", "uint16", WORD),
    ("uint16", "float32", WORD),
    ("uint16", "uint16", WORD),
]


def stored(x, kind):
    """`x` as the kernel takes it, and the numbers that it multiplies, in float64."""
    if kind == "uint16":
        bits = round_to_bfloat16(x)
        return bits, widen(bits).astype(np.float64)
    x = x.astype(kind, copy=False)  # as it lies
    return x, x.astype(np.float64)


def check(a, b, start, add, packed, kinds):
    """out (n, M, N) = or += a (n, M, K) @ b (n, N, K) transposed, held against float64."""
    (a, exact_a), (b, exact_b) = stored(a, kinds[0]), stored(b, kinds[1])
    if packed == WORD:
        exact_a, exact_b = (widen(round_to_bfloat16(x)).astype(float) for x in (exact_a, exact_b))
    out = start.astype("float64" if packed == "float64" else "float32")
    begun = out.astype(np.float64) * add
    assert suits(a, b.swapaxes(1, 2))
    product_fast(a, b.swapaxes(1, 2), out, add, packed)
    expected = exact_a @ exact_b.swapaxes(1, 2) + begun
    terms = abs(exact_a) @ abs(exact_b).swapaxes(1, 2) + abs(begun)
    assert np.all(abs(out - expected) <= (a.shape[2] + 2) * np.finfo(out.dtype).eps * terms)


@pytest.mark.parametrize(("first", "second", "packed"), KINDS)
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 3), few=st.integers(1, FEW), many=st.integers(1, 40),
    spans=st.integers(0, 6), rest=st.sampled_from([-1, 0, 1, 5]), add=st.booleans(),
    turned=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_every_edge(first, second, packed, n, few, many, spans, rest, add, turned, seed):
    span = tile(packed).lanes * tile(packed).per_word
    M, N, K = (many, few, spans * span + rest) if turned else (few, many, spans * span + rest)
    K = max(1, K)
    rng = np.random.default_rng(seed)
    a, b, start = (rng.standard_normal(shape) for shape in ((n, M, K), (n, N, K), (n, M, N)))
    check(a.astype(np.float32), b.astype(np.float32), start, add, packed, (first, second))


@pytest.mark.parametrize("add", [False, True])
def test_rows_may_lie_apart_and_be_shared(add):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 6, 70), dtype=np.float32)[:, ::2, :50]
    b = np.broadcast_to(rng.standard_normal((20, 50), dtype=np.float32)[::-1], (3, 20, 50))
    check(a, b, rng.standard_normal((3, 3, 20)), add, "float32", ("float32", "float32"))


def test_what_suits():
    a, b = np.empty((1, FEW, 30), np.float32), np.empty((1, 90, 30), np.float32).swapaxes(1, 2)
    assert suits(a, b)
    assert suits(b.swapaxes(1, 2), a.swapaxes(1, 2))  # few columns
    assert not suits(np.empty((1, FEW + 1, 30), np.float32), b)
    assert not suits(a[:, :, ::2], b[:, ::2])  # numbers of a row lie apart
    assert not suits(a, np.ascontiguousarray(b))


@pytest.mark.parametrize("packed", ["float32", WORD])
def test_threads_change_no_bit(packed):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 3, 300), (1, 501, 300)))
    assert a.size * len(b[0]) > 2 * PART  # so that there is work for two

    def run():
        out = np.empty((1, 3, 501), np.float32)
        product_fast(a, b.swapaxes(1, 2), out, False, packed)
        return [out]

    assert_same_on_any_threads(run)


def test_numbers_that_are_rounded_count_as_stored_ones():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 2, 77), (1, 9, 77)))
    results = []
    for pair in ((a, b), [x.astype(ml_dtypes.bfloat16).view(np.uint16) for x in (a, b)]):
        out = np.empty((1, 2, 9), np.float32)
        product_fast(pair[0], pair[1].swapaxes(1, 2), out, False, WORD)
        results.append(out)
    np.testing.assert_array_equal(*results)
