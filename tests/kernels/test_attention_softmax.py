"""The softmax of a block of scores, against NumPy in float64, and its odd numbers."""

import numpy as np
import pytest

from minillm.kernels.attention_softmax import (
    hide,
    raise_top,
    scale_columns,
    softmax_gradient,
    weigh,
)
from minillm.kernels.bfloat16 import round_to_bfloat16
from minillm.kernels.block_product import small_tile

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ROWS = 24


def draw(dtype, spread):
    """The columns of two strips, and scores (keys, queries) for them."""
    columns = small_tile(dtype).columns
    rng = np.random.default_rng(0)
    return columns, (rng.standard_normal((ROWS, 2 * columns)) * spread).astype(dtype)


@DTYPES
@pytest.mark.parametrize("j", [0, 40, 96, 200])  # keys j to j + 24 of 200
@pytest.mark.parametrize("width", [0, 1, 30, 300])
def test_scores_outside_of_the_intervals_are_hidden(dtype, j, width):
    columns, scores = draw(dtype, 1)
    low = np.random.default_rng(1).integers(0, 120, (2, scores.shape[1]), np.int32)
    high = np.minimum(low + np.int32(width) - 1, 199)
    keys = j + np.arange(ROWS)[:, None]
    expected = np.where((low[1] <= keys) & (keys <= high[1]), scores, -np.inf)
    hide(scores, j, low, high, 1, low[1].max(), high[1].min() + 1, columns)
    np.testing.assert_array_equal(scores, expected)


@DTYPES
@pytest.mark.parametrize("spread", [0, 1, 40, 300])
def test_two_blocks_have_the_softmax_of_both(dtype, spread):
    columns, scores = draw(dtype, spread)
    queries, finfo = scores.shape[1], np.finfo(dtype)
    top, shrink, total = np.full(queries, finfo.min, dtype), *np.zeros((2, queries), dtype)
    weights = scores.copy()
    for block in (weights[:8], weights[8:]):
        raise_top(block, top, shrink, columns)
        weigh(block, block, top, shrink, total, columns)
    exact = scores.astype(np.float64)
    np.testing.assert_array_equal(top, scores.max(axis=0))
    expected = np.exp(exact - exact.max(axis=0))
    fall = -np.log(finfo.tiny)  # from the largest score to the last one that weighs something
    tolerance = {"rtol": (4 + ROWS + fall) * finfo.eps, "atol": finfo.tiny}
    np.testing.assert_allclose(total, expected.sum(axis=0), **tolerance)
    np.testing.assert_allclose(weights[8:], expected[8:], **tolerance)
    np.testing.assert_allclose(weights[:8] * shrink, expected[:8], **tolerance)


@DTYPES
def test_each_query_has_a_factor_of_its_own(dtype):
    columns, sums_t = draw(dtype, 1)
    factor = np.arange(sums_t.shape[1]).astype(dtype)
    expected = sums_t * factor
    scale_columns(sums_t, factor, columns)
    np.testing.assert_array_equal(sums_t, expected)


@DTYPES
def test_gradient_of_the_softmax(dtype):
    columns, scores = draw(dtype, 5)
    exact, finfo = scores.astype(np.float64), np.finfo(dtype)
    log_total = np.log(np.exp(exact).sum(axis=0))
    _, dweights = draw(dtype, 2)
    delta = np.arange(scores.shape[1]).astype(dtype)
    weights = np.exp(exact - log_total.astype(dtype))
    expected = weights * (dweights.astype(np.float64) - delta)
    log_total = log_total.astype(dtype)
    softmax_gradient(scores, scores, dweights, dweights, log_total, delta, columns)
    np.testing.assert_allclose(scores, weights, rtol=64 * finfo.eps)
    np.testing.assert_allclose(dweights, expected, rtol=64 * finfo.eps, atol=64 * finfo.eps)


def test_what_is_written_in_bfloat16_is_what_float32_would_be_rounded():
    columns, scores = draw(np.float32, 5)
    _, dweights = draw(np.float32, 2)
    scores[3, 7], scores[5, 9] = -np.inf, np.nan
    top, delta = np.nanmax(scores, axis=0), dweights.mean(axis=0)
    totals, written = np.ones((2, scores.shape[1]), np.float32), []
    shrink = np.full_like(top, 0.5)
    for dtype, total in zip((np.float32, np.uint16), totals, strict=True):
        weights, again, dscores = np.zeros((3, *scores.shape), dtype)
        weigh(scores, weights, top, shrink, total, columns)
        softmax_gradient(scores, again, dweights, dscores, top, delta, columns)
        written.append((weights, again, dscores))
    np.testing.assert_array_equal(*totals)
    for numbers, bits in zip(*written, strict=True):
        numbers[abs(numbers) < np.finfo(np.float32).tiny] = 0
        np.testing.assert_array_equal(bits & 0x7FFF, round_to_bfloat16(numbers) & 0x7FFF)
        np.testing.assert_array_equal((bits > 0x8000)[numbers != 0], (numbers < 0)[numbers != 0])


@DTYPES
def test_a_hidden_score_weighs_nothing_and_a_nan_shows(dtype):
    columns, scores = draw(dtype, 1)
    finfo = np.finfo(dtype)
    scores[:, 0] = -np.inf  # a query that sees nothing
    scores[3, 1] = -np.inf
    scores[4, 2] = np.nan
    scores[5, 3] = 1e30  # everything else of this query is 0 beside it
    scores[6, 4] = scores[:, 4].max() + np.log(finfo.tiny) - dtype(0.5)  # too small to be normal
    queries = scores.shape[1]
    top, shrink, total = np.full(queries, finfo.min, dtype), *np.zeros((2, queries), dtype)
    raise_top(scores, top, shrink, columns)
    weigh(scores, scores, top, shrink, total, columns)
    assert top[0] == finfo.min and total[0] == 0 and (scores[:, 0] == 0).all()
    assert scores[3, 1] == 0 and 0 <= scores[6, 4] <= finfo.tiny
    assert np.isnan(total[2]) and np.isnan(scores[4, 2]) and np.isnan(scores[:, 2]).sum() == 1
    assert total[3] == 1 and scores[5, 3] == 1
    assert np.isfinite(np.delete(total, 2)).all()
