"""Matrix products of GPT-2 124M: ours against NumPy's BLAS, and bfloat16 against PyTorch's.

    python benchmarks/matmul.py
    python benchmarks/matmul.py --haswell     # float32 alone, both as on a processor with AVX2

For every linear layer, at 1,024 tokens: the forward product, the gradient of the input and the
gradient of the weight. GFLOP/s, then the ratio to the peer. Rounding to bfloat16 and packing are
part of our time; PyTorch and ours get the same bfloat16 arrays in the last two columns.

With --haswell, Numba compiles for that processor, and OpenBLAS takes the kernels that it has for
it: 16 vectors of 8 numbers each, whatever this machine has.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from threadpoolctl import threadpool_info

sys.path.insert(0, str(Path(__file__).parent))
from _common import race, row, start, table, verdict

from minillm.kernels import matmul

TOKENS, VOCAB_SLICE = (
    1024,
    8192,
)  # the head runs in slices of rows; a slice of columns stands for it
LAYERS = {
    "attention in": (768, 2304),
    "attention out": (768, 768),
    "up": (768, 3072),
    "down": (3072, 768),
    f"head, {VOCAB_SLICE} of the vocabulary": (768, VOCAB_SLICE),
}


def products(K: int, N: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The two operands of the three products of a layer from K to N numbers."""
    rng = np.random.default_rng(0)
    shapes = ((TOKENS, K), (N, K), (TOKENS, N))
    x, weight, dout = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    return {"forward": (x, weight.T), "input": (dout, weight), "weight": (dout.T, x)}


HASWELL = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "", "OPENBLAS_CORETYPE": "Haswell"}


def as_haswell() -> None:
    """float32 products, both sides limited to AVX2; they read that when they are loaded."""
    if not HASWELL.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | HASWELL)
    start()
    if not any(library.get("architecture") == "Haswell" for library in threadpool_info()):
        raise SystemExit("NumPy's BLAS here is no OpenBLAS that can be limited")
    table("product", "f32", "BLAS", "ratio")
    least = np.inf
    for layer, (K, N) in LAYERS.items():
        for name, (a, b) in products(K, N).items():
            out = np.empty((a.shape[0], b.shape[1]), np.float32)
            seconds = race(
                lambda a=a, b=b, out=out: matmul.product(a, b, out=out),
                lambda a=a, b=b, out=out: np.matmul(a, b, out=out),
                seconds=6.0,
            )
            ours, blas = (2e-9 * TOKENS * K * N / s for s in seconds)
            least = min(least, ours / blas)
            row(f"{layer}: {name}", ours, blas, ours / blas)
    print()
    verdict("float32 / BLAS, least", least, 0.9)


def everything() -> None:
    import torch

    start("torch", "ml_dtypes")
    table("product", "f32", "BLAS", "ratio", "f32 as bf16", "ratio", "bf16", "PyTorch", "ratio")
    least = [np.inf] * 3
    for layer, (K, N) in LAYERS.items():
        for name, (a, b) in products(K, N).items():
            out = np.empty((a.shape[0], b.shape[1]), np.float32)
            half = [x.astype(ml_dtypes.bfloat16, order="K") for x in (a, b)]
            theirs = [torch.from_numpy(x).bfloat16() for x in (a, b)]
            seconds = race(
                lambda a=a, b=b, out=out: matmul.product(a, b, out=out),
                lambda a=a, b=b, out=out: np.matmul(a, b, out=out),
                lambda a=a, b=b, out=out: matmul.product(a, b, out=out, bfloat16=True),
                seconds=7.0,
            ) + race(
                lambda half=half, out=out: matmul.product(*half, out=out),
                lambda theirs=theirs: torch.mm(*theirs),
                seconds=7.0,
            )
            ours, blas, rounded, bf16, peer = (2e-9 * TOKENS * K * N / s for s in seconds)
            ratios = ours / blas, rounded / blas, bf16 / peer
            least = [min(pair) for pair in zip(least, ratios, strict=True)]
            row(
                f"{layer}: {name}", ours, blas, ratios[0], rounded, ratios[1], bf16, peer, ratios[2]
            )
    print()
    verdict("float32 / BLAS, least", least[0], 0.97)
    verdict("bfloat16 / BLAS float32, least", least[1], 1.9)
    verdict("bfloat16 / PyTorch bfloat16, least", least[2], 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--haswell", action="store_true", help="float32, limited to AVX2")
    (as_haswell if parser.parse_args().haswell else everything)()


if __name__ == "__main__":
    main()
