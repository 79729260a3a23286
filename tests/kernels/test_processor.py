"""Other processors than this one: the compiler is told to make code for them, and it runs here."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from minillm.jit import disabled

pytestmark = pytest.mark.skipif(disabled(), reason="nothing is compiled")

PC = platform.machine() in ("x86_64", "AMD64")

# Vector bytes, registers and whether there is a dot product of bfloat16, as `machine` finds them.
MACHINES = {
    "generic": (16, 16, False) if PC else None,
    "haswell": (32, 16, False),
    "x86-64-v4": (64, 32, False),
}
NEEDS = {"haswell": {"avx2", "fma"}, "x86-64-v4": {"avx512f", "avx512vl", "avx512bw"}}

# A product by tiles and one of a single row, each with a rest of rows, of columns and of k.
PRODUCTS = """
import sys

import ml_dtypes
import numpy as np

from minillm.kernels import matmul
from minillm.kernels.processor import machine

rng, dtype = np.random.default_rng(0), np.dtype(sys.argv[1])
for M in (1, 50):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((M, 131), (70, 131)))
    out, (x, y) = matmul.product(a, b.T), (m.astype(np.float64) for m in (a, b))
    bound = 133 * np.finfo(out.dtype).eps * (abs(x) @ abs(y).T)
    assert np.all(abs(out - x @ y.T) <= bound), M
print(*machine())
"""

slow = pytest.mark.slow  # each case compiles its products once on a machine, for 7 seconds
CASES = [
    ("generic", "float32"),
    ("haswell", "float32"),
    ("haswell", "bfloat16"),
    pytest.param("generic", "bfloat16", marks=slow),
    pytest.param("generic", "float64", marks=slow),
    pytest.param("haswell", "float64", marks=slow),
    pytest.param("x86-64-v4", "float32", marks=slow),
    pytest.param("x86-64-v4", "bfloat16", marks=slow),
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_products_on_a_processor_given_by_name(name, dtype):
    if not runs_here(name):
        pytest.skip(f"this processor cannot run code for {name}")
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    ended = subprocess.run(
        [sys.executable, "-c", PRODUCTS, dtype],
        check=False, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    if MACHINES[name] is not None:
        assert ended.stdout.split() == [str(fact) for fact in MACHINES[name]]


def runs_here(name: str) -> bool:
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if PC and info.exists() else set()
    return NEEDS.get(name, set()) <= flags
