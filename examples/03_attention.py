"""Attention: first a few lines of NumPy, then why it is masked, then why it can be fast.

Run it:   python examples/03_attention.py
"""

import time

import numpy as np

from minillm.kernels import attention

np.set_printoptions(precision=2, suppress=True, linewidth=100)
rng = np.random.default_rng(0)

# ------------------------------------------------------------------------------------------
print("1. A dictionary with soft edges.")
# Looking up in a dictionary compares a query with every key and takes the value of the one that is
# equal. Attention compares by inner product and takes every value, weighted by its key's fit.
keys = np.array([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0]])  # east, north, west
values = np.array([[1.0], [2.0], [3.0]])


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


for name, query in (("north", [0.0, 2.0]), ("north-east", [2.0, 2.0]), ("nowhere", [0.0, 0.0])):
    weights = softmax(np.array(query) @ keys.T)
    print(f"   {name:10}  weights {weights}  answer {weights @ values}")
assert abs(softmax(np.array([0.0, 2.0]) @ keys.T) @ values - 2) < 0.01

# ------------------------------------------------------------------------------------------
print("2. Why scores are divided by sqrt(D).")
# An inner product of D random numbers has variance D. Large scores make a softmax that puts
# everything on one key, whose gradient p (1 - p) is zero: nothing would be learned.
for D in (4, 64, 1024):
    scores = rng.standard_normal((500, D)) @ rng.standard_normal((50, D)).T
    raw, scaled = (softmax(s).max(axis=-1).mean() for s in (scores, scores / np.sqrt(D)))
    print(
        f"   D {D:4}: standard deviation {scores.std():5.1f};"
        f" largest weight {raw:.2f}, {scaled:.2f} scaled"
    )
assert raw > 0.9 and scaled < 0.2

# ------------------------------------------------------------------------------------------
print("3. Why there is a causal mask.")
# A model learns from a text by guessing token t + 1 at every position t, all at once. Here position
# t asks for position t + 1, and the values are the tokens. Without a mask it "guesses" everything.
text = list("attention")
T = len(text)
places = 8 * np.eye(T)
q, k, v = np.roll(places, -1, axis=0), places, np.eye(T)  # q[t] is the place t + 1
cheating = softmax(q @ k.T)
masked = softmax(np.where(np.tri(T, dtype=bool), q @ k.T, -np.inf))  # key j <= query i only
print("   open:   after", *text[:-1], "comes", *(text[row.argmax()] for row in cheating[:-1] @ v))
ahead = masked[np.arange(T - 1), np.arange(1, T)]  # how much t sees of t + 1
print(f"   masked: the next token's weight is {ahead.max():.0f};"
      " the model has to know it")  # fmt: skip
assert all(cheating[t].argmax() == t + 1 for t in range(T - 1))
assert np.all(np.triu(masked, 1) == 0)
# So what a row holds never depends on what comes later, and a text can be continued without
# computing its beginning again (that is the key/value cache).

# ------------------------------------------------------------------------------------------
print("4. All of it, forward and backward, in plain NumPy.")


def attend(q, k, v):
    scores = q @ k.T / np.sqrt(q.shape[-1])  # (T, T)
    p = softmax(np.where(np.tri(len(q), dtype=bool), scores, -np.inf))
    return p @ v, p


def attend_backward(dout, q, k, v, p):
    dv = p.T @ dout
    dp = dout @ v.T
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, dv


q, k, v, dout = rng.standard_normal((4, 12, 8))
out, p = attend(q, k, v)
gradients = attend_backward(dout, q, k, v, p)
step = 1e-6 * rng.standard_normal(q.shape)  # a step of q, and what it does to the loss
slope = ((attend(q + step, k, v)[0] - attend(q - step, k, v)[0]) * dout).sum() / 2
print(f"   a step of q: measured {slope:.6e}, from the gradient {(gradients[0] * step).sum():.6e}")
assert abs(slope - (gradients[0] * step).sum()) < 1e-6 * abs(slope)

# ------------------------------------------------------------------------------------------
print("5. Online softmax: the same answer without ever seeing all scores at once.")
# Go through the keys in blocks and keep the largest score, the sum of exponentials and the weighted
# values so far. When the largest score grows, what was summed is shrunk by exp(old - new).


def attend_in_blocks(query, k, v, block=4):
    top, total, sums = -np.inf, 0.0, np.zeros(v.shape[1])
    for j in range(0, len(k), block):
        scores = k[j : j + block] @ query / np.sqrt(len(query))
        new_top = max(top, scores.max())
        shrink, weights = np.exp(top - new_top), np.exp(scores - new_top)
        total = total * shrink + weights.sum()
        sums = sums * shrink + weights @ v[j : j + block]
        top = new_top
        print(f"   keys {j:2} to {j + block - 1:2}: largest {top:5.2f}, sum {total:5.2f}")
    return sums / total


difference = abs(attend_in_blocks(q[-1], k, v) - out[-1]).max()
print(f"   against the whole row: {difference:.0e}")
assert difference < 1e-14

# ------------------------------------------------------------------------------------------
print("6. The kernel does this for 64 queries and 64 keys at a time.")
# kernels/attention_tiles.py: tiles in registers and cache, blocks under the mask never visited.
B, H, T, D = 1, 4, 2048, 64
q, k, v, dout = rng.standard_normal((4, B, H, T, D), dtype=np.float32)
first, last = attention.visible_keys(T, T)  # key j with first[i] <= j <= last[i], here 0..i
masks = (first, last, D**-0.5)


def run(forward, backward):
    began = time.perf_counter()
    out, lse = forward(q, k, v, *masks)
    result = (out, *backward(dout, q, k, v, out, lse, *masks))
    return result, time.perf_counter() - began


print("   compiling, the first time on this machine ...", flush=True)
run(attention.forward_fast, attention.backward_fast)
plain, plain_seconds = run(attention.forward_reference, attention.backward_reference)
fast, fast_seconds = run(attention.forward_fast, attention.backward_fast)
worst = max(abs(a - b).max() for a, b in zip(plain, fast, strict=True))
print(f"   {T} tokens, {H} heads, forward and backward")
print(
    f"   NumPy, whole matrix {plain_seconds:6.3f} s, {4 * H * T * T >> 20} MiB for the scores alone"
)
print(f"   in tiles            {fast_seconds:6.3f} s, {64 * 64 * 4 >> 10} KiB for a tile's scores")
print(f"   largest difference {worst:.0e}")
assert worst < 1e-4

print("All of it holds.")
