"""exp, sigmoid and the normal distribution against Python's own, in units in the last place."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from cases import DTYPES

from minillm.jit import jit
from minillm.kernels.vector_math import exp, normal, sigmoid


@jit
def exp_of_all(x, out):
    for i in range(x.size):
        out[i] = exp(x[i])


@jit
def sigmoid_of_all(x, out):
    for i in range(x.size):
        out[i] = sigmoid(x[i])


@jit
def normal_of_all(x, out):
    for i in range(x.size):
        out[i] = normal(x[i])[0]


@jit
def bell_of_all(x, out):
    for i in range(x.size):
        out[i] = normal(x[i])[1]


def applied(function, x):
    out = np.empty_like(x)
    function(x, out)
    return out


def wide_exponents(x):
    """Python's exp in the widest float there is, so that float64 can be judged too."""
    return np.exp(x.astype(np.longdouble))


def arguments(dtype, low, high):
    """Numbers all over an interval, and more of them near 0."""
    rng = np.random.default_rng(0)
    parts = rng.uniform(low, high, 4000), rng.standard_normal(4000), rng.normal(0, 1e-3, 500)
    return np.concatenate(parts).clip(low, high).astype(dtype)


def assert_within(units, result, wanted):
    error = abs(result.astype(np.longdouble) - wanted)
    assert (error <= units * np.spacing(wanted.astype(result.dtype))).all()


@DTYPES
def test_exp_is_exact_to_its_last_digit(dtype):
    least, most = {np.float32: (-103.9, 88.7), np.float64: (-745.1, 709.7)}[dtype]
    x = arguments(dtype, least, most)
    assert_within(1.01, applied(exp_of_all, x), wide_exponents(x))


@DTYPES
def test_sigmoid(dtype):
    least = {np.float32: -103, np.float64: -744}[dtype]
    x = arguments(dtype, least, 60)
    assert_within(2, applied(sigmoid_of_all, x), 1 / (1 + wide_exponents(-x)))


@DTYPES
def test_normal_probability_keeps_its_digits_where_it_is_small(dtype):
    x = arguments(dtype, {np.float32: -13.0, np.float64: -37.0}[dtype], 9)
    wanted = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])
    # x^2/2 is rounded before its exponential is taken, which costs a relative error of its size
    bound = (4 + x.astype(np.float64) ** 2) * np.finfo(dtype).eps
    assert (abs(applied(normal_of_all, x) - wanted) <= bound * wanted).all()
    bell = np.exp(-0.5 * x.astype(np.float64) ** 2)
    assert (abs(applied(bell_of_all, x) - bell) <= bound * bell).all()


@DTYPES
@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (exp_of_all, [0, 0, 1, np.inf, np.inf, np.nan]),
        (sigmoid_of_all, [0, 0, 0.5, 1, 1, np.nan]),
        (normal_of_all, [0, 0, 0.5, 1, 1, np.nan]),
    ],
)
def test_the_ends_and_nan(dtype, function, wanted):
    x = np.array([-np.inf, -1e4, 0, 1e4, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(applied(function, x), np.array(wanted, dtype))


PROGRAM = """
import numpy as np
from minillm.kernels.vector_math import exp, normal, sigmoid
for dtype in (np.float32, np.float64):
    for value in (-np.inf, -1e4, -30.0, -1.5, 0.0, 0.3, 20.0, 1e4, np.inf, np.nan):
        for result in (exp(dtype(value)), sigmoid(dtype(value)), *normal(dtype(value))):
            assert type(result) is dtype
            print(repr(float(result)))
"""


def test_plain_python_computes_the_same_without_a_warning():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    plain = iter([float(line) for line in done.stdout.split()])
    for dtype in (np.float32, np.float64):
        x = np.array([-np.inf, -1e4, -30, -1.5, 0, 0.3, 20, 1e4, np.inf, np.nan], dtype)
        functions = (exp_of_all, sigmoid_of_all, normal_of_all, bell_of_all)
        for results in zip(*(applied(function, x) for function in functions), strict=True):
            for result in results:
                np.testing.assert_allclose(next(plain), result, rtol=4 * np.finfo(dtype).eps)
