"""float32 against bfloat16 products, and activations: the losses of a run, and what a seed changes.

    MINILLM_DATA=folder python benchmarks/precision.py       # reads folder/**/tinyshakespeare.txt
    python benchmarks/precision.py --steps 1000 --seeds 5    # without a folder: Python's own modules

A GPT of 4.9 million parameters (6 layers, 256 wide) on the bytes of a text, 1,024 a step. All
precisions start from the same weights and see the same batches. Losses in nats a byte: the mean of
the last tenth of the run, and of 64 windows of the last tenth of the text, which is held out.
"drift" is the largest distance between a precision's mean curve and that of float32, in spreads
(standard deviations) of float32's curves of single seeds, tenth by tenth of the run.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import _common
import numpy as np

from minillm import backend
from minillm.autograd import no_grad
from minillm.models.gpt import GPT, GPTConfig
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.step import update

CONFIG = GPTConfig(vocab_size=256, block_size=128, n_layer=6, n_head=4, d_model=256)
ROWS, WINDOWS, SPREAD = 8, 64, 1.0
WAYS = {  # of products, of activations
    "float32": ("float32", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "bfloat16 kept": ("bfloat16", "bfloat16"),
}


def text() -> np.ndarray:
    """The bytes to learn from, and to be judged by."""
    folder = os.environ.get("MINILLM_DATA")
    files = sorted(Path(folder).rglob("tinyshakespeare.txt")) if folder else []
    files = files or sorted(Path(os.__file__).parent.glob("*.py"))
    return np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8)


def windows(source: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = source[starts[:, None] + np.arange(CONFIG.block_size + 1)].astype(np.int64)
    return rows[:, :-1], rows[:, 1:]


def run(source: np.ndarray, seed: int, way: str, steps: int) -> tuple[np.ndarray, float]:
    """The loss of every step, and that of the held-out tenth at the end."""
    cut = len(source) * 9 // 10
    precision, activations = WAYS[way]
    config = TrainConfig(
        steps=steps, lr=1e-3, warmup=steps // 10, precision=precision, activations=activations
    )
    model = GPT(CONFIG, np.random.default_rng(seed)).train()
    betas = config.beta1, config.beta2
    optimizer = AdamW(model.named_parameters(), config.lr, betas, config.eps, config.weight_decay)
    rng, losses = np.random.default_rng([seed, 1]), []
    for step in range(steps):
        batch = windows(source, rng.integers(0, cut - CONFIG.block_size, ROWS))
        losses.append(update(model, optimizer, batch, step, config).loss)
    starts = np.linspace(cut, len(source) - CONFIG.block_size - 1, WINDOWS).astype(int)
    with no_grad(), backend.precision(precision):
        return np.array(losses), model.eval().loss(*windows(source, starts)).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=140, help="updates of each run, at least 10")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each precision, at least 2")
    arguments = parser.parse_args()
    _common.start()
    source, steps, seeds = text(), arguments.steps, range(arguments.seeds)
    print(f"text      {len(source):,} bytes")
    _common.table("losses", "last tenth", "held out", "seconds")
    curves, held_out = {}, {}
    for way in WAYS:
        curves[way], held_out[way] = [], []
        for seed in seeds:
            begun = time.perf_counter()
            losses, judged = run(source, seed, way, steps)
            tenths = [part.mean() for part in np.array_split(losses, 10)]
            curves[way].append(tenths)
            held_out[way].append(judged)
            cells = f"{tenths[-1]:.5f}", f"{judged:.5f}", time.perf_counter() - begun
            _common.row(f"{way}, seed {seed}", *cells)
    one, exact = np.array(curves.pop("float32")), np.array(held_out["float32"])
    print(f"\nheld out: spread of float32's seeds {exact.std(ddof=1):.5f}")
    for way, other in curves.items():
        beside = np.array(held_out[way]) - exact
        drift = np.max(abs((other - one).mean(axis=0)) / one.std(axis=0, ddof=1))
        reached = "yes" if drift <= SPREAD else "NO"
        print(f"{way} minus float32, seed by seed {', '.join(f'{x:+.5f}' for x in beside)}")
        print(f"drift of the curves {drift:.3f} spreads, wanted at most {SPREAD:.0f}: {reached}")


if __name__ == "__main__":
    main()
