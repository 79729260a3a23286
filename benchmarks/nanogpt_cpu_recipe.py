"""nanoGPT's CPU recipe on tinyshakespeare: time and validation loss, ours against PyTorch.

    MINILLM_DATA=folder python benchmarks/nanogpt_cpu_recipe.py     # three seeds, and the peer
    MINILLM_DATA=folder python benchmarks/nanogpt_cpu_recipe.py --seeds 0 --no-peer
    ... --train.lr 1e-3                                             # any setting may be changed

A character-level GPT of 4 layers, 4 heads and 128 channels, context 64, batch 12, 2001 updates, no
dropout, the first 90 % of the text for training: the recipe `shakespeare-cpu`, for both sides. Its
learning rate is 3e-3; nanoGPT's is 1e-3. `folder` holds tinyshakespeare.txt at any depth.

Both sides are scored on the whole of the last 10 %, in windows that do not overlap; nanoGPT itself
scores a random sample of it. The time is that of the 2001 updates, without evaluation; kernels that
are not in the cache yet are compiled before it starts. Every run has a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _common
import numpy as np

from minillm.cli.settings import find_recipe, read_recipe, split_flags
from minillm.cli.train import Plan
from minillm.data.batches import Batches
from minillm.data.shards import TokenDataset, write_tokens
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.tokenizer import CharTokenizer
from minillm.training.loop import train
from minillm.training.metrics import split_losses, total
from minillm.training.schedule import learning_rate

WANTED_LOSS = 1.90
WORDS, CHANGES = split_flags(sys.argv[1:])
PLAN = Plan.read(read_recipe(find_recipe("shakespeare-cpu")) | CHANGES)


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


def ours(seed: int, folder: str) -> dict[str, float]:
    training, validation, vocab_size = shards(folder)
    config, settings = PLAN.model_for(vocab_size), PLAN.train

    def made(steps: int) -> tuple[LanguageModel, float]:
        model = registry.build(config, np.random.default_rng(seed))
        plan = dataclasses.replace(settings, steps=steps, seed=seed, eval_every=0, save_every=0)
        batches = Batches(training, settings.batch_size, config.block_size, seed)
        begun = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            train(model, batches, plan)
        return model, time.perf_counter() - begun

    made(3)  # compiles, or loads what is compiled
    model, seconds = made(settings.steps)
    found = total(split_losses(model, validation, config.block_size))
    return {"seconds": seconds, "loss": found.loss, "tokens": found.tokens}


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
    begun = time.perf_counter()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        ids, targets = (torch.from_numpy(part.astype(np.int64)) for part in batches.batch(step))
        optimizer.zero_grad(set_to_none=True)
        model(ids, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
    seconds = time.perf_counter() - begun
    tokens = torch.from_numpy(validation.read(0, len(validation)).astype(np.int64))
    nats, T = 0.0, c.block_size
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, T):
            window = tokens[start : start + T + 1][None]
            nats += model(window[:, :-1], window[:, 1:]).item() * (window.shape[1] - 1)
    return {"seconds": seconds, "loss": nats / (len(tokens) - 1), "tokens": len(tokens) - 1}


def in_a_process(who: str, seed: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--serve", who, "--seeds", str(seed)]
    command += [f"--{name}={value}" for name, value in CHANGES.items()]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


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
    _common.table("2001 updates, 768 characters each", "seconds", "loss", "characters/s")
    found: dict[str, list[dict[str, float]]] = {}
    for who in ("ours",) if arguments.no_peer else ("ours", "theirs"):
        for seed in arguments.seeds if who == "ours" else arguments.seeds[:1]:
            result = in_a_process(who, seed)
            found.setdefault(who, []).append(result)
            name = "minillm" if who == "ours" else "PyTorch"
            speed = PLAN.train.steps * 768 / result["seconds"]
            _common.row(f"{name}, seed {seed}", result["seconds"], f"{result['loss']:.4f}", speed)
    worst = max(result["loss"] for result in found["ours"])
    print(
        f"\nlargest validation loss of all seeds {worst:.4f}, wanted at most {WANTED_LOSS}:"
        f" {'yes' if worst <= WANTED_LOSS else 'NO'}"
    )
    if "theirs" in found:
        median = float(np.median([result["seconds"] for result in found["ours"]]))
        _common.verdict("speed relative to PyTorch", found["theirs"][0]["seconds"] / median, 1.0)


if __name__ == "__main__":
    main()
