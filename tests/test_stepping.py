"""A debugger can walk from `loss.backward()` into the mathematics: `pdb` is driven to show it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import numpy as np

import minillm.autograd.functional as F
from minillm.autograd import Tensor

x = Tensor(np.array([[1.0, 2.0, 4.0]]), requires_grad=True)
weight = Tensor(np.array([1.0, 1.0, 2.0]), requires_grad=True)
probabilities = F.softmax(F.rms_norm(x, weight))
loss = (probabilities * np.array([0.0, 1.0, 0.0])).sum()
loss.backward()
print("finished", x.grad.shape)
"""


def debug(tmp_path: Path, commands: list[str], **environment: str) -> str:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "pdb", str(program)],
        check=False,
        input="\n".join([*commands, "quit", ""]),
        env={
            **os.environ,
            "MINILLM_BACKEND": "numpy",
            "NUMBA_DISABLE_JIT": "1",
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_a_breakpoint_in_a_kernels_forward(tmp_path: Path) -> None:
    shown = debug(
        tmp_path,
        [
            "import minillm.kernels.softmax",
            "break minillm.kernels.softmax.forward_reference",
            "continue",
            "args",
            "next",
            "next",
            "next",
            "p exponentials.shape, float(exponentials.max())",
            "where",
        ],
    )
    assert "softmax.py" in shown
    assert "x = array([[" in shown, shown
    assert "((1, 3), 1.0)" in shown, shown
    assert "F.softmax(F.rms_norm(x, weight))" in shown


def test_a_breakpoint_in_a_kernels_backward_is_reached_from_loss_backward(tmp_path: Path) -> None:
    shown = debug(
        tmp_path,
        [
            "import minillm.kernels.softmax",
            "break minillm.kernels.softmax.backward_reference",
            "continue",
            "args",
            "p 'y sums to', float(y.sum())",
            "where",
            "continue",
        ],
    )
    assert "dout = array([[0., 1., 0.]])" in shown, shown
    assert "('y sums to', 1.0)" in shown, shown
    stack = shown[shown.index("loss.backward()") :]
    for step in ("tensor.py", "engine.py", "functional.py", "softmax.py"):
        assert step in stack, f"{step} is not on the way from loss.backward() to the kernel"
        stack = stack[stack.index(step) :]
    assert "finished (1, 3)" in shown


def test_the_walk_shows_which_operation_is_at_work(tmp_path: Path) -> None:
    shown = debug(
        tmp_path,
        [
            "import minillm.autograd.engine",
            "break minillm.autograd.engine._send",
            "commands 1",
            "silent",
            "p 'backward of', op",
            "continue",
            "end",
            "continue",
        ],
    )
    order = [line for line in shown.splitlines() if "backward of" in line]
    names = [line.split("'")[-2] for line in order]
    assert names == ["sum", "mul", "softmax", "rms_norm"], shown


@pytest.mark.parametrize("kernels", ["numba"])
def test_the_fast_twins_can_be_stepped_through_too(tmp_path: Path, kernels: str) -> None:
    """Under NUMBA_DISABLE_JIT=1 they are the plain loops that they look like."""
    shown = debug(
        tmp_path,
        [
            "import minillm.kernels.rms_norm",
            "break minillm.kernels.rms_norm.forward_fast",
            "continue",
            "args",
            "where",
            "continue",
        ],
        MINILLM_BACKEND=kernels,
    )
    assert "rms_norm.py" in shown
    assert "finished (1, 3)" in shown, shown
