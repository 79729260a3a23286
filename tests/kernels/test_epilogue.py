"""The end of a product: the same numbers as the product followed by passes of its own."""

import numpy as np
import pytest
from cases import DTYPES, assert_same_on_any_threads
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.jit import disabled
from minillm.kernels import blocking, matmul
from minillm.kernels.bfloat16 import BFLOAT16
from minillm.kernels.epilogue import ADD, GELU, GELU_BACK, NOTHING, TANH, epilogue, finish_reference

SIZES = st.integers(0, 70)
KINDS = [NOTHING, ADD, GELU, GELU + TANH, GELU_BACK, GELU_BACK + TANH]


def case(lead, M, K, N, dtype, seed=0):
    """a, b, bias, and what lies beside the output."""
    rng = np.random.default_rng(seed)
    shapes = (*lead, M, K), (*lead, K, N), (N,), (*lead, M, N)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(lead=st.sampled_from([(), (3,)]), M=SIZES, K=SIZES, N=SIZES, with_bias=st.booleans())
def test_equals_passes_of_their_own(dtype, kind, lead, M, K, N, with_bias):
    a, b, bias, beside = case(lead, M, K, N, dtype)
    bias = bias if with_bias else None
    ends = [epilogue(bias, kind, x) for x in (beside.copy(), beside.copy())]
    out = matmul.product(a, b, end=ends[0])
    wanted = matmul.product(a, b)
    wanted = wanted if ends[1] is None else finish_reference(wanted, ends[1])
    bound = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(out, wanted, rtol=bound, atol=bound * 10)
    if kind:
        np.testing.assert_allclose(ends[0].beside, ends[1].beside, rtol=bound, atol=bound * 10)


@pytest.mark.parametrize("kind", KINDS[1:])
@settings(max_examples=20, deadline=None)
@given(M=SIZES, K=st.integers(1, 70), N=SIZES)
def test_what_lies_beside_may_be_stored_in_bfloat16(kind, M, K, N):
    """Numbers that are in bfloat16 anyway: only what is written there is rounded."""
    a, b, bias, beside = case((), M, K, N, np.float32)
    half = beside.astype(BFLOAT16)
    wide = half.astype(np.float32)
    out = matmul.product(a, b, end=epilogue(bias, kind, half))
    wanted = matmul.product(a, b, end=epilogue(bias, kind, wide))
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(half, wide.astype(BFLOAT16))


@pytest.mark.skipif(disabled(), reason="in plain Python a tile is NumPy's product")
@pytest.mark.parametrize("kind", [NOTHING, ADD])
def test_comes_once_after_all_pieces(kind, monkeypatch):
    monkeypatch.setattr(blocking, "ROOM", 1 << 17)  # so that a is packed piece by piece
    a, b, bias, beside = case((), 300, 1100, 330, np.float32)
    out = matmul.product(a, b, end=epilogue(bias, kind, beside))
    np.testing.assert_array_equal(out, matmul.product(a, b) + bias + (beside if kind else 0))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_threads_change_no_bit(kind):
    a, b, bias, beside = case((), 200, 300, 170, np.float32)

    def run():
        kept = beside.copy()
        return matmul.product(a, b, end=epilogue(bias, kind, kept)), kept

    assert_same_on_any_threads(run)


def test_a_residual_of_any_layout_is_read_where_it_lies():
    a, b, bias, beside = case((), 40, 30, 50, np.float32)
    wanted = matmul.product(a, b, end=epilogue(bias, ADD, beside))
    read_only = beside.copy()
    read_only.flags.writeable = False
    for layout in (np.asfortranarray(beside), beside.astype(np.float64), read_only):
        out = matmul.product(a, b, end=epilogue(bias, ADD, layout))
        np.testing.assert_array_equal(out, wanted)
