"""Autograd by hand: what `loss.backward()` does, first with paper and pencil, then with the tape.

Run it:            python examples/01_autograd.py
Step through it:   MINILLM_BACKEND=numpy NUMBA_DISABLE_JIT=1 python -m pdb examples/01_autograd.py
"""

import numpy as np

from minillm.autograd import Tensor, grad, no_grad
from minillm.autograd.tensor import record
from minillm.errors import GraphError

rng = np.random.default_rng(0)

# ------------------------------------------------------------------------------------------
print("1. One number.")
# L = (w x - y)^2 measures how far the guess w x is from y. The chain rule, from the outside in:
#     dL/d(error) = 2 error,     d(error)/dw = x,     so dL/dw = 2 error x
w, x, y = 3.0, 2.0, 10.0
error = w * x - y
by_hand = 2 * error * x

weight = Tensor(w, requires_grad=True)
loss = (weight * x - y) ** 2
loss.backward()
print(f"   dL/dw by hand {by_hand}, by the tape {weight.grad}")
assert weight.grad == by_hand

# ------------------------------------------------------------------------------------------
print("2. What the tape looks like.")
# Every result knows its `parents` and the `op` that made it. `backward` walks from the loss to the
# leaves; a node is visited when all that used it have been, so that its gradient is complete.
loss = (weight * x - y) ** 2
node, chain = loss, []
while node.parents:
    chain.append(node.op)
    node = node.parents[0]
print("  ", " <- ".join(chain), "<- weight")
assert chain == ["pow", "sub", "mul"]

# ------------------------------------------------------------------------------------------
print("3. A network of two layers, every gradient written out.")
#     h = tanh(X A)       p = h B       L = mean((p - t)^2)
# Going back, each line is the derivative of one line above. The rule for a matrix product
# (see kernels/matmul.py): for out = a @ b,  da = dout @ b^T  and  db = a^T @ dout.
X, T = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
A0, B0 = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))

h = np.tanh(X @ A0)  # (8, 4)
p = h @ B0  # (8, 2)
dp = 2 * (p - T) / p.size  # mean of squares
dB = h.T @ dp  # (4, 2)
dh = dp @ B0.T  # (8, 4)
dA = X.T @ (dh * (1 - h * h))  # tanh' = 1 - tanh^2

A, B = Tensor(A0, requires_grad=True), Tensor(B0, requires_grad=True)
loss = ((Tensor(X) @ A).tanh() @ B - T) ** 2
loss = loss.mean()
loss.backward()
largest = max(np.abs(A.grad - dA).max(), np.abs(B.grad - dB).max())
print(f"   largest difference between our derivation and the tape: {largest:.1e}")
assert largest < 1e-14

# ------------------------------------------------------------------------------------------
print("4. An operation of your own is a forward and a backward.")


def cube(a: Tensor) -> Tensor:
    values = a.array

    def backward(dout):  # what arrives is dL/d(out); what leaves is dL/da
        return (dout * 3 * values**2,)

    return record("cube", values**3, (a,), backward)


a = Tensor([1.0, -2.0], requires_grad=True)
cube(a).sum().backward()
print("   d(a^3) at 1 and -2:", a.grad)
assert a.grad.tolist() == [3.0, 12.0]

# ------------------------------------------------------------------------------------------
print("5. A value used twice collects both gradients, and broadcasting is undone by summing.")
row, table = Tensor([1.0, 2.0], requires_grad=True), Tensor(np.ones((3, 2)), requires_grad=True)
(table * row + row).sum().backward()
print("   d/d(row): three rows of table plus three times one =", row.grad)
assert row.grad.tolist() == [6.0, 6.0]

# ------------------------------------------------------------------------------------------
print("6. Wrong numbers are made hard.")
doubled = weight * weight
try:
    weight.data += 1.0  # the derivative 2w of w*w still needs the old w
except GraphError as problem:
    print("   changing what backward needs:", problem)
doubled.backward()
weight.data += 1.0  # now nobody needs it any more
try:
    doubled.backward()
except GraphError as problem:
    print("   a second backward:", str(problem).split(";")[0])

# ------------------------------------------------------------------------------------------
print("7. Learning: walk downhill.")
# A small network learns XOR, which no single layer can.
inputs = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
answers = np.array([[0.0], [1.0], [1.0], [0.0]])
layers = [
    Tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((2, 8), (8,), (8, 1), (1,))
]


def network(values: np.ndarray) -> Tensor:
    w1, b1, w2, b2 = layers
    return (Tensor(values) @ w1 + b1).tanh() @ w2 + b2


for step in range(400):
    loss = ((network(inputs) - answers) ** 2).mean()
    for parameter, gradient in zip(layers, grad(loss, layers), strict=True):
        parameter.data -= 0.2 * gradient
    if step % 100 == 0:
        print(f"   step {step:3d}  loss {loss.item():.1e}")
with no_grad():  # no notes are needed to look at the result
    guesses = network(inputs)
print("   0^0, 0^1, 1^0, 1^1 =", np.round(guesses.numpy().ravel(), 2))

assert not guesses.requires_grad
assert np.abs(guesses.numpy() - answers).max() < 0.1
print("All of it holds.")
