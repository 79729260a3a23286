"""exp, log, tanh, erf and sigmoid of one number, in arithmetic that a compiler turns into vectors.

A call of the C library's `exp` inside a loop stops the compiler from working on 8 or 16 elements
at once. The functions here are short chains of multiply-adds, with no call and no branch, so that
a loop around them over a float32 or float64 array is vectorised. Kernels use them by name:

    from minillm.kernels.vector_math import exp

Three ideas are enough.

*Range reduction.* exp(x) = 2^n exp(r) with n = round(x / ln 2), so |r| <= ln(2)/2; and
log(2^n m) = n ln 2 + log(m) with m between sqrt(1/2) and sqrt(2). ln 2 is kept as the sum of two
numbers, the first with so few bits that its product with n is exact (Cody and Waite, "Software
Manual for the Elementary Functions", 1980).

*Polynomials.* On the small interval left over, a polynomial is exact to less than one unit in the
last place. For log it is one in s = f / (2 + f), f = m - 1, because log(1 + f) = 2 atanh(s) has
only odd powers of s. tanh is -e / (2 + e) with e = exp(-2|x|) - 1, made from the same reduction
without ever adding the 1. erf is a polynomial up to |x| = 1 and 1 - exp(-x^2) P(|x|) / Q(|x|)
beyond. The coefficients were fitted here for the smallest largest relative error (least squares on
Chebyshev nodes, reweighted as by Lawson).

*Exponents as integers.* The bits of a float hold its exponent as an integer, so that making 2^n,
and splitting x into 2^n m, are additions and shifts of those bits.

Accuracy on the whole range, subnormal results included: within 3 units in the last place, both
dtypes (tests/kernels/test_vector_math.py measures it). NaN stays NaN; exp(-inf) = 0,
exp(inf) = inf, log(0) = -inf, log(x < 0) = NaN.

Every function is written once; `_constants(x)` gives the numbers in the dtype of `x`, chosen when
the loop is compiled. The compiler may fuse multiply and add here but not reorder sums, which
would undo the range reduction. In plain Python `x` must be a NumPy scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minillm.jit import Marked, jit

# A call left standing inside a loop would end its vectors.
INLINE = {"fastmath": {"contract"}, "forceinline": True}


class Constants(NamedTuple):
    """The numbers behind the functions in one dtype; polynomials start with the constant term."""

    zero: Any
    half: Any
    one: Any
    two: Any
    infinity: Any
    nan: Any
    mantissa_bits: Any  # how far to shift the exponent
    exponent_bias: Any
    exp_least: Any  # below, exp is 0
    exp_most: Any  # above, exp is infinite
    log2_e: Any
    ln2_high: Any  # ln 2 = ln2_high + ln2_low
    ln2_low: Any
    exp_rest: Any  # (exp(r) - 1 - r) / r^2
    smallest_normal: Any
    rescale: Any  # 2^rescale_power lifts subnormal numbers among the normal ones
    rescale_power: Any
    sqrt_half_bits: Any
    log_rest: Any  # (2 atanh(s) / s - 2) / s^2 as a function of s^2
    tanh_most: Any  # above, tanh is 1
    erf_middle: Any  # up to here the odd polynomial serves
    erf_most: Any  # above, erf is 1
    erf_series: Any  # erf(x) / x as a function of x^2
    erf_tail_above: Any  # (1 - erf(x)) exp(x^2) = above / below
    erf_tail_below: Any


# fmt: off
def _single(*values: float) -> tuple:
    return tuple(np.float32(value) for value in values)


SINGLE = Constants(
    *_single(0, 0.5, 1, 2, np.inf, np.nan),
    mantissa_bits=np.int32(23), exponent_bias=np.int32(127),
    exp_least=np.float32(-104), exp_most=np.float32(88.72283),
    log2_e=np.float32(1.4426950408889634),
    ln2_high=np.float32(0.693359375), ln2_low=np.float32(-2.1219444005469057e-4),
    exp_rest=_single(0.49999993308753575, 0.16666520836684421, 0.04166843908162542,
                     0.00836868778079604, 0.00138111837703628),
    smallest_normal=np.float32(2.0**-126), rescale=np.float32(2.0**23),
    rescale_power=np.int32(23), sqrt_half_bits=np.float32(0.5**0.5).view(np.int32),
    log_rest=_single(0.66666777027084810, 0.39977475191601274, 0.29873138361104340),
    tanh_most=np.float32(9.1), erf_middle=np.float32(1), erf_most=np.float32(3.95),
    erf_series=_single(1.12837912, -0.376123264, 0.112801821, -0.0267113703, 0.00491762097,
                       -0.000563170706),
    erf_tail_above=_single(1.00367649, 0.835007777, 0.303525768),
    erf_tail_below=_single(1, 1.98366406, 1.48891967, 0.537453752),
)


def _double(*values: float) -> tuple:
    return tuple(np.float64(value) for value in values)


DOUBLE = Constants(
    *_double(0, 0.5, 1, 2, np.inf, np.nan),
    mantissa_bits=np.int64(52), exponent_bias=np.int64(1023),
    exp_least=np.float64(-746), exp_most=np.float64(709.782712893384),
    log2_e=np.float64(1.4426950408889634),
    ln2_high=np.float64(float.fromhex("0x1.62e42fee00000p-1")),
    ln2_low=np.float64(float.fromhex("0x1.a39ef35793c76p-33")),
    exp_rest=_double(0.500000000000001064, 0.166666666666664183, 0.0416666666665300902,
                     0.00833333333349041242, 0.001388888894363822, 1.98412695156995452e-4,
                     2.48014931007790746e-5, 2.7557578080746364e-6, 2.76302444080160193e-7,
                     2.50027017004503641e-8),
    smallest_normal=np.float64(2.0**-1022), rescale=np.float64(2.0**52),
    rescale_power=np.int64(52), sqrt_half_bits=np.float64(0.5**0.5).view(np.int64),
    log_rest=_double(0.666666666666673438, 0.399999999994148327, 0.285714287423570178,
                     0.222221985759946217, 0.181835641977015617, 0.153140534589218550,
                     0.147959232758923067),
    tanh_most=np.float64(19.1), erf_middle=np.float64(1), erf_most=np.float64(5.95),
    erf_series=_double(1.1283791670955126, -0.37612638903183521, 0.11283791670944195,
                       -0.026866170643113182, 0.0052239776061327025, -0.00085483259299988295,
                       0.00012055293597328529, -1.4924712692245741e-05, 1.6447136346509131e-06,
                       -1.6206349957883264e-07, 1.3711135174942469e-08, -7.7797537051539e-10),
    erf_tail_above=_double(1.0000001445202964, 1.6815441361174808, 1.3853077525425663,
                           0.68986980569218692, 0.21763303338374787, 0.041571309736314517,
                           0.0039002605535276061),
    erf_tail_below=_double(1, 2.809924722720281, 3.5559615762172103, 2.64469110505078,
                           1.2596148957780686, 0.3892003236050981, 0.073683256209802997,
                           0.0069130313046769165),
)
# fmt: on

# ---------------------------------------------------------- what depends on the dtype of x


def _by_dtype(single: Callable, double: Callable) -> Callable:
    """Mark a function: compiled code takes `single` or `double` by the dtype of argument `x`.

    The choice is made while compiling. The decorated function does the same in plain Python.
    """

    def mark(plain: Callable) -> Marked:
        def build(_: Marked) -> Callable:
            from numba import types  # loaded already: something is being compiled
            from numba.extending import overload

            @overload(plain, strict=False)
            def choose(x: Any, *_: Any) -> Callable | None:
                return {types.float32: single, types.float64: double}.get(x)

            return plain

        return Marked(plain, build, plain)

    return mark


@_by_dtype(lambda x: SINGLE, lambda x: DOUBLE)
def _constants(x):
    return SINGLE if type(x) is np.float32 else DOUBLE


@_by_dtype(lambda x: np.float32(x).view(np.int32), lambda x: np.float64(x).view(np.int64))
def _bits(x):
    """The bits of `x` as an integer."""
    return x.view(np.int32 if type(x) is np.float32 else np.int64)


@_by_dtype(
    lambda x, bits: np.int32(bits).view(np.float32),
    lambda x, bits: np.int64(bits).view(np.float64),
)
def _from_bits(x, bits):
    """The number of `x`'s dtype that has these bits."""
    return np.int32(bits).view(np.float32) if type(x) is np.float32 else bits.view(np.float64)


@_by_dtype(lambda x, n: np.float32(np.int32(n)), lambda x, n: np.float64(np.int32(n)))
def _number(x, n):
    """The integer n in `x`'s dtype."""
    return type(x)(n)


@jit(**INLINE)
def _polynomial(x, coefficients):
    """Horner's rule; the loop is unrolled because the coefficients are known when compiling."""
    value = coefficients[len(coefficients) - 1]
    for i in range(len(coefficients) - 2, -1, -1):
        value = value * x + coefficients[i]
    return value


# ---------------------------------------------------------------------------- the functions


@jit(**INLINE)
def _reduced(x):
    """n and r with x = n ln 2 + r and |r| at most a little over ln(2) / 2."""
    c = _constants(x)
    n = np.floor(x * c.log2_e + c.half)
    return np.int32(n), (x - n * c.ln2_high) - n * c.ln2_low


@jit(**INLINE)
def _power_of_two(x, n):
    """2^n in `x`'s dtype, for an n whose result is a normal number."""
    c = _constants(x)
    return _from_bits(x, (c.exponent_bias + n) << c.mantissa_bits)


@jit(**INLINE)
def exp(x):
    """e to the power of `x`."""
    c = _constants(x)
    y = max(c.exp_least, x)  # also where x is NaN, put back at the end
    y = min(c.exp_most, y)
    n, r = _reduced(y)
    value = c.one + (r + r * r * _polynomial(r, c.exp_rest))
    # 2^n in two factors: n may be beyond the exponents that a normal number has
    half = n >> np.int32(1)
    value = value * _power_of_two(x, half) * _power_of_two(x, n - half)
    return value if x <= c.exp_most else x + c.infinity  # NaN + inf is NaN


@jit(**INLINE)
def log(x):
    """Natural logarithm of `x`."""
    c = _constants(x)
    y = x if x > c.zero else c.one
    subnormal = y < c.smallest_normal
    y = y * c.rescale if subnormal else y
    bits = _bits(y)
    n = (bits - c.sqrt_half_bits) >> c.mantissa_bits
    f = _from_bits(x, bits - (n << c.mantissa_bits)) - c.one
    power = _number(x, n - c.rescale_power if subnormal else n)
    s = f / (c.two + f)
    square = s * s
    # log(1 + f) = f - f^2/2 + s (f^2/2 + s^2 rest): f itself is exact, and the rest is small
    half_square = c.half * f * f
    rest = s * (half_square + square * _polynomial(square, c.log_rest))
    value = power * c.ln2_high - ((half_square - (rest + power * c.ln2_low)) - f)
    value = value if x > c.zero else (-c.infinity if x == c.zero else c.nan)
    return value if x < c.infinity else x  # inf and NaN


@jit(**INLINE)
def tanh(x):
    """Hyperbolic tangent of `x`: -e / (2 + e) with e = exp(-2 |x|) - 1, and the sign of `x`."""
    c = _constants(x)
    size = min(c.tanh_most, abs(x))  # the limit also where x is NaN
    n, r = _reduced(-c.two * size)
    scale = _power_of_two(x, n)
    # exp(r) - 1 keeps its digits where it is small, since 1 never enters: then n = 0, scale = 1
    e = scale * (r + r * r * _polynomial(r, c.exp_rest)) + (scale - c.one)
    value = (c.zero - e) / (c.two + e)
    return _with_sign(x, value, c.tanh_most)


@jit(**INLINE)
def erf(x):
    """Error function: 2/sqrt(pi) times the integral of exp(-t^2) from 0 to `x`."""
    c = _constants(x)
    size = min(c.erf_most, abs(x))
    square = size * size
    series = size * _polynomial(square, c.erf_series)
    ratio = _polynomial(size, c.erf_tail_above) / _polynomial(size, c.erf_tail_below)
    tail = c.one - exp(-square) * ratio
    return _with_sign(x, series if size < c.erf_middle else tail, c.erf_most)


@jit(**INLINE)
def _with_sign(x, value, most):
    """`value` with the sign of `x`; +-1 where |x| is at least `most`, and NaN where x is."""
    c = _constants(x)
    value = value if abs(x) < most else (c.one if abs(x) >= most else x)
    return -value if x < c.zero else value


@jit(**INLINE)
def sigmoid(x):
    """1 / (1 + exp(-x)), from the exponential that cannot overflow."""
    c = _constants(x)
    small = exp(-x if x > c.zero else x)
    return (c.one if x > c.zero else small) / (c.one + small)
