"""Matrix product: the tiles against float64, whatever the shapes, strides, dtypes and threads."""

import itertools

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.errors import InputError
from minillm.jit import disabled
from minillm.kernels import blocking, few_rows, matmul
from minillm.kernels.bfloat16 import raw
from minillm.kernels.epilogue import epilogue, fitted
from minillm.kernels.processor import WORD
from minillm.kernels.tile import tile

SIZES = st.integers(0, 70)
BFLOAT16 = ml_dtypes.bfloat16
LAYOUTS = ("plain", "transposed", "strided", "reversed", "read-only")


def arranged(x, layout):
    """The same numbers, laid out differently in memory."""
    if layout == "transposed":
        return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]
    x = x.copy()
    x.flags.writeable = layout != "read-only"
    return x


def operands(lead, M, K, N, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((*lead, *s)).astype(dtype) for s in ((M, K), (K, N))]


def check(result, a, b):
    """`result` against a @ b in float64: each of K roundings moves it by half a unit at most."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = (a.shape[-1] + 2) * np.finfo(result.dtype).eps * (abs(a) @ abs(b))
    assert result.shape == (a @ b).shape
    assert np.all(abs(result - a @ b) <= bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, BFLOAT16])
@settings(max_examples=25, deadline=None)
@given(
    lead=st.sampled_from([(), (2,), (3, 2)]), M=SIZES, K=SIZES, N=SIZES,
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    scale=st.sampled_from([1e-4, 1.0, 1e4]), threads=st.integers(1, 2),
)  # fmt: skip
def test_any_shape_and_layout(dtype, lead, M, K, N, layouts, scale, threads):
    a, b = operands(lead, M, K, N, dtype)
    a = (a * np.float32(scale)).astype(dtype)
    a, b = (arranged(x, layout) for x, layout in zip((a, b), layouts, strict=True))
    before = backend.threads()
    backend.set_threads(min(threads, backend.cores()))
    try:
        check(matmul.product(a, b), a, b)
    finally:
        backend.set_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
@pytest.mark.parametrize("layout", ["plain", "transposed"])
def test_many_blocks_and_pieces(dtype, layout, monkeypatch):
    monkeypatch.setattr(blocking, "ROOM", 1 << 17)  # so that a is packed piece by piece
    a, b = operands((), 300, 2500, 330, dtype)
    check(matmul.product(arranged(a, layout), b), a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, BFLOAT16])
@pytest.mark.parametrize(
    "shape",
    [(1, 600, 97), (5, 40, 64), (90, 600, 130), (400, 70, 33), (400, 2500, 33), (60, 20, 1000)],
)
def test_threads_change_no_bit(dtype, shape):
    a, b = operands((), *shape, dtype)
    b = arranged(b, "transposed")
    before, results = backend.threads(), []
    try:
        for threads in {1, min(2, backend.cores())}:
            backend.set_threads(threads)
            results.append(matmul.product(a, b).tobytes())
    finally:
        backend.set_threads(before)
    assert len(set(results)) == 1
    check(matmul.product(a, b), a, b)


@pytest.mark.skipif(disabled(), reason="in plain Python a tile is NumPy's product")
def test_other_rows_and_columns_change_no_bit():
    a, b = operands((), 200, 600, 100, np.float32)
    whole = matmul.product(a, b)
    np.testing.assert_array_equal(matmul.product(a[37:60], b), whole[37:60])
    np.testing.assert_array_equal(matmul.product(a, b[:, 11:50]), whole[:, 11:50])


@pytest.mark.parametrize("M", [2, 40])
def test_rounds_float32_to_bfloat16_when_told(M):
    a, b = operands((), M, 131, 50, np.float32)
    b = arranged(b, "transposed")
    half = [x.astype(BFLOAT16) for x in (a, b)]
    result = matmul.product(a, b, bfloat16=True)
    check(result, *half)
    half[1] = arranged(half[1], "transposed")
    np.testing.assert_array_equal(result, matmul.product(*half))
    check(matmul.product(a, half[1]), *half)
    check(matmul.product_reference(a, b, True), *half)


def test_what_is_added_has_no_end():
    a, out = np.ones((2, 2)), np.zeros((2, 2))
    with pytest.raises(InputError, match="no end of its own"):
        matmul.product(a, a, out, accumulate=True, end=epilogue(np.ones(2)))


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("M", [3, 50, 200])
def test_out_and_accumulate(M, bfloat16):
    a, b = operands((), M, 30, 45, np.float32)
    plain = matmul.product(a, b, bfloat16=bfloat16)
    start = np.arange(plain.size, dtype=np.float32).reshape(plain.shape)
    for out in (start.copy(), arranged(start, "transposed"), arranged(start, "strided")):
        assert matmul.product(a, b, out=out, accumulate=True, bfloat16=bfloat16) is out
        np.testing.assert_array_equal(out, start + plain)
        assert matmul.product(a, b, out=out, bfloat16=bfloat16) is out
        np.testing.assert_array_equal(out, plain)


def test_no_k_gives_zeros_and_adds_nothing():
    a, b = np.ones((3, 0), np.float32), np.ones((0, 4), np.float32)
    np.testing.assert_array_equal(matmul.product(a, b), np.zeros((3, 4)))
    out = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(matmul.product(a, b, out=out, accumulate=True), np.ones((3, 4)))


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("M", [4, 30])
def test_nan_and_infinity_stay_where_they_belong(M, bad, bfloat16):
    a, b = operands((), M, 33, 35, np.float32)
    a[2, 32] = bad
    result = matmul.product(a, b, bfloat16=bfloat16)
    assert not np.isfinite(result[2]).any()
    assert np.isfinite(np.delete(result, 2, axis=0)).all()
    assert np.isnan(result[2]).all() == np.isnan(bad)


def test_few_rows_take_their_own_way():
    a, b = operands((1,), 2, 40, 50, np.float32)
    assert few_rows.suits(a, arranged(b, "transposed")) and not few_rows.suits(a, b)


LEADS = [((), ()), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((2, 3), (1, 3)), ((1,), (4,))]


@pytest.mark.parametrize(("lead_a", "lead_b"), LEADS)
def test_gradients_equal_pytorchs_and_the_reference(lead_a, lead_b):
    a, b = operands(lead_a, 5, 7, 4, np.float64)[0], operands(lead_b, 5, 7, 4, np.float64)[1]
    theirs = [torch.tensor(x, requires_grad=True) for x in (a, b)]
    out = theirs[0] @ theirs[1]
    dout = np.random.default_rng(1).standard_normal(out.shape)
    out.backward(torch.tensor(dout))
    np.testing.assert_allclose(matmul.forward(a, b), out.detach(), rtol=1e-12)
    for backward in (matmul.backward, matmul.backward_reference):
        for ours, their in zip(backward(dout, a, b), theirs, strict=True):
            np.testing.assert_allclose(ours, their.grad, rtol=1e-11, atol=1e-13)


def test_shapes_that_do_not_fit_are_named():
    a, b = operands((), 3, 4, 5, np.float32)
    for wrong in (lambda: matmul.product(a, b.T), lambda: matmul.product(a[0], b)):
        with pytest.raises(InputError, match=r"not \("):
            wrong()
    with pytest.raises(InputError, match="out has"):
        matmul.product(a, b, out=np.empty((3, 4), np.float32))
    with pytest.raises(InputError, match="precision"):
        matmul.product(a.astype(np.float64), b.astype(BFLOAT16))


def test_outputs_are_cut_within_bounds_and_very_wide_ones_into_columns():
    cut = getattr(blocking.cut, "py_func", blocking.cut)
    for count, rows, columns, workers, widest in itertools.product(
        (1, 3), (1, 7, 86), (1, 4, 24), (1, 2, 16), (1, 6, 36)
    ):
        down, across = cut(count, (rows, columns), workers, widest)
        assert 1 <= down <= rows and -(-columns // widest) <= across <= columns
        if workers == 1:
            assert (down, across) == (1, -(-columns // widest))
    for tiles, widest, cuts in (
        ((86, 24), 6, (2, 4)), ((43, 1572), 6, (1, 262)), ((11, 4), 6, (2, 1)), ((11, 16), 6, (1, 4)),
    ):  # fmt: skip
        assert cut(1, tiles, 2, widest) == cuts


def piece_of(a, b, packed):
    """The product of a (1, M, K) and b (1, K, N) as one piece, and memory for two workers."""
    this = tile(packed)
    words = -(-a.shape[2] // (this.lanes * this.per_word)) * this.lanes
    panels, parts = -(-a.shape[1] // this.rows), -(-words // blocking.DEPTH)
    piece = blocking.Piece(
        np.full((panels, words, this.rows), 7, packed),
        1 if a.strides[2] == a.itemsize else blocking.GROUP, np.zeros(panels * parts, np.int64),
        raw(a), raw(b).swapaxes(1, 2), 0, 0, a.shape[1], False, True,
    )  # fmt: skip
    return piece, np.empty((2, blocking.DEPTH * blocking.WIDE * this.columns), packed)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
@pytest.mark.parametrize("transposed", [False, True])
def test_panels_are_packed_by_whoever_needs_them_if_nobody_has(dtype, transposed):
    a, b = operands((1,), 400, 900, 70, dtype)
    if transposed:  # then panels are packed in groups
        a = np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
    packed = WORD if dtype == BFLOAT16 else "float32"
    (piece, blocks), out = piece_of(a, b, packed), np.empty((1, 400, 70), np.float32)
    blocking.multiply_piece(piece, out, blocks, 2, fitted(None, out))
    np.testing.assert_array_equal(out, matmul.product(a, b))
    check(out, a, b)
    counted = slice(None) if piece.group == 1 else slice(0, 1)  # a group's first counts for all
    assert (piece.ready[counted] > 0).all()
    piece.packed[...] = 0
    blocking.multiply_piece(piece, out, blocks, 2, fitted(None, out))
    assert (out == 0).all()  # nobody has packed them again


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_number_of_workers_changes_no_bit(dtype, transposed, monkeypatch):
    for count, M, K, N in ((1, 400, 900, 300), (1, 30, 500, 1500), (5, 70, 90, 130)):
        a, b = operands((count,), M, K, N, dtype)
        if transposed:
            a = np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
        results = []
        for workers in (1, 3, 16, 64):  # more than there are threads: these take turns
            monkeypatch.setattr(backend, "threads", lambda workers=workers: workers)
            results.append(matmul.product(a, b).tobytes())
        assert len(set(results)) == 1


@pytest.mark.parametrize("worker", [0, 1])
def test_a_worker_does_what_another_does_not_come_to(worker):
    a, b = operands((1,), 100, 300, 700, np.float32)
    (piece, blocks), out = piece_of(a, b, "float32"), np.full((1, 100, 700), np.nan, np.float32)
    this, tickets = tile("float32"), np.zeros(2, np.int64)
    tiles = len(piece.packed), -(-700 // this.columns)
    cuts = 2, -(-tiles[1] // blocking.WIDE)
    blocking.work(piece, out, blocks, fitted(None, out), tiles, cuts, tickets, worker)
    np.testing.assert_array_equal(out, matmul.product(a, b))
    assert (tickets > cuts[1]).all()  # each share's tasks, and the word that none is left
