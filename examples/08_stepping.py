"""Stepping in a debugger: stop inside the formulas, look at the numbers, walk on.

Run it:            python examples/08_stepping.py

Nothing here is a picture of the code: it is the code that trains, under two settings.

    MINILLM_BACKEND=numpy     every kernel is its reference, a few lines of array code
    NUMBA_DISABLE_JIT=1       nothing is compiled, so a debugger can enter everything, also the
                              fast twins (leave the first setting out to step through those)

With them set, any debugger works: a breakpoint in your editor, `breakpoint()` in a line, or pdb.
This script plays a session of pdb by itself, so that you can see one before you start your own:

    MINILLM_BACKEND=numpy NUMBA_DISABLE_JIT=1 python -m pdb examples/08_stepping.py
"""

import io
import os
import pdb  # noqa: T100 - what this is about

os.environ["MINILLM_BACKEND"] = "numpy"  # before minillm is imported
os.environ["NUMBA_DISABLE_JIT"] = "1"

import numpy as np

from minillm import backend
from minillm.autograd import Tensor, engine  # noqa: F401 - a breakpoint names it
from minillm.autograd import functional as F
from minillm.kernels import softmax  # noqa: F401 - and this


def step() -> Tensor:
    """Three scores become probabilities; how surprised are they that the answer is the second?"""
    scores = Tensor(np.array([[1.0, 2.0, 4.0]]), requires_grad=True)
    probabilities = F.softmax(scores)
    loss = -(probabilities[0, 1].log())
    loss.backward()
    return scores


def session(*commands: str) -> str:
    """What pdb shows while `step` runs under these commands, which are printed with it."""
    shown = io.StringIO()
    debugger = pdb.Pdb(stdin=io.StringIO("\n".join(commands) + "\n"), stdout=shown, nosigint=True)
    debugger.use_rawinput = False
    debugger.runcall(step)
    transcript = shown.getvalue()
    for command in commands:  # a terminal would show what is typed
        transcript = transcript.replace("(Pdb) ", f"(pdb) {command}\n", 1)
    print("   | " + transcript.replace("\n", "\n   | ").rstrip(" |\n"))
    return transcript


# ------------------------------------------------------------------------------------------
print("1. The backend is NumPy: a call of F.softmax ends in kernels/softmax.py, forward_reference.")
assert backend.name() == "numpy"

# ------------------------------------------------------------------------------------------
print("2. Stop in the forward pass: `tbreak` once, `a` arguments, `next` one line, `p` print.")
forward = session(
    "tbreak softmax.forward_reference",
    "continue",
    "a",
    "next",
    "next",
    "next",
    "p exponentials",
    "continue",
)
assert "x = array([[1., 2., 4.]])" in forward
assert "exponentials" in forward
assert "1.        " in forward  # the largest score, less itself, has exponential 1

# ------------------------------------------------------------------------------------------
print("3. Stop in the backward pass, on the way from loss.backward(). `w` shows that way.")
backward = session(
    "tbreak softmax.backward_reference",
    "continue",
    "a",
    "p y * (dout - (dout * y).sum())",
    "w",
    "continue",
)
for place in ("loss.backward()", "tensor.py", "engine.py", "functional.py", "softmax.py"):
    assert place in backward, place

# ------------------------------------------------------------------------------------------
print("4. What was shown is right: the gradient of -log p[1] by the scores is p - (0, 1, 0).")
scores = step()
probabilities = np.exp([1.0, 2.0, 4.0]) / np.exp([1.0, 2.0, 4.0]).sum()
by_hand = probabilities - np.array([0.0, 1.0, 0.0])
print(f"   by hand {by_hand}, by the tape {scores.grad[0]}")
assert np.allclose(scores.grad[0], by_hand)

# ------------------------------------------------------------------------------------------
print("5. Follow the walk back instead: stop wherever the engine hands a gradient on.")
names = session(
    "break engine._send",
    *["continue", "p 'backward of', op"] * 4,
    "continue",
)
order = [line.split("'")[-2] for line in names.splitlines() if line.startswith("('backward of'")]
print("   in this order:", " -> ".join(order))
assert order == ["neg", "log", "getitem", "softmax"], order
