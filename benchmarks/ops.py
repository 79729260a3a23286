"""One operation at a time, forward plus backward at GPT-2's sizes: ours against PyTorch.

    python benchmarks/ops.py [name ...]            # softmax, layer_norm, ..., adamw

Three columns of milliseconds are ours, one is PyTorch's:

    kernels   the two kernels called with arrays
    Tensor    the same through our autograd (AdamW: through the optimizer)
    moved     loops that do no more than move the least possible bytes of the two passes: each
              operand read once, each result written once, into arrays as fresh as the kernels'

PyTorch goes through its autograd, so "Tensor" is what its time is divided by. "of memory" is moved /
Tensor: the share of the speed that memory gives to arrays of this size in this state. (Arrays of a
few megabytes stay in the processor's caches, whose speed is another than that of main memory.)

Both sides run in a process of their own, so that neither gets the other's settings of the memory
allocator, and all columns take turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import _common
import numpy as np

from minillm.jit import jit, prange
from minillm.kernels import (
    adamw,
    cross_entropy,
    gelu,
    layer_norm,
    rms_norm,
    rotary,
    softmax,
    swiglu,
)
from minillm.kernels.layout import PART

TOKENS, WIDTH, VOCABULARY, PARAMETERS = 1024, 768, 50304, 124_439_808
HEADS = (4, 12, 256, 64)  # batch, heads, time, channels: as many tokens
WANTED_RATIO, WANTED_SHARE = 1.3, 0.85
ROUNDS, TURN = 8, 0.12  # turns of each column, and seconds of each turn


class Op(NamedTuple):
    title: str
    passes: tuple[tuple[int, int], ...]  # arrays read and written, forward and backward
    shapes: tuple[tuple[int, ...], ...]  # of the inputs, the first as of the output

    @property
    def bytes(self) -> int:
        """That have to move, weights and other small things left out."""
        return sum(map(sum, self.passes)) * 4 * int(np.prod(self.shapes[0]))


def on_tokens(
    title: str, width: int, *weights: tuple[int, ...], passes: tuple = ((1, 1), (2, 1))
) -> Op:
    """An operation on (TOKENS, width); `weights` are its other inputs."""
    return Op(f"{title} {TOKENS} x {width}", passes, ((TOKENS, width), *weights))


OPS = {
    "softmax": on_tokens("softmax", TOKENS),
    "layer_norm": on_tokens("layer norm", WIDTH, (WIDTH,), (WIDTH,)),
    "rms_norm": on_tokens("RMS norm", WIDTH, (WIDTH,)),
    "gelu": on_tokens("GELU erf", 4 * WIDTH),
    "gelu_tanh": on_tokens("GELU tanh", 4 * WIDTH),
    "swiglu": on_tokens("SwiGLU", 4 * WIDTH, (TOKENS, 4 * WIDTH), passes=((2, 1), (3, 2))),
    "rotary": Op("rotary 4 x 12 x 256 x 64", ((1, 1), (1, 1)), (HEADS,)),
    "cross_entropy": on_tokens("cross-entropy", VOCABULARY, passes=((1, 0), (1, 1))),
    "adamw": Op("AdamW 124M", ((4, 3),), 3 * ((PARAMETERS,),)),
}


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def turned(x, cos, sin):
    """Rotary positions as PyTorch's users write them; cos and sin are (T, D)."""
    import torch

    one, other = x.chunk(2, -1)
    return x * cos + torch.cat((-other, one), -1) * sin


# ------------------------------------------------------------------ our side


def angles() -> tuple[np.ndarray, np.ndarray]:
    return rotary.tables(np.arange(HEADS[2])[None], HEADS[3])


def through_tensors(name: str) -> Callable[[], object]:
    """A function that runs our version once, as a user would."""
    import minillm.autograd.functional as F
    from minillm.autograd.tensor import Tensor
    from minillm.training.optimizer import AdamW

    arrays = [numbers(shape, seed) for seed, shape in enumerate(OPS[name].shapes)]
    if name == "adamw":
        weight = Tensor(arrays[0], requires_grad=True)
        weight.grad = arrays[1]
        return AdamW([("weight", weight)], lr=3e-4).step
    inputs = [Tensor(array, requires_grad=True) for array in arrays]
    dout, targets = Tensor(numbers(OPS[name].shapes[0], seed=9)), np.arange(TOKENS)
    tables = angles()

    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        if name == "cross_entropy":
            F.cross_entropy(*inputs, targets).backward()
        elif name == "gelu_tanh":
            F.gelu(*inputs, "tanh").backward(dout)
        elif name == "rotary":
            F.rotary(*inputs, *tables).backward(dout)
        else:
            getattr(F, name)(*inputs).backward(dout)

    return run


def kernels(name: str) -> Callable[[], object]:
    """A function that runs our two kernels once."""
    arrays = [numbers(shape, seed) for seed, shape in enumerate(OPS[name].shapes)]
    if name == "adamw":
        arrays.append(arrays[2] ** 2)  # the second moment
        return lambda: adamw.update(*arrays, 3e-4, 0.9, 0.999, 1e-8, 0.01, 10, 1.0)
    x, *rest = arrays
    dout, targets = numbers(OPS[name].shapes[0], seed=9), np.arange(TOKENS)
    each, tables = np.full(TOKENS, 1 / TOKENS, np.float32), angles()

    def of_norm(module: object) -> object:
        _, *kept = module.forward(x, *rest)
        return module.backward(dout, x, rest[0], *kept)

    return {
        "softmax": lambda: softmax.backward(dout, softmax.forward(x)),
        "layer_norm": lambda: of_norm(layer_norm),
        "rms_norm": lambda: of_norm(rms_norm),
        "gelu": lambda: (gelu.forward(x), gelu.backward(dout, x)),
        "gelu_tanh": lambda: (gelu.forward(x, "tanh"), gelu.backward(dout, x, "tanh")),
        "swiglu": lambda: (swiglu.forward(x, *rest), swiglu.backward(dout, x, *rest)),
        "rotary": lambda: (rotary.forward(x, *tables), rotary.backward(dout, *tables)),
        "cross_entropy": lambda: cross_entropy.backward(
            each, x, targets, cross_entropy.forward(x, targets)[1]
        ),
    }[name]


def moved(name: str) -> Callable[[], object]:
    """A function that moves the bytes of one run, and does nothing else."""
    passes, shape = OPS[name].passes, OPS[name].shapes[0]
    most = max(reads for reads, _ in passes)
    inputs = [numbers(shape, seed).reshape(-1) for seed in range(most)]

    def run() -> list:
        kept = []  # as a result of the forward pass is, while the backward pass runs
        for reads, writes in passes:
            if name == "adamw":
                _move_in_place(*inputs)
            else:
                kept += [np.empty_like(inputs[0]) for _ in range(writes)]
                _MOVES[reads, writes](*inputs[:reads], *kept[len(kept) - writes :])
        return kept

    return run


@jit(parallel=True)
def _read(x):
    sums = np.empty(x.size // PART, x.dtype)
    for part in prange(sums.size):
        sums[part] = x[part * PART : (part + 1) * PART].sum()
    return sums


@jit(parallel=True)
def _copy(x, out):
    for i in prange(x.size):
        out[i] = x[i]


@jit(parallel=True)
def _move_2_1(x, y, out):
    for i in prange(x.size):
        out[i] = x[i] + y[i]


@jit(parallel=True)
def _move_3_2(x, y, z, out, other):
    for i in prange(x.size):
        out[i] = x[i] + z[i]
        other[i] = y[i] + z[i]


@jit(parallel=True)
def _move_in_place(a, b, c, d):
    for i in prange(a.size):
        a[i] += d[i]
        b[i] += d[i]
        c[i] += d[i]


_MOVES = {(1, 0): _read, (1, 1): _copy, (2, 1): _move_2_1, (3, 2): _move_3_2}

# ------------------------------------------------------------------ their side


def theirs(name: str) -> Callable[[], object]:
    """A function that runs PyTorch's version once."""
    import torch

    torch.set_num_threads(_common.THREADS)
    F = torch.nn.functional
    arrays = [torch.tensor(numbers(shape, i)) for i, shape in enumerate(OPS[name].shapes)]
    if name == "adamw":
        weight = torch.nn.Parameter(arrays[0])
        weight.grad = arrays[1]
        return torch.optim.AdamW([weight], lr=3e-4, fused=True).step
    targets = torch.arange(TOKENS)
    cos, sin = (torch.tensor(np.tile(table[0], 2)) for table in angles())
    function = {
        "softmax": lambda x: F.softmax(x, -1),
        "layer_norm": lambda x, weight, bias: F.layer_norm(x, (WIDTH,), weight, bias),
        "rms_norm": lambda x, weight: F.rms_norm(x, (WIDTH,), weight, 1e-6),
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "swiglu": lambda gate, up: F.silu(gate) * up,
        "rotary": lambda x: turned(x, cos, sin),
        "cross_entropy": lambda logits: F.cross_entropy(logits, targets),
    }[name]
    inputs = [array.requires_grad_() for array in arrays]
    shape = () if name == "cross_entropy" else OPS[name].shapes[0]
    dout = torch.tensor(numbers(shape, seed=9)) if shape else torch.tensor(1.0)

    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        function(*inputs).backward(dout)

    return run


# ------------------------------------------------------------------ taking turns


def serve(makers: tuple[Callable, ...], name: str, pipe: Connection) -> None:
    """The child: for each number that comes, run that column for a while and send its seconds."""
    from minillm import backend

    backend.set_threads(_common.THREADS)
    columns = [make(name) for make in makers]
    for run in columns:
        run()
    while (chosen := pipe.recv()) is not None:
        run = columns[chosen]
        run()  # the data of another column is still in the caches
        begun, seconds = time.perf_counter(), []
        while not seconds or time.perf_counter() - begun < TURN:
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        pipe.send(seconds)


def race(name: str) -> list[float]:
    """Seconds of one run of every column, by rounds in which each has its turn."""
    context = multiprocessing.get_context("spawn")
    columns, children = [], []
    for makers in ((kernels, through_tensors, moved), (theirs,)):
        pipe, end = context.Pipe()
        children.append(context.Process(target=serve, args=(makers, name, end), daemon=True))
        children[-1].start()
        columns += [(pipe, number) for number in range(len(makers))]
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):
        rounds.append([])
        for pipe, number in columns:
            pipe.send(number)
            rounds[-1].append(statistics.median(pipe.recv()))
    for pipe in {pipe for pipe, _ in columns}:
        pipe.send(None)
    for child in children:
        child.join()
    return _common.typical(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(OPS)}; all by default")
    names = parser.parse_args().names or list(OPS)
    _common.start("torch")
    _common.table(
        "forward + backward", "kernels", "Tensor", "moved", "PyTorch ms", "times as fast", "GB/s",
        "of memory",
    )  # fmt: skip
    failed = []
    for name in names:
        bare, own, least, peer = race(name)
        times, share = peer / own, least / own
        _common.row(
            OPS[name].title, 1e3 * bare, 1e3 * own, 1e3 * least, 1e3 * peer, times,
            OPS[name].bytes / own / 1e9, share,
        )  # fmt: skip
        if times < WANTED_RATIO and share < WANTED_SHARE:
            failed.append(OPS[name].title)
    print(
        f"\nwanted {WANTED_RATIO} times as fast as PyTorch or {WANTED_SHARE:.0%} of memory:",
        "not " + ", ".join(failed) if failed else "yes, all",
    )


if __name__ == "__main__":
    main()
