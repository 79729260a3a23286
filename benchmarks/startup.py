"""How long until a run makes its first step: with nothing compiled yet, and ever after.

    python benchmarks/startup.py [recipe ...]         # quickstart, shakespeare-cpu

`minillm train` is started as a user starts it, in a process of its own, on a text of this machine
(the topics of Python's `help`, 0.5 MB), first with an empty folder for compiled kernels, then with
the one that the first run left. The clock stops when the first step's figures stand in
`metrics.jsonl`. So the time holds everything: the start of Python, the tokenizer's training, the
encoding of the text, the model, and the compilation of all kernels on the way. The figures of the
first steps must be the same to the last bit whether their kernels were compiled or loaded.
"""

from __future__ import annotations

import argparse
import os
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _common

from minillm.cli import settings
from minillm.training.metrics import read_metrics

WANTED = {"cold": 40.0, "warm": 3.0}  # seconds
STEPS = 3
FLAGS = {"steps": STEPS, "warmup": 1, "eval-every": 0, "save-every": 0, "sample-tokens": 0}


def recipe_file(name: str, folder: Path) -> Path:
    """A shipped recipe without its lessons, which are not `minillm train`'s."""
    text = settings.find_recipe(name).read_text(encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(text.partition("[sft]")[0], encoding="utf-8")
    return path


def first_step(recipe: Path, text: Path, run: Path, cache: Path) -> tuple[float, list]:
    """Seconds from the start of the command to its first step, and the figures of all its steps."""
    command = [sys.executable, "-m", "minillm", "train", recipe, "--data.path", text, "--out", run]
    command += [word for name, value in FLAGS.items() for word in (f"--train.{name}", str(value))]
    begun, seconds, metrics = time.perf_counter(), 0.0, run / "metrics.jsonl"
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache), "MINILLM_THREADS": str(_common.THREADS)},
    )
    while process.poll() is None:
        if not seconds and metrics.exists() and metrics.stat().st_size:
            seconds = time.perf_counter() - begun
        time.sleep(0.002)
    if process.returncode or not seconds:
        raise SystemExit(f"the run ended with status {process.returncode}")
    return seconds, [(line["loss"], line["grad_norm"]) for line in read_metrics(metrics)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help="quickstart and shakespeare-cpu by default")
    names = parser.parse_args().recipes or ["quickstart", "shakespeare-cpu"]
    _common.start()
    _common.table("seconds to the first step", "cold", "warm", "kernels", "same bits")
    worst = dict.fromkeys(WANTED, 0.0)
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            text, cache = folder / "text.txt", folder / "cache"
            text.write_text("\n".join(pydoc_data.topics.topics.values()), encoding="utf-8")
            recipe = recipe_file(name, folder)
            cold, figures = first_step(recipe, text, folder / "cold", cache)
            compiled = len(list(cache.rglob("*.nbc")))
            runs = [first_step(recipe, text, folder / f"warm{i}", cache) for i in range(3)]
            warm = sorted(seconds for seconds, _ in runs)[1]
            same = all(again == figures for _, again in runs)
        _common.row(name, cold, warm, str(compiled), "yes" if same else "NO")
        worst = {"cold": max(worst["cold"], cold), "warm": max(worst["warm"], warm)}
    print()
    for state, seconds in worst.items():
        verdict = "yes" if seconds <= WANTED[state] else "NO"
        print(f"{state}: {seconds:.1f} s, wanted at most {WANTED[state]:.0f}: {verdict}")


if __name__ == "__main__":
    main()
