"""Attention of a few queries over a cache: the formula, and the last rows of a whole text's."""

import numpy as np
import pytest
from cases import assert_same_on_any_threads
from test_attention import error_bounds

from minillm.kernels import attention, attention_tiles
from minillm.kernels.attention_decode import BLOCK, forward_few

MASKS = {
    "causal": {"causal": True},
    "both directions": {"causal": False},
    "window": {"causal": True, "window": 5},
    "documents": {"causal": True, "documents": True},
    "padding": {"causal": True, "padding_mask": True},
}


def arrays(B, G, R, T, S, D, dtype, seed=0):
    rng = np.random.default_rng(seed)
    sizes = (B, G * R, T, D), (B, G, S, D), (B, G, S, D)
    return [rng.standard_normal(size).astype(dtype) for size in sizes]


def visible(name, B, T, S):
    mask = dict(MASKS[name])
    if "documents" in mask:
        mask["documents"] = np.arange(S)[None] // max(1, S // 2)
    if "padding_mask" in mask:
        mask["padding_mask"] = np.arange(S) >= np.arange(B)[:, None] * (S // 2)
    return attention.visible_keys(T, S, **mask)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("S", [3, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize(("T", "R", "D"), [(1, 1, 8), (1, 4, 33), (3, 2, 17)])
def test_equals_the_formula(dtype, mask, S, T, R, D):
    B, G = 2, 2
    q, k, v = arrays(B, G, R, T, S, D, dtype)
    masks = *visible(mask, B, T, S), D**-0.5
    out, lse = forward_few(q, k, v, *masks)
    exact = [x.astype(np.float64) for x in (q, k, v)]
    expected = attention.forward_reference(*exact, *masks)
    bounds = error_bounds(*exact, np.zeros(q.shape), *masks, np.finfo(dtype).eps)
    for result, wanted, bound in zip((out, lse), expected, bounds, strict=False):
        assert result.dtype == dtype and result.shape == wanted.shape
        with np.errstate(invalid="ignore"):
            assert np.all((result == wanted) | (abs(result - wanted) <= bound))


def test_equals_the_last_rows_of_the_whole_text():
    q, k, v = arrays(1, 2, 3, 150, 150, 16, np.float64)
    whole, lse = attention_tiles.forward_fast(q, k, v, *attention.visible_keys(150, 150), 0.25)
    for T in (1, 2, 4):
        few = forward_few(q[:, :, -T:], k, v, *attention.visible_keys(T, 150), 0.25)
        np.testing.assert_allclose(few[0], whole[:, :, -T:], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(few[1], lse[:, :, -T:], rtol=1e-12)


def test_a_cache_with_room_to_grow_is_read_by_its_strides():
    q, k, v = arrays(2, 2, 2, 1, 90, 16, np.float32)
    masks = *attention.visible_keys(1, 90), 0.25
    room = np.full((2, 2, 2, 128, 16), np.nan, np.float32)
    room[0, :, :, :90], room[1, :, :, :90] = k, v
    ours = forward_few(q, room[0, :, :, :90], room[1, :, :, :90], *masks)
    for one, other in zip(ours, forward_few(q, k, v, *masks), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_not_seen_has_no_say():
    q, k, v = arrays(2, 1, 2, 1, 80, 8, np.float32)
    keep = np.arange(80) >= np.array([[50], [80]])  # the second text sees nothing
    masks = *attention.visible_keys(1, 80, padding_mask=keep), 1.0
    out, lse = forward_few(q, k, v, *masks)
    k[0, :, :50] = v[0, :, :50] = k[1] = v[1] = np.nan
    again, lse_again = forward_few(q, k, v, *masks)
    np.testing.assert_array_equal(again, out)
    np.testing.assert_array_equal(lse_again, lse)
    assert np.isfinite(out[0]).all() and (out[1] == 0).all() and (lse[1] == -np.inf).all()


def test_threads_change_no_bit():
    q, k, v = arrays(2, 3, 2, 1, 200, 16, np.float32)
    masks = *attention.visible_keys(1, 200), 0.25
    assert_same_on_any_threads(lambda: forward_few(q, k, v, *masks))
