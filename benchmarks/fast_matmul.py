"""The walk from three loops to the final matrix product, as a table: examples/09_fast_matmul.py.

    python benchmarks/fast_matmul.py

Runs the example for two sizes of square float32 matrices and then lets its steps take turns, those
of one number of threads together. GFLOP/s, and how many times the speed of the first step.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from functools import partial
from pathlib import Path

import _common
import numpy as np

from minillm import backend

EXAMPLE = Path(__file__).parents[1] / "examples" / "09_fast_matmul.py"
SIZES = (480, 960)


def walk(size: int) -> dict[str, float]:
    """GFLOP/s of every step of the example; NumPy on one thread as well."""
    sys.argv = [str(EXAMPLE), str(size)]
    with contextlib.redirect_stdout(io.StringIO()):
        example = runpy.run_path(str(EXAMPLE))
    steps, a, b = example["steps"], example["a"], example["b"]
    out, found = np.empty_like(a), {}
    blas, most = steps.pop("NumPy")
    for threads in range(1, most + 1):
        backend.set_threads(threads)
        group = {name: step for name, (step, wanted) in steps.items() if wanted == threads}
        group[f"NumPy, threads: {threads}"] = blas
        seconds = _common.race(*(partial(step, a, b, out) for step in group.values()), seconds=2)
        for name, each in zip(group, seconds, strict=True):
            found[name] = 2e-9 * size**3 / each
    return found


def main() -> None:
    _common.start()
    columns = [walk(size) for size in SIZES]
    heads = [head for size in SIZES for head in (f"{size}: GFLOP/s", "times")]
    _common.table("step", *heads)
    firsts = [next(iter(column.values())) for column in columns]
    for name in columns[0]:
        cells = [(column[name], column[name] / first) for column, first in zip(columns, firsts)]
        _common.row(name, *(value for pair in cells for value in pair))


if __name__ == "__main__":
    main()
