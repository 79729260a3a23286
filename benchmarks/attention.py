"""Attention, ours against PyTorch's scaled_dot_product_attention, in turns within one process.

    python benchmarks/attention.py

GFLOP/s counts the products that the mask leaves: 2 of them forward and 5 backward, each 2 D
operations for every query and key that it sees. Queries, keys and values are views of (B, T, H, D)
arrays, as a model makes them; cached keys are (B, G, S, D). (Running in our process helps PyTorch a
little: the memory it frees is kept for reuse, too.)

In bfloat16 PyTorch takes and gives tensors of that type. Ours are products of it, as a training
step with `precision("bfloat16")` asks for: arrays are float32 on both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import _common
import numpy as np
import torch

from minillm import backend
from minillm.backend import Array
from minillm.kernels import attention

WANTED = 1.5


class Case(NamedTuple):
    title: str
    B: int
    H: int
    G: int  # key/value heads
    T: int
    S: int
    D: int
    backward: bool = True
    precision: str = "float32"


TARGET = Case("B 4, H 12, T 1024, D 64: forward + backward", 4, 12, 12, 1024, 1024, 64)
CASES = (
    TARGET,
    TARGET._replace(title="the same: forward alone", backward=False),
    Case("B 4, H 12, T 256, D 64", 4, 12, 12, 256, 256, 64),
    Case("B 12, H 4, T 64, D 32", 12, 4, 4, 64, 64, 32),
    Case("B 1, H 2, T 4096, D 64", 1, 2, 2, 4096, 4096, 64),
    Case("B 1, 16 heads on 4, T 1024, D 128", 1, 16, 4, 1024, 1024, 128),
    Case("one query, B 1, H 12, S 4096, D 64: forward", 1, 12, 12, 1, 4096, 64, backward=False),
    TARGET._replace(title="bfloat16, B 4, H 12, T 1024, D 64", precision="bfloat16"),
    Case("bfloat16, B 4, H 12, T 256, D 64", 4, 12, 12, 256, 256, 64, precision="bfloat16"),
    Case("bfloat16, B 12, H 4, T 64, D 32", 12, 4, 4, 64, 64, 32, precision="bfloat16"),
)


def arrays(case: Case) -> list[Array]:
    """q, k, v, dout."""
    rng = np.random.default_rng(0)
    sizes = [(case.T, case.H), (case.S, case.G), (case.S, case.G), (case.T, case.H)]
    made = [rng.standard_normal((case.B, *size, case.D), dtype=np.float32) for size in sizes]
    q, k, v, dout = (array.swapaxes(1, 2) for array in made)
    if case.S > case.T:
        k, v = np.ascontiguousarray(k), np.ascontiguousarray(v)
    return [q, k, v, dout]


def ours(case: Case) -> Callable[[], object]:
    q, k, v, dout = arrays(case)
    masks = (*attention.visible_keys(case.T, case.S), case.D**-0.5)

    def run() -> None:
        with backend.precision(case.precision):
            out, lse = attention.forward(q, k, v, *masks)
            if case.backward:
                attention.backward(dout, q, k, v, out, lse, *masks)

    return run


def theirs(case: Case) -> Callable[[], object]:
    dtype = getattr(torch, case.precision)
    q, k, v, dout = (torch.tensor(array).to(dtype) for array in arrays(case))
    q, k, v = (x.requires_grad_(case.backward) for x in (q, k, v))
    options = {"is_causal": case.T == case.S, "enable_gqa": case.H != case.G}

    def run() -> None:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
        if case.backward:
            q.grad = k.grad = v.grad = None
            out.backward(dout)

    return run


def main() -> None:
    _common.start("torch")
    _common.table("causal attention", "ours ms", "PyTorch ms", "ratio", "GFLOP/s")
    reached = 0.0
    for case in CASES:
        own, peer = _common.race(ours(case), theirs(case), seconds=4)
        first, last = attention.visible_keys(case.T, case.S)
        seen = case.B * case.H * float((last - first + 1).sum())
        work = (7 if case.backward else 2) * 2 * case.D * seen
        _common.row(case.title, 1e3 * own, 1e3 * peer, peer / own, work / own / 1e9)
        if case is TARGET:
            reached = peer / own
    print()
    _common.verdict(TARGET.title + ", times as fast", reached, WANTED)


if __name__ == "__main__":
    main()
