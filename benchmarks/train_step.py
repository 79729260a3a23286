"""A training step of GPT-2 124M: ours against nanoGPT's model in PyTorch, eager and compiled.

    python benchmarks/train_step.py                       # float32 and bfloat16
    python benchmarks/train_step.py --only "minillm float32" "torch eager float32" --steps 2
    python benchmarks/train_step.py --sweep               # ours, T from 256 to 4096 at equal tokens
    python benchmarks/train_step.py --sweep 256 4096 --steps 1
    python benchmarks/train_step.py --threads             # ours, 1 thread against 2

Forward, backward, clipping and AdamW on random tokens; with bfloat16 products activations are kept
in bfloat16 too, as PyTorch's autocast does. Every contender lives in a process of its own, so that
peak memory is its own; they take steps in turns, so that all meet the same machine. Our kernels are
compiled before, by another process, as on the first run of `minillm train`. "faults" are the page
faults of a step, where memory that is new to the process is touched. A row of the sweep makes one
step before those that count.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import _common
import numpy as np
import tiles

from minillm.cli.ahead import step_once
from minillm.models.gpt import GPT, GPTConfig
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.peak import Peak
from minillm.training.step import update

GPT2 = {"vocab_size": 50304, "n_layer": 12, "n_head": 12, "d_model": 768}
TORCH = ("torch eager float32", "torch compiled float32", "torch eager bfloat16",
         "torch compiled bfloat16")  # fmt: skip
OURS = ("minillm float32", "minillm bfloat16")
LENGTHS, TOGETHER = [256, 512, 1024, 2048, 4096], 4096  # of the sweep: T, and tokens of a step


def tokens(batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, 50257, (batch, length + 1))
    return ids[:, :-1], ids[:, 1:]


def settings(length: int, precision: str) -> tuple[GPTConfig, TrainConfig]:
    """What our model is like, and how it is trained."""
    train = TrainConfig(
        lr=3e-4, schedule="constant", warmup=0, precision=precision, activations=precision
    )
    return GPTConfig(block_size=max(1024, length), **GPT2), train


def our_step(batch: int, length: int, precision: str) -> Callable[[], float]:
    """A function that makes one step and returns the loss."""
    shape, config = settings(length, precision)
    model = GPT(shape, np.random.default_rng(0))
    model.train()
    betas = (config.beta1, config.beta2)
    optimizer = AdamW(model.named_parameters(), config.lr, betas, config.eps, config.weight_decay)
    data = tokens(batch, length)

    return lambda: update(model, optimizer, data, 0, config).loss


def torch_step(batch: int, length: int, precision: str, compiled: bool) -> Callable[[], float]:
    import torch
    import torch_gpt

    torch.set_num_threads(_common.THREADS)
    model = torch_gpt.GPT(block_size=max(1024, length), **GPT2)
    forward = torch.compile(model) if compiled else model
    optimizer = torch_gpt.adamw(model, 3e-4, (0.9, 0.95), 0.1)
    ids, targets = (torch.from_numpy(part.copy()) for part in tokens(batch, length))

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(ids, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


# ------------------------------------------------------------------ processes that take turns


def serve(contender: str, batch: int, length: int) -> None:
    """The child: make a step at each line of input, answer with its seconds, loss and memory."""
    who, *how, precision = contender.split()
    if who == "torch":
        step = torch_step(batch, length, precision, how == ["compiled"])
    else:
        step = our_step(batch, length, precision)
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF)
        begun = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_SELF)
        answer = {
            "seconds": seconds, "loss": loss, "peak": after.ru_maxrss * 1024,
            "faults": after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt,
        }  # fmt: skip
        print(json.dumps(answer), flush=True)


class Child:
    """A contender in a process of its own."""

    def __init__(self, name: str, batch: int, length: int, **environment: str) -> None:
        self.name, self.seconds, self.peak, self.losses = name, [], 0, []
        self.faults: list[int] = []
        command, given = [sys.executable, __file__], [name, str(batch), str(length)]
        if name in OURS:
            subprocess.run([*command, "--compile", *given], check=True)
        self.process = subprocess.Popen(
            [*command, "--serve", *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **environment}, text=True,
        )  # fmt: skip

    def step(self, count: bool) -> None:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early; run it alone to see why")
        answer = json.loads(line)
        self.losses.append(answer["loss"])
        if count:
            self.seconds.append(answer["seconds"])
            self.faults.append(answer["faults"])
            self.peak = answer["peak"]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def memory(self) -> tuple[float, float]:
        """Peak in GB, and page faults of a step."""
        return self.peak / 1e9, statistics.median(self.faults)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def race(children: list[Child], warmup: int, steps: int) -> None:
    for turn in range(warmup + steps):
        for child in children:
            child.step(count=turn >= warmup)
    for child in children:
        child.close()


# ------------------------------------------------------------------ the reports


def compare(contenders: list[str], batch: int, length: int, steps: int) -> None:
    children = [Child(name, batch, length) for name in contenders]
    race(children, 3, steps)
    found = {child.name: child for child in children}
    columns = ("seconds", "tokens/s", "peak GB", "faults", "last loss")
    _common.table("GPT-2 124M, training step", *columns)
    for child in children:
        speed = batch * length / child.median
        _common.row(child.name, child.median, speed, *child.memory, child.losses[-1])
    for precision in ("float32", "bfloat16"):
        ours = found.get(f"minillm {precision}")
        peers = [c for c in children if c.name.startswith("torch") and c.name.endswith(precision)]
        if ours and peers:
            best = min(peers, key=lambda child: child.median)
            speed = best.median / ours.median
            _common.verdict(f"{precision}: times as fast as {best.name}", speed, 1.6)
            tiles.report(precision, products_of_step(batch, length), best.median, "a step")
            leanest = min(peers, key=lambda child: child.peak)
            share = ours.peak / leanest.peak
            print(f"{precision}: peak memory {share:.2f} of {leanest.name}'s, wanted at most 0.75")
    if set(OURS) <= set(found):
        wide, narrow = (found[name].median for name in OURS)
        print(f"our step in bfloat16: {wide / narrow:.2f} times as fast as in float32")
    if "minillm float32" in found:
        report_peak_share(found["minillm float32"].median, batch, length)


def products_of_step(batch: int, length: int) -> float:
    """Floating-point operations of a step's products of matrices, attention's left out."""
    return tiles.step_flops(GPT2["n_layer"], GPT2["d_model"], GPT2["vocab_size"], batch * length)


def report_peak_share(seconds: float, batch: int, length: int) -> None:
    """The step's arithmetic rate as a share of the machine's best float32 product, BLAS's or ours."""
    best = Peak("float32", seconds=1.0).flops
    attention = 6 * GPT2["n_layer"] * GPT2["d_model"] * batch * length**2  # the causal half
    rate = (products_of_step(batch, length) + attention) / seconds
    print(f"best product {best / 1e9:.0f} GFLOP/s; the step reaches {rate / 1e9:.0f}")
    _common.verdict("float32: share of the peak", rate / best, 0.88)


def sweep(lengths: list[int], steps: int) -> None:
    """Equal tokens per step, longer and longer rows: memory must stay linear in T."""
    _common.table(f"ours, float32, {TOGETHER} tokens per step", "seconds", "peak GB", "faults")
    for length in lengths:
        child = Child("minillm float32", TOGETHER // length, length)
        race([child], 1, steps)
        _common.row(f"B {TOGETHER // length}, T {length}", child.median, *child.memory)


def threads(steps: int) -> None:
    """The same step on one thread and on two."""
    children = [
        Child("minillm float32", 4, 256, MINILLM_THREADS=str(count), OMP_NUM_THREADS=str(count))
        for count in (1, 2)
    ]
    race(children, 1, steps)
    one, two = children
    _common.table("ours, float32", "seconds", "last loss")
    _common.row("1 thread", one.median, f"{one.losses[-1]:.9f}")
    _common.row("2 threads", two.median, f"{two.losses[-1]:.9f}")
    _common.verdict("two threads: times as fast as one", one.median / two.median, 1.85)
    print("losses identical to the last bit:", one.losses == two.losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each contender")
    parser.add_argument("--only", nargs="*", default=[*OURS, *TORCH], help="contenders to run")
    parser.add_argument("--sweep", nargs="*", type=int, metavar="T", help="T at equal tokens")
    parser.add_argument("--threads", action="store_true", help="1 thread against 2")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--compile", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compile:
        name, _, length = arguments.compile
        step_once(*settings(int(length), name.split()[1]))
        return
    if arguments.serve:
        name, batch, length = arguments.serve
        serve(name, int(batch), int(length))
        return
    _common.start("torch")
    if arguments.sweep is not None:
        sweep(arguments.sweep or LENGTHS, arguments.steps)
    elif arguments.threads:
        threads(arguments.steps)
    else:
        compare(arguments.only, 4, 256, arguments.steps)


if __name__ == "__main__":
    main()
