"""Kernels compiled ahead by a second process: when one is started, what it does, when it ends."""

import dataclasses
import os
import subprocess
import sys

import pytest

from minillm import backend, jit
from minillm.cli import ahead
from minillm.models.gpt import GPTConfig
from minillm.models.llama import LlamaConfig
from minillm.training.config import TrainConfig

GPT = GPTConfig(vocab_size=1, block_size=8, n_layer=2, n_head=2, d_model=16)
LLAMA = LlamaConfig(
    vocab_size=1, block_size=8, n_layer=2, n_head=2, n_kv_head=1, d_model=16, d_ff=32
)  # fmt: skip


@pytest.fixture
def started(monkeypatch):
    """The commands of the processes that are started; each of them sleeps instead."""
    commands, real = [], subprocess.Popen

    def start(command, **options):
        commands.append(command)
        return real([sys.executable, "-c", "import time; time.sleep(60)"], **options)

    monkeypatch.setattr(ahead.subprocess, "Popen", start)
    monkeypatch.setattr(jit, "is_missing_on_disk", lambda kernel: True)
    monkeypatch.setattr(backend, "cores", lambda: 2)
    return commands


def test_the_process_gets_the_whole_configuration(started, monkeypatch):
    train = TrainConfig(precision="bfloat16", batch_size=3)
    with backend.use("numba"), ahead.compiled_ahead(LLAMA, train, print):
        pass
    [(_, _, module, wanted)] = started
    assert module == "minillm.cli.ahead"
    made = []
    monkeypatch.setattr(ahead, "step_once", lambda *configs: made.append(configs))
    monkeypatch.setattr(sys, "argv", [module, wanted])
    ahead.main()
    assert made == [(LLAMA, train)]


def test_the_process_ends_with_the_block(started):
    with backend.use("numba"), ahead.compiled_ahead(GPT, TrainConfig(), print) as kernels:
        assert kernels.process.poll() is None
    assert kernels.process.poll() is not None


def test_waiting_tells_what_for(started, monkeypatch):
    told = []
    with backend.use("numba"), ahead.compiled_ahead(GPT, TrainConfig(), told.append) as kernels:
        kernels.process.kill()
        monkeypatch.setattr(kernels.process, "poll", lambda: None)
        kernels.wait()
        kernels.wait()
    assert told == ["the kernels of a step"] * 2


@pytest.mark.parametrize("why", ["on disk", "one core", "numpy"])
def test_no_process_where_it_would_not_help(started, monkeypatch, why):
    if why == "on disk":
        monkeypatch.setattr(jit, "is_missing_on_disk", lambda kernel: kernel is None)
    if why == "one core":
        monkeypatch.setattr(backend, "cores", lambda: 1)
    used = backend.use("numpy" if why == "numpy" else "numba")
    with used, ahead.compiled_ahead(GPT, TrainConfig(), print) as kernels:
        kernels.wait()
    assert started == []


@pytest.mark.slow
@pytest.mark.skipif(jit.disabled(), reason="nothing is compiled")
@pytest.mark.parametrize("config", [GPT, LLAMA])
def test_a_run_finds_all_kernels_of_a_step_on_disk_afterwards(config, tmp_path):
    """It has other layers, rows and dtypes of ids than the small model, and evaluates."""
    script = f"""
import dataclasses
import numpy as np
from minillm import jit
from minillm.cli import ahead
from minillm.kernels import adamw
from minillm.models import registry
from minillm.models.{"gpt" if config is GPT else "llama"} import {type(config).__name__}
from minillm.training.config import TrainConfig
from minillm.training.metrics import text_loss
from minillm.training.optimizer import AdamW
from minillm.training.step import update

config, train, compiled = {dataclasses.replace(config, block_size=96)!r}, TrainConfig(), []
jit.on_compile = lambda name, kept: compiled.append(name)
if jit.is_missing_on_disk(adamw.update_parts):
    ahead.step_once(config, train)
    print("ahead")
else:
    config = dataclasses.replace(config, vocab_size=300, n_layer=3)
    model = registry.build(config, np.random.default_rng(0)).train()
    ids = np.zeros((32, 96), np.int32)
    optimizer = AdamW(model.named_parameters(), 1e-3, (0.9, 0.95), 1e-8, 0.1)
    update(model, optimizer, (ids, ids), 0, train)
    text_loss(model, ids, ids)
print(compiled)
"""
    cache = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "MINILLM_BACKEND": "numba"}
    ahead_of_it, it = (
        subprocess.run(
            [sys.executable, "-c", script], env=cache, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    )
    assert ahead_of_it.stdout.startswith("ahead\n['")
    assert it.stdout == "[]\n"


@pytest.mark.parametrize("config", [GPT, LLAMA])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_changes_the_weights_of_one_layer(config, precision, monkeypatch):
    made, build = [], ahead.registry.build
    monkeypatch.setattr(
        ahead.registry, "build", lambda *given: made.append(build(*given)) or made[-1]
    )
    ahead.step_once(config, TrainConfig(precision=precision))
    [model] = made
    assert len(model.blocks) == 1
    assert all(weight.grad is not None for _, weight in model.named_parameters())
