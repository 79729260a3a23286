"""A gradient check: how to know that a derivative is right without trusting who derived it.

Run it:   python examples/02_gradient_check.py
"""

import numpy as np

import minillm.autograd.functional as F
from minillm.autograd import GradientError, Tensor, gradcheck
from minillm.autograd.tensor import record
from minillm.models.gpt import GPT, GPTConfig

rng = np.random.default_rng(0)

# ------------------------------------------------------------------------------------------
print("1. The definition of the derivative is a program.")
# Take a step h to both sides and divide the difference by 2h. The error of that is about h^2
# (the function is no parabola) plus 1e-16 / h (float64 keeps 16 digits, and subtracting two almost
# equal numbers loses most of them). Somewhere between lies the best h.
print("   the slope of sin at 1.3, and how wrong the difference is")
found64, found32 = [], []
for exponent in range(1, 12):
    for kind, found in ((np.float64, found64), (np.float32, found32)):
        x, step = kind(1.3), kind(10.0**-exponent)
        found.append(abs(float((np.sin(x + step) - np.sin(x - step)) / (2 * step)) - np.cos(1.3)))
    print(f"   h = 1e-{exponent:<2}   float64 {found64[-1]:.1e}   float32 {found32[-1]:.1e}")
print(f"   at best: {min(found64):.0e} and {min(found32):.0e}")
assert min(found64) < 1e-10 and min(found32) > 1e-6
# float32 could not tell a slip from rounding. That is why every kernel here does float64 too.

# ------------------------------------------------------------------------------------------
print("2. All coordinates at once.")
# A layer of 20 x 30 weights has 600 slopes, and 600 times two runs are slow. But a gradient g must
# give the slope along any direction u, and that slope is the number <g, u>. So draw one direction
# at random: if a single coordinate of g is wrong, the two numbers differ.
weight, inputs = rng.standard_normal((20, 30)), Tensor(rng.standard_normal((4, 30)))


def loss_of(matrix: Tensor) -> Tensor:
    return F.gelu(F.linear(inputs, matrix)).sum()


leaf = Tensor(weight, requires_grad=True)
loss_of(leaf).backward()
u = rng.standard_normal(weight.shape)
u /= np.sqrt((u * u).sum())  # of length one
h = 1e-5
ahead, behind = (loss_of(Tensor(weight + move * u)).item() for move in (h, -h))
measured, claimed = (ahead - behind) / (2 * h), (leaf.grad * u).sum()
print(f"   along u: measured {measured:.10f}, claimed {claimed:.10f}")
assert abs(measured - claimed) < 1e-8

# ------------------------------------------------------------------------------------------
print("3. `gradcheck` does this for every argument of a function.")
largest = gradcheck(
    lambda q, k, v: F.attention(q, k, v, window=3),
    [rng.standard_normal(shape) for shape in ((2, 4, 6, 8), (2, 2, 6, 8), (2, 2, 6, 8))],
)
print(f"   attention with a window and shared heads: largest relative difference {largest:.1e}")
assert largest < 1e-6

# ------------------------------------------------------------------------------------------
print("4. It says who is to blame.")
# Here is a softmax whose author forgot that every output depends on every input: the derivative
# of y_i by x_i is y_i (1 - y_i), but there are the other y_j too. Put into the middle of a network
# it spoils every gradient before it. The check moves the result of each operation on the way, from
# the end backwards, and stops at the first one whose incoming gradient is right and outgoing wrong.


def forgetful_softmax(scores: Tensor) -> Tensor:
    values = scores.array
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    y = exponentials / exponentials.sum(-1, keepdims=True)

    def backward(dout):
        return (dout * y * (1 - y),)  # right on the diagonal only

    return record("forgetful_softmax", y, (scores,), backward)


def network(values: Tensor, matrix: Tensor) -> Tensor:
    hidden = F.gelu(values @ matrix)
    return F.layer_norm(forgetful_softmax(hidden) @ matrix.T)


message = ""
try:
    gradcheck(network, [rng.standard_normal((3, 4)), rng.standard_normal((4, 5))])
except GradientError as problem:
    message = str(problem)
print("  ", message)
assert "backward of 'forgetful_softmax'" in message

# ------------------------------------------------------------------------------------------
print("5. A whole model: every parameter of a GPT, dropout and all.")
config = GPTConfig(vocab_size=17, block_size=8, n_layer=2, n_head=2, d_model=16, dropout=0.1)
model = GPT(config, rng)
ids = rng.integers(0, 17, (2, 9))
largest = gradcheck(model, (ids[:, :-1], ids[:, 1:]))
count = len(list(model.named_parameters()))
print(f"   {count} arrays of parameters, largest relative difference {largest:.1e}")
print("   On the command line: minillm gradcheck")

assert largest < 1e-5
assert all(parameter.dtype == np.float32 for parameter in model.parameters())  # as it was
print("All of it holds.")
