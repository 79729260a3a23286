"""Machine code is written for what Python calls, once, and what runs is right in any order."""

from __future__ import annotations

from pathlib import Path

import own_process
import pytest

from minillm import jit

HELPERS = """
import numpy as np
from minillm import machine_code
from minillm.jit import jit, prange

@jit
def root(value):
    if value < 0:
        raise ValueError("negative")
    return np.sqrt(value)

@jit(parallel=True)
def roots(out, x):
    for i in prange(x.size):
        out[i] = root(x[i])

@jit
def sum_of_roots(x):
    total = 0.0
    for i in range(x.size):
        total += root(x[i])
    return total

def written(function):
    return [result.library.written for result in function.overloads.values()]

@jit(forceinline=True)
def quarter(x):
    return root(root(x))

@jit
def sum_and_quarter(x):
    return sum_of_roots(x) + quarter(16.0)

@jit
def countdown(n):
    return 0 if n == 0 else 1 + countdown(n - 1)

@jit
def twice_down(n):
    return 2 * countdown(n)

x, out = np.arange(3.0) ** 2, np.empty(3)
"""

pytestmark = pytest.mark.skipif(jit.disabled(), reason="nothing is compiled")


@pytest.fixture
def run(tmp_path: Path):
    """Run lines after HELPERS, in a process of its own; the cache is kept between calls."""
    (tmp_path / "helpers.py").write_text(HELPERS)

    def run(code: str) -> list[str]:
        (tmp_path / "kernel.py").write_text("import helpers as h\n" + code)
        return own_process.run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))

    return run


def test_this_numba_is_one_that_we_know(run):
    assert run("print(h.root(4.0), h.machine_code.write_late())") == ["2.0 True"]


def test_only_what_python_calls_is_written(run):
    roots = """
h.roots(h.out, h.x)
print(h.out, h.written(h.roots), h.written(h.root.for_callers()), h.written(h.root))
"""
    assert run(roots) == ["[0. 1. 2.] [True] [False] []"]
    assert run(roots) == ["[0. 1. 2.] [True] [] []"]  # found on disk; its helper is not needed
    # another caller finds the helper on disk, without machine code
    other = "print(h.sum_of_roots(h.x), h.written(h.root.for_callers()))"
    assert run(other) == ["3.0 [False]"]


def test_what_is_written_or_pasted_is_optimized_and_the_rest_only_with_its_callers(run):
    code = """
print(h.sum_and_quarter(h.x))
helpers = [helper.for_callers() for helper in (h.sum_of_roots, h.quarter, h.root)]
for function in h.sum_and_quarter, *helpers:
    print([result.library.optimized for result in function.overloads.values()])
"""
    assert run(code) == ["5.0", "[True]", "[False]", "[True]", "[False]"]


@pytest.mark.parametrize(
    "calls", ["h.root(4.0) + h.sum_of_roots(h.x)", "h.sum_of_roots(h.x) + h.root(4.0)"]
)
def test_python_and_compiled_code_may_call_the_same_function(run, calls):
    code = f"print({calls}, h.written(h.root), h.written(h.root.for_callers()))"
    assert run(code) == ["5.0 [True] [False]"]
    assert run(code) == ["5.0 [True] []"]


def test_a_function_may_call_itself(run):
    for _ in range(2):  # compiled, then loaded
        assert run("print(h.twice_down(3), h.countdown(4))") == ["6 4"]


def test_exceptions_come_through_compiled_or_loaded(run):
    code = """
h.x[1] = -1
for work in (lambda: h.sum_of_roots(h.x), lambda: h.root(-1.0)):
    try:
        print(work())
    except ValueError as error:
        print("ValueError:", error)
"""
    assert run(code) == run(code) == ["ValueError: negative"] * 2


def test_functions_of_other_programs_compile_as_ever(run):
    code = """
import numba
import numpy as np

h.root(4.0)
root, sum_of_roots = h.root, h.sum_of_roots.compiled()

@numba.njit
def twice(y):
    return 2 * sum_of_roots(y)

@numba.cfunc("float64(float64)")
def half(value):
    return value / 2

@numba.vectorize
def plus_one(value):
    return value + 1

@numba.guvectorize(["(float64[:], float64[:])"], "(n)->()", cache=True)
def total(row, out):
    out[0] = row.sum()

@numba.njit("float64(FunctionType(float64(float64)), float64)")
def applied(function, value):
    return function(value)

print(twice(h.x), half.ctypes(3.0), plus_one(h.x), total(np.ones((2, 3))))
print(applied(half, 3.0), applied(root, 9.0))
"""
    assert run(code) == ["6.0 1.5 [1. 2. 5.] [3. 3.]", "1.5 3.0"]


@pytest.mark.parametrize("options", ["", "no_cpython_wrapper=True, no_cfunc_wrapper=True"])
def test_functions_that_call_each_other(run, options):
    """Numba links them by pointers; with and without an entry for Python."""
    code = f"""
import numba

@numba.njit({options})
def even(n):
    return True if n == 0 else odd(n - 1)

@numba.njit({options})
def odd(n):
    return False if n == 0 else even(n - 1)

@numba.njit
def parity(n):
    return odd(n), even(n)

h.root(4.0)
print(parity(5))
"""
    assert run(code) == ["(True, False)"]
