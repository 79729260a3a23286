"""Kernels compiled ahead: on a machine's first run, by a second process while the first reads text.

Compiling a step's kernels takes half a minute of one core, and preparing text with its own kernels
some time more. Neither waits for the other, but one process compiles one kernel at a time. So

    with compiled_ahead(model_config, train_config, report.compiling) as kernels:
        prepare(...)
        kernels.wait()
        train(...)

starts a process that makes one step of such a model with one layer on random tokens. It leaves its
kernels in the cache on disk (`jit.py`), where the first finds them. Where some stand there already,
where nothing is compiled or there is only one core, no process is started; and if it fails, the
first compiles what it misses, as it would have anyhow.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from minillm import backend, jit
from minillm.kernels import adamw
from minillm.models import registry
from minillm.models.registry import Config
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.peak import peak
from minillm.training.step import update

VOCABULARY = 64  # of the small model; no kernel depends on it
ROWS = 2


class Kernels:
    """Kernels that are being compiled by `process`, if there is one."""

    def __init__(
        self, process: subprocess.Popen[str] | None, compiling: Callable[[str], None]
    ) -> None:
        self.process, self.compiling = process, compiling

    def wait(self) -> None:
        """Wait until they are on disk."""
        if self.process is not None and self.process.poll() is None:
            self.compiling("the kernels of a step")
            self.process.wait()


@contextmanager
def compiled_ahead(
    model: Config, train: TrainConfig, compiling: Callable[[str], None]
) -> Iterator[Kernels]:
    """Have the kernels that training `model` needs compiled meanwhile, in a process of its own.

    The process ends with the block, whatever it has reached. `compiling` is told what is waited
    for.
    """
    of_a_step = adamw.update_parts
    if backend.name() != "numba" or backend.cores() < 2 or not jit.is_missing_on_disk(of_a_step):
        yield Kernels(None, compiling)
        return
    wanted = {"model": registry.config_to_dict(model), "train": dataclasses.asdict(train)}
    nowhere = subprocess.DEVNULL
    command = [sys.executable, "-m", __name__, json.dumps(wanted)]
    process = subprocess.Popen(command, text=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        yield Kernels(process, compiling)
    finally:
        process.kill()
        process.wait()


def step_once(config: Config, train: TrainConfig) -> None:
    """Measure the peak and make one step of a small model of this kind."""
    peak(train.precision)
    small = dataclasses.replace(config, vocab_size=VOCABULARY, n_layer=1)
    rng = np.random.default_rng(0)
    model = registry.build(small, rng)
    ids = rng.integers(0, VOCABULARY, (ROWS, small.block_size + 1))
    betas = (train.beta1, train.beta2)
    optimizer = AdamW(model.named_parameters(), train.lr, betas, train.eps, train.weight_decay)
    model.train()
    update(model, optimizer, (ids[:, :-1], ids[:, 1:]), 0, train)


def main() -> None:
    """The second process: what it is to compile stands in its argument, as JSON."""
    wanted = json.loads(sys.argv[1])
    step_once(registry.config_from_dict(wanted["model"]), TrainConfig(**wanted["train"]))


if __name__ == "__main__":
    main()
