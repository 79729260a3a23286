"""One operation at a time, forward plus backward at GPT-2's sizes: ours against PyTorch.

    python benchmarks/ops.py [name ...]            # softmax, layer_norm, ..., adamw

Both sides go through their autograd, each in a process of its own, so that neither gets the other's
settings of the memory allocator; they work in turns. GB/s counts the bytes that have to move
whatever the method (each operand read once, each result written once), beside the best that memory
gives here. Arrays of a few megabytes live in the processor's cache and may be faster than memory.
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

TOKENS, WIDTH, VOCABULARY, PARAMETERS = 1024, 768, 50304, 124_439_808
WANTED_RATIO, WANTED_SHARE = 1.3, 0.85
ROUNDS, TURN = 8, 0.15  # turns of each side, and seconds of each turn


class Op(NamedTuple):
    title: str
    bytes: int  # that have to move
    shapes: tuple[tuple[int, ...], ...]  # of the inputs, the first as of the output


def on_tokens(title: str, width: int, moves: int, *weights: tuple[int, ...]) -> Op:
    """An operation on (TOKENS, width) that reads and writes `moves` arrays of that shape."""
    shape = (TOKENS, width)
    return Op(f"{title} {TOKENS} x {width}", moves * 4 * TOKENS * width, (shape, *weights))


OPS = {
    "softmax": on_tokens("softmax", TOKENS, 5),
    "layer_norm": on_tokens("layer norm", WIDTH, 5, (WIDTH,), (WIDTH,)),
    "rms_norm": on_tokens("RMS norm", WIDTH, 5, (WIDTH,)),
    "gelu": on_tokens("GELU erf", 4 * WIDTH, 5),
    "gelu_tanh": on_tokens("GELU tanh", 4 * WIDTH, 5),
    "swiglu": on_tokens("SwiGLU", 4 * WIDTH, 8, (TOKENS, 4 * WIDTH)),
    "cross_entropy": on_tokens("cross-entropy", VOCABULARY, 3),
    "adamw": Op("AdamW 124M", 7 * 4 * PARAMETERS, 3 * ((PARAMETERS,),)),
}


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


# ------------------------------------------------------------------ the two sides


def ours(name: str) -> Callable[[], object]:
    """A function that runs our version once."""
    import minillm.autograd.functional as F
    from minillm import backend
    from minillm.autograd.tensor import Tensor
    from minillm.kernels import adamw

    backend.set_threads(_common.THREADS)
    arrays = [numbers(shape, seed) for seed, shape in enumerate(OPS[name].shapes)]
    if name == "adamw":
        arrays.append(arrays[2] ** 2)  # the second moment
        return lambda: adamw.update(*arrays, 3e-4, 0.9, 0.999, 1e-8, 0.01, 10, 1.0)
    inputs = [Tensor(array, requires_grad=True) for array in arrays]
    dout, targets = Tensor(numbers(OPS[name].shapes[0], seed=9)), np.arange(TOKENS)

    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        if name == "cross_entropy":
            F.cross_entropy(*inputs, targets).backward()
        elif name == "gelu_tanh":
            F.gelu(*inputs, "tanh").backward(dout)
        else:
            getattr(F, name)(*inputs).backward(dout)

    return run


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
    function = {
        "softmax": lambda x: F.softmax(x, -1),
        "layer_norm": lambda x, weight, bias: F.layer_norm(x, (WIDTH,), weight, bias),
        "rms_norm": lambda x, weight: F.rms_norm(x, (WIDTH,), weight, 1e-6),
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "swiglu": lambda gate, up: F.silu(gate) * up,
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


def serve(make: Callable, name: str, pipe: Connection) -> None:
    """The child: at each message run for a while and answer with the seconds of every run."""
    run = make(name)
    run()
    while pipe.recv():
        run()  # the other side's data is still in the caches
        begun, seconds = time.perf_counter(), []
        while not seconds or time.perf_counter() - begun < TURN:
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        pipe.send(seconds)


def race(name: str) -> list[float]:
    """Median seconds of one run: ours, and theirs."""
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for make in (ours, theirs):
        pipe, end = context.Pipe()
        pipes.append(pipe)
        children.append(context.Process(target=serve, args=(make, name, end), daemon=True))
        children[-1].start()
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for record, pipe in zip(seconds, pipes, strict=True):
            pipe.send(True)
            record += pipe.recv()
    for pipe, child in zip(pipes, children, strict=True):
        pipe.send(False)
        child.join()
    return [statistics.median(record) for record in seconds]


@jit(parallel=True)
def _mix(out, x, y):
    for i in prange(x.size):
        out[i] = x[i] + y[i] * out[i]


def memory_ceiling() -> float:
    """GB/s of a loop that reads three large arrays and writes one."""
    out, x, y = (np.ones(1 << 26, np.float32) for _ in range(3))
    (seconds,) = _common.race(lambda: _mix(out, x, y))
    return 4 * out.nbytes / seconds / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(OPS)}; all by default")
    names = parser.parse_args().names or list(OPS)
    _common.start("torch")
    ceiling = memory_ceiling()
    print(f"memory    {ceiling:.1f} GB/s, three arrays read and one written")
    _common.table("forward + backward", "ours ms", "PyTorch ms", "ratio", "GB/s", "of memory")
    failed = []
    for name in names:
        own, peer = race(name)
        speed = OPS[name].bytes / own / 1e9
        _common.row(OPS[name].title, 1e3 * own, 1e3 * peer, peer / own, speed, speed / ceiling)
        if peer / own < WANTED_RATIO and speed / ceiling < WANTED_SHARE:
            failed.append(OPS[name].title)
    print(
        f"\nwanted {WANTED_RATIO} times as fast as PyTorch or {WANTED_SHARE:.0%} of memory:",
        "not " + ", ".join(failed) if failed else "yes, all",
    )


if __name__ == "__main__":
    main()
