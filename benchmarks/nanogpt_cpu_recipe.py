"""nanoGPT's CPU recipe on tinyshakespeare: time and validation loss, ours against PyTorch.

    MINILLM_DATA=folder python benchmarks/nanogpt_cpu_recipe.py     # three seeds, and the peer
    MINILLM_DATA=folder python benchmarks/nanogpt_cpu_recipe.py --seeds 0 --no-peer
    ... --train.lr 1e-3                                             # any setting may be changed

A character-level GPT of 4 layers, 4 heads and 128 channels, context 64, batch 12, 2001 updates, no
dropout, the first 90 % of the text for training: the recipe `shakespeare-cpu`, for both sides. Its
learning rate is 3e-3; nanoGPT's is 1e-3. `folder` holds tinyshakespeare.txt at any depth.

Both sides are scored on the whole of the last 10 %, in windows that do not overlap; nanoGPT itself
scores a random sample of it. The time is that of the 2001 updates, without evaluation; kernels that
are not in the cache yet are compiled before it starts. Every run has a process of its own. The
first seed and the peer go in turns of 100 updates, the other waiting, so that both see the same
minutes of the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _common
import numpy as np
import tiles

from minillm.cli.settings import find_recipe, read_recipe, split_flags
from minillm.cli.train import Plan
from minillm.data.batches import Batches
from minillm.data.shards import TokenDataset, write_tokens
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.tokenizer import CharTokenizer
from minillm.training.loop import train
from minillm.training.metrics import split_losses, total
from minillm.training.progress import Reporter
from minillm.training.schedule import learning_rate

WANTED_LOSS = 1.90
TURN = 100  # updates
WORDS, CHANGES = split_flags(sys.argv[1:])
PLAN = Plan.read(read_recipe(find_recipe("shakespeare-cpu")) | CHANGES)
TOKENS = PLAN.train.batch_size * PLAN.model.block_size  # of an update


def text() -> str:
    folder = os.environ.get("MINILLM_DATA")
    found = sorted(Path(folder).rglob("tinyshakespeare.txt")) if folder else []
    if not found:
        raise SystemExit("set MINILLM_DATA to a folder that holds tinyshakespeare.txt")
    return found[0].read_text(encoding="utf-8")


def shards(folder: str) -> tuple[TokenDataset, TokenDataset, int]:
    """The first 90 % of the characters, the last 10 %, and how many different ones there are."""
    tokenizer = CharTokenizer.train(text())
    ids = tokenizer.encode_array(text())
    cut = int(0.9 * len(ids))
    write_tokens(folder, "train", ids[:cut], tokenizer.vocab_size)
    write_tokens(folder, "validation", ids[cut:], tokenizer.vocab_size)
    return TokenDataset(folder, "train"), TokenDataset(folder, "validation"), tokenizer.vocab_size


# ------------------------------------------------------------------ one run, in its own process


class Turns:
    """Makes updates only when it is its turn; says on standard output how long each turn took."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def begin(self) -> None:
        """Wait until the other side has had its turn; stop where nobody waits for us any more."""
        if not sys.stdin.readline():
            raise SystemExit
        self.begun = time.perf_counter()

    def made(self, step: int) -> None:
        """Update `step` is made, the first being 1."""
        if step % TURN == 0 or step == self.steps:
            print(json.dumps(time.perf_counter() - self.begun), flush=True)
            if step < self.steps:
                self.begin()


class Quiet(Reporter):
    """Says nothing but to `turns`."""

    def __init__(self, turns: Turns | None) -> None:
        super().__init__()
        self.turns = turns

    def step(self, line: dict[str, Any]) -> None:
        if self.turns:
            self.turns.made(line["step"])

    def say(self, text: str) -> None:
        """Nothing."""


def ours(seed: int, folder: str) -> dict[str, float]:
    training, validation, vocab_size = shards(folder)
    config, settings = PLAN.model_for(vocab_size), PLAN.train

    def made(steps: int, turns: Turns | None) -> LanguageModel:
        model = registry.build(config, np.random.default_rng(seed))
        plan = dataclasses.replace(settings, steps=steps, seed=seed, eval_every=0, save_every=0)
        batches = Batches(training, settings.batch_size, config.block_size, seed)
        if turns:
            turns.begin()
        train(model, batches, plan, report=Quiet(turns))
        return model

    made(3, None)  # compiles, or loads what is compiled
    model = made(settings.steps, Turns(settings.steps))
    found = total(split_losses(model, validation, config.block_size))
    return {"loss": found.loss, "tokens": found.tokens}


def theirs(seed: int, folder: str) -> dict[str, float]:
    import torch
    import torch_gpt

    torch.set_num_threads(_common.THREADS)
    torch.manual_seed(seed)
    training, validation, vocab_size = shards(folder)
    c, settings = PLAN.model_for(vocab_size), PLAN.train
    model = torch_gpt.GPT(vocab_size, c.block_size, c.n_layer, c.n_head, c.d_model, bias=c.bias)
    optimizer = torch_gpt.adamw(
        model, settings.lr, (settings.beta1, settings.beta2), settings.weight_decay
    )
    batches = Batches(training, settings.batch_size, c.block_size, seed)
    turns = Turns(settings.steps)
    turns.begin()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        ids, targets = (torch.from_numpy(part.astype(np.int64)) for part in batches.batch(step))
        optimizer.zero_grad(set_to_none=True)
        model(ids, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        turns.made(step + 1)
    tokens = torch.from_numpy(validation.read(0, len(validation)).astype(np.int64))
    nats, T = 0.0, c.block_size
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, T):
            window = tokens[start : start + T + 1][None]
            nats += model(window[:, :-1], window[:, 1:]).item() * (window.shape[1] - 1)
    return {"loss": nats / (len(tokens) - 1), "tokens": len(tokens) - 1}


def side_by_side(runs: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Runs (whose, seed) in turns, each in its own process; the times of their turns with each."""
    changes = [f"--{name}={value}" for name, value in CHANGES.items()]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--serve", who, "--seeds", str(seed), *changes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for who, seed in runs
    ]  # fmt: skip
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(0, PLAN.train.steps, TURN):
        for process, turns in zip(processes, times, strict=True):
            turns.append(json.loads(answer(process, "go")))
    results = [json.loads(answer(process, "")) for process in processes]
    return [
        {"who": who, "seed": seed, "turns": turns, "seconds": sum(turns), **result}
        for (who, seed), turns, result in zip(runs, times, results, strict=True)
    ]


def answer(process: subprocess.Popen[str], word: str) -> str:
    """What a run says next, after `word` where there is one."""
    if word:
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a run has ended early; what it said stands above")
    return line


# ---------------------------------------------------------------------------------- the table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--serve", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(WORDS)
    if arguments.serve:
        with tempfile.TemporaryDirectory() as folder:
            run = ours if arguments.serve == "ours" else theirs
            print(json.dumps(run(arguments.seeds[0], folder)))
        return
    if not arguments.no_peer and not PLAN.model.tie_weights:
        raise SystemExit("the peer's head is tied to its embedding; compare with --no-peer")
    text()  # before anything is started
    _common.start(*([] if arguments.no_peer else ["torch"]))
    title = f"{PLAN.train.steps} updates, {TOKENS} characters each"
    _common.table(title, "seconds", "loss", "characters/s")
    first, *others = [("ours", seed) for seed in arguments.seeds]
    groups = [[first] if arguments.no_peer else [first, ("theirs", first[1])]]
    results = []
    for group in [*groups, *([run] for run in others)]:
        for result in side_by_side(group):
            results.append(result)
            name = "minillm" if result["who"] == "ours" else "PyTorch"
            speed = PLAN.train.steps * TOKENS / result["seconds"]
            _common.row(
                f"{name}, seed {result['seed']}", result["seconds"], f"{result['loss']:.4f}", speed
            )
    worst = max(result["loss"] for result in results if result["who"] == "ours")
    print(
        f"\nlargest validation loss of all seeds {worst:.4f}, wanted at most {WANTED_LOSS}:"
        f" {'yes' if worst <= WANTED_LOSS else 'NO'}"
    )
    if not arguments.no_peer:
        ratios = [theirs / ours for ours, theirs in zip(*(r["turns"] for r in results[:2]))]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"turns of {TURN} updates: {middle:.2f} times as fast, quartiles {low:.2f} {high:.2f}")
        wanted = 1.9 if PLAN.train.precision == "float32" else 2.6
        whole = results[1]["seconds"] / results[0]["seconds"]
        _common.verdict("speed relative to PyTorch in float32", whole, wanted)
        model = PLAN.model_for(len(set(text())))
        flops = tiles.step_flops(model.n_layer, model.d_model, model.vocab_size, TOKENS)
        tiles.report(
            PLAN.train.precision, PLAN.train.steps * flops, results[1]["seconds"], "all updates"
        )


if __name__ == "__main__":
    main()
