"""Attention: the twins against the reference in float64, PyTorch, masks, memory, thread counts."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend, jit
from minillm.errors import InputError
from minillm.kernels import attention
from minillm.kernels.attention_tiles import in_bfloat16
from minillm.kernels.bfloat16 import BFLOAT16
from minillm.kernels.matmul import rounded

LAYOUTS = {
    "heads outside": lambda x: x,
    "heads inside": lambda x: np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2),
    "backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@st.composite
def problems(draw):
    """Sizes, masks and layouts, small and ragged, with tiles that are full or all but empty."""
    B, G, R = draw(st.integers(0, 2)), draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 3]))
    T = draw(st.sampled_from([0, 1, 2, 7, 63, 65, 130]))
    S = max(T, draw(st.sampled_from([0, 1, 9, 64, 150])))
    D = draw(st.sampled_from([1, 3, 8, 17, 32, 65]))
    mask = {"causal": draw(st.booleans()), "window": draw(st.sampled_from([None, None, 5, 70]))}
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    if draw(st.sampled_from([False, False, True])):
        start, stop = np.sort(rng.integers(0, S + 1, (2, B)), axis=0)[:, :, None]
        mask["padding_mask"] = (start <= np.arange(S)) & (np.arange(S) < stop)
    if draw(st.sampled_from([False, False, True])):
        mask["documents"] = np.sort(rng.integers(0, 4, (1, S)))
    layout = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))]
    scale = draw(st.sampled_from([D**-0.5, 3.0]))
    sizes = [(B, G * R, T, D), (B, G, S, D), (B, G, S, D), (B, G * R, T, D)]
    q, k, v, dout = (layout(rng.standard_normal(size)) for size in sizes)
    return (q, k, v, dout), mask, scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_fast_twins_are_as_exact_as_their_dtype(dtype, problem):
    check_fast_twins(*problem, dtype)


@pytest.mark.parametrize("stored", [np.float32, BFLOAT16])
@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_in_bfloat16_only_the_operands_are_rounded(stored, problem):
    with backend.precision("bfloat16"):
        check_fast_twins(*problem, np.float32, stored)


MASKS = {
    "causal": {"causal": True},
    "both directions": {"causal": False},
    "window": {"causal": True, "window": 70},
    "window in both directions": {"causal": False, "window": 70},
    "padding after": {"causal": False, "padding_mask": np.arange(200) < np.array([[150], [200]])},
    "padding before": {"causal": True, "padding_mask": np.arange(200) >= np.array([[150], [0]])},
    "documents": {"causal": True, "documents": [[0] * 10 + [1] * 120 + [2] * 70]},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("R", [1, 3])
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_each_mask_over_many_tiles(mask, R, precision):
    rng = np.random.default_rng(0)
    q, dout = rng.standard_normal((2, 2, R, 190 // R, 9))
    k, v = rng.standard_normal((2, 2, 1, 200, 9))
    with backend.precision(precision):
        dtype = np.float64 if precision == "float32" else np.float32
        check_fast_twins((q, k, v, dout), MASKS[mask], 0.5, dtype)


def run(arrays, masks, name, precision):
    q, k, v, dout = arrays
    with backend.use(name), backend.precision(precision):
        out, lse = attention.forward(q, k, v, *masks)
        return out, lse, *attention.backward(dout, q, k, v, out, lse, *masks)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_bfloat16_is_near_float32(name):
    arrays = np.random.default_rng(0).standard_normal((4, 2, 3, 90, 24), np.float32)
    masks = (*attention.visible_keys(90, 90), 0.2)
    exact, near = (run(arrays, masks, name, precision) for precision in backend.PRECISIONS)
    for one, other in zip(exact, near, strict=True):
        assert 0 < np.linalg.norm(one - other) < 2**-7 * np.linalg.norm(one)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("T", [3, 90])  # a few queries are served in float32
def test_numbers_stored_in_bfloat16_are_numbers_like_others(name, T):
    rng = np.random.default_rng(0)
    sizes = (2, 2, T, 24), (2, 1, 90, 24), (2, 1, 90, 24), (2, 2, T, 24)
    stored = [rng.standard_normal(size).astype(BFLOAT16) for size in sizes]
    masks = (*attention.visible_keys(T, 90), 0.2)
    wide = run([x.astype(np.float32) for x in stored], masks, name, "bfloat16")
    for precision in backend.PRECISIONS:
        for one, other in zip(run(stored, masks, name, precision), wide, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_array_equal(one, other)
    q, k, v, dout = stored
    out, lse = wide[0].astype(BFLOAT16), wide[1]
    with backend.use(name):
        one, other = (
            attention.backward(dout, q, k, v, given, lse, *masks)
            for given in (out, out.astype(np.float32))
        )
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)


def check_fast_twins(arrays, mask, scale, dtype, stored=None):
    """Both twins against the formula in float64, of operands rounded as the precision has it."""
    q, k, v, dout = (a.astype(stored or dtype) for a in arrays)
    T, S = q.shape[2], k.shape[2]
    masks = attention.visible_keys(T, S, **mask)
    halved = in_bfloat16(q, k, v)
    exact, scales, off = [a.astype(np.float64) for a in (q, k, v, dout)], (scale, 1.0), 0.0
    if halved:
        scaled = k.astype(np.float32) * np.float32(scale)
        exact = [rounded(x).astype(np.float64) for x in (q, scaled, v, dout)]
        scales, off = (1.0, scale), 1.01 * 2**-8
    expected = [*attention.forward_reference(*exact[:3], *masks, scales[0])]
    expected += attention.backward_reference(exact[3], *exact[:3], *expected, *masks, scales[0])
    bounds = error_bounds(*exact, *masks, scales[0], np.finfo(dtype).eps, off)
    for numbers in (expected, bounds):
        numbers[3] = numbers[3] * scales[1]
    lost = 1e4 * np.finfo(dtype).tiny  # terms whose weight is no normal number are 0
    out, lse = attention.forward_fast(q, k, v, *masks, scale)
    fast = (out, lse, *attention.backward_fast(dout, q, k, v, out, lse, *masks, scale))
    assert_within(fast, expected, bounds, lost, dtype)
    if halved:
        out, lse = attention.forward_reference(q, k, v, *masks, scale)
        plain = attention.backward_reference(dout, q, k, v, out, lse, *masks, scale)
        assert_within((out, lse, *plain), expected, bounds, lost, dtype)
    if out.size:
        assert fast[0].swapaxes(1, 2).flags.c_contiguous  # (B, T, H, D), the model goes on with it


def assert_within(found, expected, bounds, lost, dtype):
    for name, a, b, bound in zip(("out", "lse", "dq", "dk", "dv"), found, expected, bounds):
        assert a.dtype == dtype and a.shape == b.shape, name
        same = a == b  # both -inf where nothing is visible
        with np.errstate(invalid="ignore"):
            assert (same | (abs(a - b) <= bound + lost)).all(), name


def error_bounds(q, k, v, dout, first, last, scale, eps, rounding=0.0):
    """How far out, lse, dq, dk, dv may be off, from the sizes of the terms that are added up.

    A score is off by (D + 4) eps times the sum of its |products|; a weight by twice the worst score
    of its row, relatively, and by the additions of its divisor; then every product adds its own.
    `rounding`: that of weights and ds to bfloat16, relatively; delta inherits that of out.
    """
    B, H, T, D = q.shape
    G, S = k.shape[1:3]
    if 0 in (B, T, S):
        return [0] * 5
    scores, k, v, seen = attention._scores(q, k, v, first, last, scale)
    q, dout = (a.reshape(B, G, H // G, T, D) for a in (q, dout))
    top = np.where(seen, scores.max(-1, keepdims=True), 0)
    total = np.where(seen, np.exp(scores - top).sum(-1, keepdims=True), 1)
    p = np.exp(scores - top) / total
    size = np.where(scores > -np.inf, abs(q) @ abs(k).swapaxes(-1, -2) * scale, 0)
    score = (D + 4) * eps * size.max(-1, keepdims=True)
    weight = 2 * score + (S + T * (H // G) + D + 32) * eps
    dp = abs(dout) @ abs(v).swapaxes(-1, -2)
    ds = p * (dp + (p * dp).sum(-1, keepdims=True)) * scale
    off = 4 * weight
    bounds = (
        ((weight + rounding) * (p @ abs(v))).reshape(q.shape),
        score + (S + 32) * eps * (1 + abs(top) + np.log(total)),
        ((off + 2 * rounding) * ds) @ abs(k),
        (((off + 2 * rounding) * ds).swapaxes(-1, -2) @ abs(q)).sum(2),
        (((off + rounding) * p).swapaxes(-1, -2) @ abs(dout)).sum(2),
    )
    shapes = [(B, H, T, D), (B, H, T), (B, H, T, D), (B, G, S, D), (B, G, S, D)]
    return [bound.reshape(shape) for bound, shape in zip(bounds, shapes)]


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize(
    "mask",
    [
        {"causal": True},
        {"causal": False},
        {"causal": True, "window": 3},
        {"causal": False, "window": 4},
        {"causal": True, "documents": [[0] * 5 + [1] * 15, [7] * 20]},
        {"causal": False, "padding_mask": np.arange(20) < np.array([[20], [13]])},
    ],
    ids=str,
)
def test_equals_pytorch(name, mask):
    rng = np.random.default_rng(0)
    B, H, G, T, S, D = 2, 6, 2, 18, 20, 16
    q, dout = rng.standard_normal((2, B, H, T, D))
    k, v = rng.standard_normal((2, B, G, S, D))
    first, last = attention.visible_keys(T, S, **mask)
    seen = visible(first, last, S)
    peers = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *peers, attn_mask=torch.tensor(seen[:, None]), scale=0.3, enable_gqa=True
    )
    expected.backward(torch.tensor(dout))
    with backend.use(name):
        out, lse = attention.forward(q, k, v, first, last, 0.3)
        grads = attention.backward(dout, q, k, v, out, lse, first, last, 0.3)
    np.testing.assert_allclose(out, expected.detach(), atol=1e-13)
    for grad, peer in zip(grads, peers):
        np.testing.assert_allclose(grad, peer.grad, atol=1e-13)


def visible(first, last, S):
    """The mask (B, T, S) that intervals stand for."""
    return (first[..., None] <= np.arange(S)) & (np.arange(S) <= last[..., None])


# --------------------------------------------------------------------------------- masks


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(0, 6),
    past=st.integers(0, 3),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 2, 5]),
    left=st.none() | st.lists(st.integers(0, 9), min_size=1, max_size=3),
    documents=st.none() | st.lists(st.integers(0, 2), min_size=9, max_size=9),
)
def test_intervals_are_what_each_mask_says(T, past, causal, window, left, documents):
    S = T + past
    query, key = np.arange(past, S)[:, None], np.arange(S)
    seen = np.ones((1, T, S), bool)
    if causal:
        seen = seen & (key <= query)
    if window is not None:
        seen = seen & (abs(key - query) < window)
    padding_mask = None
    if left is not None:
        padding_mask = key >= np.array(left)[:, None]  # (B, S)
        seen = seen & padding_mask[:, None]
    if documents is not None:
        documents = np.sort(documents[:S])[None]
        seen = seen & (documents[:, past:, None] == documents[:, None])
    first, last = attention.visible_keys(T, S, causal, window, padding_mask, documents)
    assert first.dtype == last.dtype == np.int32
    assert first.shape == last.shape == (seen.shape[0], T)
    np.testing.assert_array_equal(visible(first, last, S), seen)


def test_masks_that_no_interval_can_say_are_named():
    with pytest.raises(InputError, match="row 1"):
        attention.visible_keys(3, 3, padding_mask=[[1, 1, 1], [1, 0, 1]])
    with pytest.raises(InputError, match=r"\(2, 4\).*\(batch, 3\)"):
        attention.visible_keys(3, 3, padding_mask=np.ones((2, 4)))
    with pytest.raises(InputError, match="window of 0"):
        attention.visible_keys(3, 3, window=0)
    with pytest.raises(InputError, match="4 queries and only 3 keys"):
        attention.visible_keys(4, 3, documents=[[0, 0, 0]])


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_a_query_that_sees_nothing_gives_zeros_and_an_unseen_key_gets_none(name, precision):
    rng = np.random.default_rng(0)
    q, k, v, dout = rng.standard_normal((4, 2, 2, 70, 8)).astype(np.float32)
    real = np.arange(70) >= np.array([[66], [70]])  # four tokens behind padding; nothing at all
    first, last = attention.visible_keys(70, 70, padding_mask=real)
    masks = first, last, 0.5
    out, lse, dq, dk, dv = run((q, k, v, dout), masks, name, precision)
    for array in (out, dq, dk, dv):
        assert (array[0, :, :66] == 0).all() and (array[1] == 0).all()
        assert (array[0, :, 66:] != 0).any()
    assert (lse[0, :, :66] == -np.inf).all() and np.isfinite(lse[0, :, 66:]).all()


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("T", [3, 90])  # one pass over the keys, and tiles
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_nan_shows_in_every_row_that_sees_it(name, T, precision):
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 1, T, 4)).astype(np.float32)
    first, last = attention.visible_keys(T, T)
    for broken in range(3):
        arrays = [q.copy(), k.copy(), v.copy()]
        arrays[broken][0, 0, T - 2, 1] = np.nan
        with backend.use(name), backend.precision(precision):
            out, _ = attention.forward(*arrays, first, last, 0.5)
        rows = [T - 2] if broken == 0 else [T - 2, T - 1]
        assert np.isnan(out[0, 0, rows]).any(-1).all()
        if broken < 2:
            assert np.isfinite(out[0, 0, : T - 2]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_scores_of_any_size_do_not_overflow(dtype, precision):
    q, k, v = (np.random.default_rng(0).standard_normal((3, 1, 2, 80, 8)) * 1e4).astype(dtype)
    masks = (*attention.visible_keys(80, 80), 1.0)
    results = run((q, k, v, v), masks, "numba", precision)
    assert all(np.isfinite(a).all() for a in results)
    most = abs(v).max() * (1 + 2**-7 if precision == "bfloat16" else 1)
    assert (abs(results[0]) <= most).all()  # a mean of the values, as the products have them


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("T", [3, 70, 400])  # the last: several parts of dk and dv, to be summed
def test_gradients_go_where_they_are_wanted(name, T):
    rng = np.random.default_rng(0)
    qkv, dout = rng.standard_normal((1, T, 3, 2, 8)), rng.standard_normal((1, 2, T, 8))
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    masks = (*attention.visible_keys(T, T), 0.3)
    dqkv = np.full_like(qkv, np.nan)
    with backend.use(name):
        out, lse = attention.forward(q, k, v, *masks)
        expected = attention.backward(dout, q, k, v, out, lse, *masks)
        into = tuple(dqkv.transpose(2, 0, 3, 1, 4))
        found = attention.backward(dout, q, k, v, out, lse, *masks, into)
    for place, gradient, wanted in zip(into, found, expected, strict=True):
        assert np.shares_memory(place, gradient)
        np.testing.assert_allclose(place, wanted, rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------ the fast twins


@pytest.mark.skipif(jit.disabled(), reason="plain Python has one thread")
@pytest.mark.parametrize("H, G, T", [(3, 1, 200), (4, 4, 100), (1, 1, 1000), (4, 2, 1)])
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_the_number_of_threads_changes_no_bit(H, G, T, precision):
    rng = np.random.default_rng(0)
    q, dout = rng.standard_normal((2, 1, H, T, 16)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, G, max(T, 300), 16)).astype(np.float32)
    masks = (*attention.visible_keys(T, k.shape[2]), 0.25)
    results = []
    before = backend.threads()
    for threads in (1, min(2, backend.cores())):
        backend.set_threads(threads)
        made = run((q, k, v, dout), masks, "numba", precision)
        results.append([a.tobytes() for a in made])
    backend.set_threads(before)
    assert results[0] == results[1]


MEMORY = """
import resource, numpy as np
from minillm.kernels import attention

def run(T):
    q, k, v, dout = np.ones((4, 1, 1, T, 4), np.float32)
    masks = (*attention.visible_keys(T, T), 1.0)
    out, lse = attention.forward_fast(q, k, v, *masks)
    attention.backward_fast(dout, q, k, v, out, lse, *masks)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = run(64)
print(run(20_000) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.skipif(jit.disabled(), reason="20,000 tokens take hours in plain Python")
def test_memory_is_linear_in_time():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    scores = 20_000**2 * 4 // 1024  # KiB of one (T, T) array
    assert int(run.stdout) < scores / 10
