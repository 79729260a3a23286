"""A process may die at any moment: the folder stays readable, the run ends with the same bits."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from minillm.training.checkpoint import RunFolder, load_run
from minillm.training.optimizer import AdamW

from . import small

WATCHED = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")


def die_at(moment: int, work) -> bool:
    """Do `work` in a child that dies, as if killed, at its n-th file operation; whether it did."""
    child = os.fork()
    if child == 0:
        left = moment

        def count(event, arguments):
            nonlocal left
            if event in WATCHED:
                left -= 1
                if left == 0:
                    os._exit(9)

        sys.addaudithook(count)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_dying_at_any_file_operation_of_a_save_leaves_whole_checkpoints(tmp_path):
    model = small.model()
    optimizer = AdamW(model.named_parameters())
    run = RunFolder(tmp_path / "run")
    with run.writing():
        run.begin({})
        for step, loss in [(1, 1.0), (2, 3.0), (3, 2.0)]:  # saving 4 also deletes 2
            run.save(step, model, optimizer, loss, keep=2)

    def save():
        run.save(4, model, optimizer, 1.5, keep=2)

    seen, moment, died = set(), 0, True
    while died:
        moment += 1
        died = die_at(moment, save)
        steps = [found.step for found in run.checkpoints()]
        seen.add(tuple(steps))
        assert {1, 3} <= set(steps)
        for found in run.checkpoints():
            fresh = small.model(seed=9)
            found.load(fresh, AdamW(fresh.named_parameters()))
            assert small.bits(fresh) == small.bits(model)
        load_run(run.path)
        with run.writing():
            assert not list(run.path.glob("**/.*.tmp"))
    assert moment > 20
    assert seen >= {(1, 2, 3), (1, 3, 4)}
    assert [found.step for found in run.checkpoints()] == [1, 3, 4]


RECIPE = """
[tokenizer]
kind = "char"
[model]
block_size = 16
n_layer = 2
n_head = 2
d_model = 16
dropout = 0.1
[train]
steps = 120
batch_size = 4
warmup = 5
eval_every = 20
save_every = 3
sample_tokens = 20
"""


def command(folder, out):
    words = ["train", folder / "recipe.toml", "--out", out, "--resume"]
    words += ["--data.path", folder / "input.txt"]
    return [sys.executable, "-m", "minillm", *map(str, words)]


@pytest.mark.slow
def test_killed_twenty_times_ends_with_the_same_bits(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "input.txt").write_text("to be or not to be, that is the question\n" * 60)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    start = time.monotonic()
    subprocess.run(command(tmp_path, tmp_path / "whole"), check=True, **quiet)
    seconds = time.monotonic() - start
    whole, _, info = load_run(tmp_path / "whole", "last")
    assert info.checkpoint.step == 120

    chance, kills, round = random.Random(0), 0, 0
    while kills < 20:
        round += 1
        run = RunFolder(tmp_path / f"killed{round}")
        while run.last() is None or run.last().step < 120:
            process = subprocess.Popen(command(tmp_path, run.path), **quiet)
            try:
                process.wait(chance.uniform(0.0, seconds) if kills < 20 else None)
                assert process.returncode == 0, process.stderr.read()
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            process.stderr.close()
            if run.last() is not None:
                load_run(run.path, "last")
        ended, _, _ = load_run(run.path, "last")
        assert small.bits(ended) == small.bits(whole)
        for name in ("model.safetensors", "optimizer.safetensors"):
            paths = [place / "checkpoints" / "step-00000120" / name
                     for place in (tmp_path / "whole", run.path)]  # fmt: skip
            assert paths[0].read_bytes() == paths[1].read_bytes()
