"""The softmax of a block of scores, and its gradient, in vectors of queries.

Scores lie as (keys, queries), so that a query is one lane of every vector, from the block's first
key to its last. What a query keeps (its largest score, its sum of weights) then stays in registers
while the rows go by, and nothing is ever added up inside a vector:

    for row in range(keys):                                     two vectors of queries at a time
        top = max(top, scores[row])
    shrink = exp(top before - top)
    total = total * shrink
    for row in range(keys):
        scores[row] = exp(scores[row] - top)
        total = total + scores[row]

The compiler makes vectors of such loops too, but it cannot know that `top` and `scores` are
different memory. It checks that in every row, and writes and reads the sums again, which takes as
long as the exponentials twice over. So these loops are instructions, like those of the products
that they stand between (block_product.py). A weight that is no normal number (below 1.2e-38 in
float32) is 0; a NaN among the scores shows in the weights and in the total.

What the products go on with, weights and gradients of scores, may be rounded to bfloat16 as it is
written; the sums are of the weights before that. Or it is written over what it was made from.

Derivative (attention.py): with the weights p = exp(s - lse) and dp given, ds = p (dp - delta).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm.jit import intrinsic, jit
from minillm.kernels import vector_math
from minillm.kernels.bfloat16 import BITS, put_all
from minillm.kernels.block_product import SMALL_WRITER, small_tile

_SOURCES = (*SMALL_WRITER, vector_math.__file__)


@jit(borrows=True)
def hide(scores, j, low, high, tile, all_from, all_to, columns):
    """Set scores (keys from j on, queries) outside of the tile's intervals to -inf.

    `low`, `high` (tiles, queries) and from which key to which all of the tile's queries see keys:
    of attention_queries.py's `intervals`.
    """
    rows = scores.shape[0]
    stop = max(0, min(rows, all_from - j))
    start = max(stop, all_to - j)
    for column in range(0, scores.shape[1], columns):
        hide_once(scores, low, high, tile, j, 0, stop, column)
        hide_once(scores, low, high, tile, j, start, rows, column)


@jit(borrows=True)
def raise_top(scores, top, shrink, columns):
    """top (queries,) = the largest of itself and its column of scores (keys, queries).

    shrink (queries,) = exp(top before - top now), by which earlier sums are too large.
    """
    for column in range(0, scores.shape[1], columns):
        raise_top_once(scores, top, shrink, column)


@jit(borrows=True)
def weigh(scores, weights, top, shrink, total, columns):
    """weights (keys, queries) = exp(scores - top), total (queries,) = total * shrink + sums.

    `weights`: numbers, which may be the scores themselves, or bits.
    """
    for column in range(0, scores.shape[1], columns):
        weigh_once(scores, weights, top, shrink, total, column)


@jit(borrows=True)
def scale_columns(x_t, factor, columns):
    """x_t (D, queries) *= factor (queries,)."""
    for column in range(0, x_t.shape[1], columns):
        scale_columns_once(x_t, factor, column)


@jit(borrows=True)
def softmax_gradient(scores, weights, dweights, dscores, log_total, delta, columns):
    """weights and dscores, all (keys, queries), from scores and dweights.

    `weights` and `dscores`: numbers, which may be scores and dweights themselves, or bits.
    """
    for column in range(0, scores.shape[1], columns):
        softmax_gradient_once(scores, weights, dweights, dscores, log_total, delta, column)


# ------------------------------------------------------------- the same, two vectors of queries


def _hide_plain(scores, low, high, tile, j, start, stop, column):
    here = slice(column, column + small_tile(scores.dtype).columns)
    keys = j + np.arange(start, stop)[:, None]
    hidden = (keys < low[tile, here]) | (keys > high[tile, here])
    scores[start:stop, here][hidden] = -np.inf  # an empty slice where start is beyond stop


@intrinsic(plain=_hide_plain, uses=_SOURCES)
def hide_once(typing, scores, low, high, tile, j, start, stop, column):
    """`hide` for rows start to stop and the queries from `column` on."""
    from numba.core import types

    return types.void(scores, low, high, *[types.intp] * 5), _write_hide


def _write_hide(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    from minillm.kernels.vector_ir import LANE, NUMBERS

    strip = _Strip(context, builder, signature, arguments)
    scores, low, high = strip.arrays[:3]
    tile, j, start, stop = arguments[3:7]
    lows, highs = strip.load(low, tile), strip.load(high, tile)
    number = NUMBERS[signature.args[0].dtype.name]
    infinite = strip.write.spread(number(-np.inf), strip.tile.lanes)

    def step(at: Any, nothing: list[Any]) -> list[Any]:
        row = builder.add(start, at)
        key = strip.write.spread(builder.trunc(builder.add(j, row), LANE), strip.tile.lanes)
        shown = []
        for score, least, most in zip(strip.load(scores, row), lows, highs):
            above = builder.icmp_signed("<=", least, key)
            seen = builder.and_(above, builder.icmp_signed("<=", key, most))
            shown.append(builder.select(seen, score, infinite))
        strip.store(shown, scores, row)
        return nothing

    strip.write.loop(builder.sub(stop, start), step, [])
    return context.get_dummy_value()


def _raise_top_plain(scores, top, shrink, column):
    here = slice(column, column + small_tile(scores.dtype).columns)
    before = top[here].copy()
    top[here] = np.fmax(before, np.fmax.reduce(scores[:, here]))
    shrink[here] = np.exp(before - top[here])


@intrinsic(plain=_raise_top_plain, uses=_SOURCES)
def raise_top_once(typing, scores, top, shrink, column):
    """`raise_top` for the queries from `column` on."""
    from numba.core import types

    return types.void(scores, top, shrink, types.intp), _write_raise_top


def _write_raise_top(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    strip = _Strip(context, builder, signature, arguments)
    scores, top, shrink = strip.arrays

    def step(row: Any, tops: list[Any]) -> list[Any]:
        return [strip.write.larger(s, t) for s, t in zip(strip.load(scores, row), tops)]

    before = strip.load(top)
    after = strip.write.loop(strip.rows, step, before)
    falls = [builder.fsub(*pair) for pair in zip(before, after)]
    strip.store([strip.write.exp_of_fall(fall) for fall in falls], shrink)
    strip.store(after, top)
    return context.get_dummy_value()


def _weigh_plain(scores, weights, top, shrink, total, column):
    here = slice(column, column + small_tile(scores.dtype).columns)
    numbers = np.exp(scores[:, here] - top[here])
    total[here] = total[here] * shrink[here] + numbers.sum(axis=0)
    put_all(weights[: len(scores), here], numbers)


@intrinsic(plain=_weigh_plain, uses=_SOURCES)
def weigh_once(typing, scores, weights, top, shrink, total, column):
    """`weigh` for the queries from `column` on."""
    from numba.core import types

    return types.void(scores, weights, top, shrink, total, types.intp), _write_weigh


def _write_weigh(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    strip = _Strip(context, builder, signature, arguments)
    scores, made, top, shrink, total = strip.arrays
    tops = strip.load(top)
    shrunk = [builder.fmul(*pair) for pair in zip(strip.load(total), strip.load(shrink))]

    def step(row: Any, totals: list[Any]) -> list[Any]:
        falls = [builder.fsub(s, t) for s, t in zip(strip.load(scores, row), tops)]
        weights = [strip.write.exp_of_fall(fall) for fall in falls]
        strip.store(weights, made, row)
        return [builder.fadd(t, weight) for t, weight in zip(totals, weights)]

    strip.store(strip.write.loop(strip.rows, step, shrunk), total)
    return context.get_dummy_value()


def _scale_columns_plain(x_t, factor, column):
    here = slice(column, column + small_tile(x_t.dtype).columns)
    x_t[:, here] *= factor[here]


@intrinsic(plain=_scale_columns_plain, uses=_SOURCES)
def scale_columns_once(typing, x_t, factor, column):
    """`scale_columns` for the queries from `column` on."""
    from numba.core import types

    return types.void(x_t, factor, types.intp), _write_scale_columns


def _write_scale_columns(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    strip = _Strip(context, builder, signature, arguments)
    x_t, factor = strip.arrays
    factors = strip.load(factor)

    def step(row: Any, nothing: list[Any]) -> list[Any]:
        numbers = strip.load(x_t, row)
        strip.store([builder.fmul(*pair) for pair in zip(numbers, factors)], x_t, row)
        return nothing

    strip.write.loop(strip.rows, step, [])
    return context.get_dummy_value()


def _softmax_gradient_plain(scores, weights, dweights, dscores, log_total, delta, column):
    here = slice(column, column + small_tile(scores.dtype).columns)
    numbers = np.exp(scores[:, here] - log_total[here])
    put_all(weights[: len(scores), here], numbers)
    put_all(dscores[: len(scores), here], numbers * (dweights[:, here] - delta[here]))


@intrinsic(plain=_softmax_gradient_plain, uses=_SOURCES)
def softmax_gradient_once(typing, scores, weights, dweights, dscores, log_total, delta, column):
    """`softmax_gradient` for the queries from `column` on."""
    from numba.core import types

    arrays = (scores, weights, dweights, dscores, log_total, delta)
    return types.void(*arrays, types.intp), _write_softmax_gradient


def _write_softmax_gradient(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    strip = _Strip(context, builder, signature, arguments)
    scores, made, dweights, dscores, log_total, delta = strip.arrays
    log_totals, deltas = strip.load(log_total), strip.load(delta)

    def step(row: Any, nothing: list[Any]) -> list[Any]:
        falls = [builder.fsub(s, t) for s, t in zip(strip.load(scores, row), log_totals)]
        weights = [strip.write.exp_of_fall(fall) for fall in falls]
        strip.store(weights, made, row)
        rises = [builder.fsub(d, mean) for d, mean in zip(strip.load(dweights, row), deltas)]
        strip.store([builder.fmul(*pair) for pair in zip(weights, rises)], dscores, row)
        return nothing

    strip.write.loop(strip.rows, step, [])
    return context.get_dummy_value()


class _Strip:
    """The arguments of an intrinsic above: arrays, the first with rows, and the column to be at."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        from minillm.kernels.vector_ir import Writer

        *arrays, self.column = arguments
        self.write = Writer(context, builder)
        self.arrays = list(zip(signature.args, arrays))
        self.rows = self.write.length(*self.arrays[0], 0)
        self.tile = small_tile(signature.args[0].dtype.name)

    def load(self, array: tuple, *row: Any) -> list[Any]:
        return [self.write.load(place, self.tile.lanes) for place in self._places(array, *row)]

    def store(self, vectors: list[Any], array: tuple, *row: Any) -> None:
        stored, places = array[0].dtype.name, self._places(array, *row)
        if stored == BITS.name:  # both vectors in one
            first, second = vectors
            together = self.write.pick(first, second, list(range(self.tile.columns)))
            vectors, places = [self.write.as_words(together, stored)], places[:1]
        for vector, place in zip(vectors, places, strict=True):
            self.write.store(vector, place)

    def _places(self, array: tuple, *row: Any) -> list[Any]:
        start = self.write.element(*array, *row, self.column)
        return [self.write.ahead(start, v * self.tile.lanes) for v in range(self.tile.vectors)]
