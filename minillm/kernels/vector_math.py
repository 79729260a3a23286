"""exp, sigmoid and the normal distribution in arithmetic that a compiler turns into vectors.

A call of the C library's `exp` inside a loop stops the compiler from working on 8 or 16 numbers at
once. The functions here are short chains of multiply-adds, with no call and no branch, so that a
loop around them over a float32 or float64 array is vectorised. Kernels use them by name:

    from minillm.kernels.vector_math import exp

Three ideas are enough.

*Range reduction.* exp(x) = 2^n exp(r) with n = round(x / ln 2), so |r| <= ln(2)/2. ln 2 is kept as
the sum of two numbers, the first with so few bits that its product with n is exact (Cody and Waite,
"Software Manual for the Elementary Functions", 1980).

*Polynomials.* On the small interval left over, a polynomial is exact to less than one unit in the
last place. The normal distribution's tail is exp(-x^2/2) times a smooth function that a ratio of
two polynomials follows over its whole range. The coefficients were fitted here for the smallest
largest relative error (least squares on Chebyshev nodes, reweighted as by Lawson).

*Exponents as integers.* The bits of a float hold its exponent as an integer, so that making 2^n is
an addition and a shift.

Accuracy, measured by tests/kernels/test_vector_math.py: exp and sigmoid within 2 units in the last
place, subnormal results included. NaN stays NaN; exp(-inf) = 0, exp(inf) = inf.

Every function is written once; `_constants(x)` gives the numbers in the dtype of `x`, chosen when
the loop is compiled. The compiler may fuse multiply and add here but not reorder sums, which
would undo the range reduction. In plain Python `x` must be a NumPy scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minillm.jit import by_types, jit

# A call left standing inside a loop would end its vectors.
INLINE: dict[str, Any] = {"fastmath": {"contract"}, "forceinline": True}


class Constants(NamedTuple):
    """The numbers behind the functions in one dtype; polynomials start with the constant term."""

    zero: Any
    half: Any
    one: Any
    infinity: Any
    mantissa_bits: Any  # how far to shift the exponent
    exponent_bias: Any
    exp_least: Any  # below, exp is 0
    exp_most: Any  # above, exp is infinite
    log2_e: Any
    ln2_high: Any  # ln 2 = ln2_high + ln2_low
    ln2_low: Any
    exp_rest: Any  # (exp(r) - 1 - r) / r^2
    normal_most: Any  # from here on, exp(-x^2/2) counts as 0: soon it would be no normal number
    tail_above: Any  # above / below = exp(x^2/2) times the probability to lie beyond x > 0
    tail_below: Any


# fmt: off
def _single(*values: float) -> tuple:
    return tuple(np.float32(value) for value in values)


SINGLE = Constants(
    zero=np.float32(0), half=np.float32(0.5), one=np.float32(1), infinity=np.float32(np.inf),
    mantissa_bits=np.int32(23), exponent_bias=np.int32(127),
    exp_least=np.float32(-104), exp_most=np.float32(88.72283),
    log2_e=np.float32(1.4426950408889634),
    ln2_high=np.float32(0.693359375), ln2_low=np.float32(-2.1219444005469057e-4),
    exp_rest=_single(0.49999993308753575, 0.16666520836684421, 0.04166843908162542,
                     0.00836868778079604, 0.00138111837703628),
    normal_most=np.float32(13.2),
    tail_above=_single(0.500000003, 0.438305205, 0.183242822, 0.0406358397, 0.00411670286),
    tail_below=_single(1, 1.67449539, 1.20253487, 0.469490932, 0.101865389, 0.0103189241),
)


def _double(*values: float) -> tuple:
    return tuple(np.float64(value) for value in values)


DOUBLE = Constants(
    zero=np.float64(0), half=np.float64(0.5), one=np.float64(1), infinity=np.float64(np.inf),
    mantissa_bits=np.int64(52), exponent_bias=np.int64(1023),
    exp_least=np.float64(-746), exp_most=np.float64(709.782712893384),
    log2_e=np.float64(1.4426950408889634),
    ln2_high=np.float64(float.fromhex("0x1.62e42fee00000p-1")),
    ln2_low=np.float64(float.fromhex("0x1.a39ef35793c76p-33")),
    exp_rest=_double(0.500000000000001064, 0.166666666666664183, 0.0416666666665300902,
                     0.00833333333349041242, 0.001388888894363822, 1.98412695156995452e-4,
                     2.48014931007790746e-5, 2.7557578080746364e-6, 2.76302444080160193e-7,
                     2.50027017004503641e-8),
    normal_most=np.float64(37.6),
    tail_above=_double(0.5, 0.77499990820182063, 0.59423210586251707, 0.28946754039170991,
                       0.097760899578034313, 0.023641557917280374, 0.0040934548913816723,
                       0.00049102920305777733, 3.7311147114698328e-05, 1.388322832374386e-06),
    tail_below=_double(1, 2.3478843772064959, 2.5618049068486846, 1.7149789954072179,
                       0.78242150666995736, 0.25512394279115808, 0.060484465620605145,
                       0.010354294936854191, 0.0012343076935182153, 9.3525176314498371e-05,
                       3.4800092659556723e-6),
)
# fmt: on

# ---------------------------------------------------------- what depends on the dtype of x


def _by_dtype(single: Callable, double: Callable) -> Callable:
    """Mark a function: compiled code takes `single` or `double` by the dtype of argument `x`."""
    versions = {"float32": single, "float64": double}
    return by_types(lambda x, *_: versions.get(x.name))


@_by_dtype(lambda x: SINGLE, lambda x: DOUBLE)
def _constants(x):
    """The numbers in `x`'s dtype."""
    return SINGLE if type(x) is np.float32 else DOUBLE


@_by_dtype(
    lambda x, bits: np.int32(bits).view(np.float32),
    lambda x, bits: np.int64(bits).view(np.float64),
)
def _from_bits(x, bits):
    """The number of `x`'s dtype that has these bits."""
    return np.int32(bits).view(np.float32) if type(x) is np.float32 else bits.view(np.float64)


@jit(**INLINE)
def _polynomial(x, coefficients):
    """Horner's rule; the loop is unrolled because the coefficients are known when compiling."""
    value = coefficients[len(coefficients) - 1]
    for i in range(len(coefficients) - 2, -1, -1):
        value = value * x + coefficients[i]
    return value


@jit(**INLINE)
def _power_of_two(x, n):
    """2^n in `x`'s dtype, for an n whose result is a normal number."""
    c = _constants(x)
    return _from_bits(x, (c.exponent_bias + n) << c.mantissa_bits)


@jit(**INLINE)
def _exp_parts(x):
    """n and a number near 1 whose product with 2^n is exp(x)."""
    c = _constants(x)
    n = np.floor(x * c.log2_e + c.half)
    r = (x - n * c.ln2_high) - n * c.ln2_low
    return np.int32(n), c.one + (r + r * r * _polynomial(r, c.exp_rest))


# ---------------------------------------------------------------------------- the functions


@jit(**INLINE)
def exp(x):
    """e to the power of `x`."""
    c = _constants(x)
    power, value = _exp_parts(min(c.exp_most, max(c.exp_least, x)))  # NaN: exp_least for a while
    half = power >> np.int32(1)  # 2^n in two factors: n may be an exponent of no normal number
    value = value * _power_of_two(x, half) * _power_of_two(x, power - half)
    return value if x <= c.exp_most else x + c.infinity  # NaN + inf is NaN


@jit(**INLINE)
def sigmoid(x):
    """1 / (1 + exp(-x)), from the exponential that cannot overflow."""
    c = _constants(x)
    small = exp(-abs(x))
    return (c.one if x > c.zero else small) / (c.one + small)


@jit(**INLINE)
def normal(x):
    """The probability that a standard normal number is below `x`, and exp(-x^2/2).

    The first is (1 + erf(x / sqrt 2)) / 2, with all its digits also where it is small, as long as
    it is a normal number. The second is sqrt(2 pi) times its derivative; just before that would be
    no normal number it is taken for 0, and the first for 0 or 1: processors are slow with others.
    """
    c = _constants(x)
    size = min(c.normal_most, abs(x))  # the limit also where x is NaN
    power, value = _exp_parts(-c.half * size * size)
    bell = value * _power_of_two(x, power) if size < c.normal_most else c.zero
    tail = bell * (_polynomial(size, c.tail_above) / _polynomial(size, c.tail_below))
    below = tail if x < c.zero else c.one - tail
    return (x if np.isnan(x) else below), bell
