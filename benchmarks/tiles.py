"""What the processor allows: register tiles and nothing else, the ceiling of every product.

    python benchmarks/tiles.py

Each thread multiplies panels that were packed before and lie in its second-level cache (random
numbers), tile after tile into one row of an output: no packing, no fetching, no epilogue, nobody
waited for. A product, whoever's, is slower. So the arithmetic of a training step at this rate is
the least time that a step can take on this machine; `train_step.py` and `nanogpt_cpu_recipe.py` say
how many times as fast as their peer that would be.
"""

from __future__ import annotations

import math
import time

import _common
import numpy as np

from minillm.jit import jit, prange
from minillm.kernels.bfloat16 import round_to_bfloat16
from minillm.kernels.processor import WORD
from minillm.kernels.tile import multiply_tile, tile

DEPTH, PANELS = 384, 6  # words of k, and panels of a and of b: 110 and 300 kB with AVX-512
ROUNDS = 100  # over all pairs of panels in a trial: 10 ms
PACKED = {"float32": "float32", "bfloat16": WORD}


@jit(parallel=True)
def _multiply(a, b, out, rounds):
    for worker in prange(len(a)):
        _multiply_panels(a[worker], b[worker], out[worker], rounds)


@jit(borrows=True)
def _multiply_panels(a, b, out, rounds):
    width = b.shape[2]
    for _ in range(rounds):
        for i in range(a.shape[0] - 1):
            for j in range(b.shape[0]):
                multiply_tile(a, i, 0, b, j, 0, a.shape[1], out, 0, j * width, True)


def _panels(count: int, width: int, packed: str) -> np.ndarray:
    """Random panels of each thread: (threads, count, DEPTH, width)."""
    shape = (_common.THREADS, count, DEPTH, width * tile(packed).per_word)
    numbers = np.random.default_rng(0).random(shape, np.float32)
    return round_to_bfloat16(numbers).view(np.uint32) if packed == WORD else numbers


def rate(precision: str, seconds: float = 1.0) -> float:
    """Floating-point operations a second, all threads: the best of many trials."""
    packed = PACKED[precision]
    this = tile(packed)
    # The last panel of a is not used: a tile has the panel that follows its own fetched.
    a, b = _panels(PANELS + 1, this.rows, packed), _panels(PANELS, this.columns, packed)
    out = np.zeros((_common.THREADS, this.rows, PANELS * this.columns), np.float32)
    one_tile = 2 * this.rows * this.columns * DEPTH * this.per_word
    _multiply(a, b, out, ROUNDS)
    fastest, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        _multiply(a, b, out, ROUNDS)
        fastest = min(fastest, time.perf_counter() - begun)
    return _common.THREADS * ROUNDS * PANELS**2 * one_tile / fastest


def report(precision: str, flops: float, peer: float, what: str) -> None:
    """Print the least seconds of `flops` operations here, and the peer's seconds over that."""
    least = flops / rate(precision)
    print(
        f"{precision}: bare tiles would take {least:.3g} s for the products of {what}: at most"
        f" {peer / least:.2f} times as fast is possible here"
    )


def step_flops(layers: int, width: int, vocab_size: int, tokens: int) -> float:
    """Of the products in a GPT's training step, attention's own left out."""
    return 6.0 * (12 * layers * width**2 + vocab_size * width) * tokens


def main() -> None:
    _common.start()
    _common.table("nothing but tiles", "GFLOP/s", "rows", "columns")
    for precision, packed in PACKED.items():
        this = tile(packed)
        _common.row(precision, rate(precision) / 1e9, str(this.rows), str(this.columns))


if __name__ == "__main__":
    main()
