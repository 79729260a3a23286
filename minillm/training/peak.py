"""The peak: how fast this machine multiplies matrices, to measure a training step against.

Nearly all arithmetic of a step is in products of matrices, so no step does more operations in a
second than the best product there is. That is measured, not looked up, in the precision of the run
(where the processor has products of bfloat16 they are twice as fast as those of float32), and of
several trials the best counts: whatever disturbs a trial makes it slower.

A machine that was busy all that time is found out later: a step that is faster than the peak has it
measured again, and raises it to its own speed where that is faster still.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minillm import backend, jit
from minillm.kernels import matmul

SHAPE = (2048, 512, 2048)  # rows, inner, columns: large enough to be near the best of any size
FEWEST = 3  # trials


class Peak:
    """The most floating-point operations per second seen here: `flops`, which only ever rises."""

    def __init__(self, precision: str = "float32", seconds: float = 0.1) -> None:
        """Measure each kind of product for about `seconds`, up to the precision given."""
        self.precision, self.seconds, self.flops = precision, seconds, 0.0
        self.measure()

    def measure(self) -> None:
        """Try again, and keep the best."""
        rows, inner, columns = SHAPE
        rng = np.random.default_rng(0)
        a, b = (
            backend.asarray(rng.standard_normal(shape, dtype=np.float32))
            for shape in ((rows, inner), (inner, columns))
        )
        for product in _products(self.precision):
            best = fastest(partial(product, a, b), self.seconds)
            self.flops = max(self.flops, 2 * rows * inner * columns / best)

    def share(self, flops: float) -> float:
        """`flops` per second as a share of the peak, at most 1."""
        if flops > self.flops:
            self.measure()
            self.flops = max(self.flops, flops)
        return flops / self.flops


def fastest(work: Callable[[], Any], seconds: float) -> float:
    """The seconds of the best trial of those that take about `seconds` together."""
    work()  # may compile, and wait for the threads of another kernel to go to sleep
    backend.wait()
    end, trials, best = time.perf_counter() + seconds, 0, math.inf
    while trials < FEWEST or time.perf_counter() < end:
        trials += 1
        start = time.perf_counter()
        work()
        backend.wait()
        best = min(best, time.perf_counter() - start)
    return best


def _products(precision: str) -> list[Callable[..., Any]]:
    """The array module's product, and ours in each precision that a run of `precision` uses."""
    found: list[Callable[..., Any]] = [operator.matmul]
    if not jit.disabled():  # plain Python loops would take hours, and set no record
        halves = {False, precision == "bfloat16"}
        found += [partial(matmul.product, bfloat16=half) for half in halves]
    return found


_known: dict[tuple[str, int, str], Peak] = {}


def peak(precision: str = "float32") -> Peak:
    """The peak in this process, measured when it is first asked for."""
    key = backend.name(), backend.threads(), precision
    if key not in _known:
        _known[key] = Peak(precision)
    return _known[key]
