"""Arithmetic in float64 that knows how far the same computation in another precision may be off.

A `Real` is an array of float64 values and, beside each, a bound on the error of whoever computes
the same formula with numbers of relative spacing `eps`. Every operation below passes the errors of
its operands on and adds that of its own rounding (running error analysis: Wilkinson 1963; Higham
2002, "Accuracy and Stability of Numerical Algorithms", section 3.3). So a kernel's bound follows
from its formula, the length of its sums and the conditioning of the very numbers it was given:
nobody chooses a tolerance.

One rounding moves a result by eps / 2 at most. It is counted as eps, which leaves room for a second
one (a product with the reciprocal in place of a quotient) and for float64's own, where that is what
is judged. Results below the smallest normal number may lose all their digits: `tiny` is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Axis = int | tuple[int, ...] | None
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in float64, without overflow."""
    small = np.exp(-abs(x))
    return np.where(x > 0, 1, small) / (1 + small)


def normal(x: np.ndarray) -> np.ndarray:
    """The probability that a standard normal number is below x."""
    return _erfc(-x / math.sqrt(2)) / 2


def bell(x: np.ndarray) -> np.ndarray:
    """exp(-x^2 / 2)."""
    return np.exp(-0.5 * np.square(x))


class Real:
    """`value` (...) in float64, and what a result in the judged dtype may differ by, `error`."""

    __slots__ = ("eps", "error", "tiny", "value")
    __array_ufunc__ = None

    def __init__(self, value: Any, dtype: Any, error: Any = 0.0) -> None:
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)
        self.eps, self.tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)

    def _made(self, value: Any, error: Any, units: float = 1.0) -> Real:
        """A result that inherits `error` and is `units` roundings off by itself."""
        made = object.__new__(Real)
        made.eps, made.tiny = self.eps, self.tiny
        made.value, made.error = value, error + units * self.eps * abs(value) + self.tiny
        return made

    def _other(self, other: Any) -> Real:
        if isinstance(other, Real):
            return other
        made = object.__new__(Real)
        made.eps, made.tiny, made.value = self.eps, self.tiny, np.asarray(other, np.float64)
        made.error = np.zeros(made.value.shape)
        return made

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> Real:
        """The same numbers in other places: a reshape, a transpose, an index."""
        made = object.__new__(Real)
        made.eps, made.tiny = self.eps, self.tiny
        made.value, made.error = move(self.value), move(self.error)
        return made

    def to_bfloat16(self) -> Real:
        """Rounded to 8 bits, which moves a number by half of the last one at most."""
        return self.map(lambda x: x)._moved(2.0**-8)

    def _moved(self, part: float) -> Real:
        self.error = self.error + part * (abs(self.value) + self.error)
        return self

    def where(self, mask: np.ndarray, other: float = 0.0) -> Real:
        """These numbers where `mask` holds, elsewhere exactly `other`."""
        made = self.map(lambda x: x)
        made.value = np.where(mask, self.value, other)
        made.error = np.where(mask, self.error, 0.0)
        return made

    # ------------------------------------------------------------- rules, one line each

    def __neg__(self) -> Real:
        return self.map(lambda x: x)._flipped()

    def _flipped(self) -> Real:
        self.value = -self.value
        return self

    def __add__(self, other: Any) -> Real:  # |d(a + b)| <= |da| + |db|
        other = self._other(other)
        return self._made(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Any) -> Real:
        return self + (-self._other(other))

    def __mul__(self, other: Any) -> Real:  # |d(ab)| <= |a| |db| + |b| |da| + |da| |db|
        other = self._other(other)
        a, b = abs(self.value), abs(other.value)
        error = a * other.error + b * self.error + self.error * other.error
        return self._made(self.value * other.value, error)

    def __truediv__(self, other: Any) -> Real:  # |d(a / b)| <= (|da| + |a / b| |db|) / (|b| - |db|)
        other = self._other(other)
        quotient = self.value / other.value
        least = np.maximum(abs(other.value) - other.error, 0)
        return self._made(quotient, (self.error + abs(quotient) * other.error) / least)

    def __matmul__(self, other: Any) -> Real:  # as * and sum; K products, in any order: K + 1 eps
        other = self._other(other)
        a, b, depth = abs(self.value), abs(other.value), self.value.shape[-1]
        error = a @ other.error + self.error @ b + self.error @ other.error
        own = (depth + 1) * (self.eps * (a @ b) + self.tiny)
        return self._made(self.value @ other.value, error + own)

    def sum(self, axis: Axis = -1, keepdims: bool = False) -> Real:  # n numbers in any order: n eps
        count = self.value.size // max(1, self.value.sum(axis=axis).size)
        error = self.error.sum(axis=axis, keepdims=keepdims)
        own = count * self.eps * abs(self.value).sum(axis=axis, keepdims=keepdims)
        return self._made(self.value.sum(axis=axis, keepdims=keepdims), error + own)

    def max(self) -> Real:  # over the last axis, kept; no rounding
        return self.map(lambda x: x.max(axis=-1, keepdims=True))

    def _rising(self, function: Callable[[np.ndarray], np.ndarray], units: Any) -> Real:
        """A function that rises everywhere errs most at an end of [x - |dx|, x + |dx|].

        One unit more than `units` is for the differences taken here.
        """
        value = function(self.value)
        high, low = function(self.value + self.error), function(self.value - self.error)
        same = value == high  # also where both are infinite, and have no difference
        error = np.maximum(np.where(same, 0, high - value), np.where(value == low, 0, value - low))
        return self._made(value, error, units + 1)

    def exp(self) -> Real:
        return self._rising(np.exp, 2)

    def log(self) -> Real:
        return self._rising(lambda x: np.log(np.maximum(x, 0) + 0 * x), 2)

    def sqrt(self) -> Real:
        return self._rising(lambda x: np.sqrt(np.maximum(x, 0) + 0 * x), 1)

    def sigmoid(self) -> Real:  # an exponential, a sum, a quotient
        return self._rising(sigmoid, 4)

    def normal(self) -> Real:
        """P(x), the normal distribution: two polynomials, a quotient, and a bell below 0.

        There a unit in x / sqrt 2 is x^2 units in the result. The kernel squares x, which costs it
        a quarter of that; the judge, in float64, divides by a rounded root, which costs it all.
        """
        x = self.value
        return self._rising(normal, 12 + np.where(x < 0, 1.25 * np.minimum(x * x, 1e4), 0))

    def bell(self) -> Real:
        """exp(-x^2 / 2), falling with |x|; the rounding of the square costs x^2 / 2 units."""
        x, square = abs(self.value), np.minimum(self.value**2, 1e4)
        value, near = bell(x), bell(np.maximum(x - self.error, 0))
        error = np.maximum(near - value, value - bell(x + self.error))
        return self._made(value, error, 5 + square)

    def clip(self, most: float) -> Real:
        return self.map(lambda x: x)._clipped(most)

    def _clipped(self, most: float) -> Real:
        self.value = np.clip(self.value, -most, most)
        return self
