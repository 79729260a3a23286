"""One GPT block, step by step: every number on the way from five characters to a prediction.

    python examples/05_gpt_block.py

The model is the real one, minillm/models/gpt.py, so small that its arrays can be read. Each step is
done here once more in plain NumPy, and at the end both must agree.
"""

import numpy as np

from minillm.autograd import grad
from minillm.models.gpt import GPT, GPTConfig

np.set_printoptions(precision=2, suppress=True, linewidth=100)

TEXT = "hello"
LETTERS = sorted(set(TEXT))  # the vocabulary: e h l o
ids = np.array([[LETTERS.index(letter) for letter in TEXT]])  # (B, T) = (1, 5)

config = GPTConfig(vocab_size=4, block_size=8, n_layer=1, n_head=2, d_model=8, activation="relu")
model = GPT(config, np.random.default_rng(1), dtype=np.float64)
for parameter in model.parameters():  # real models start small; here the numbers should be visible
    if parameter.ndim == 2:
        parameter.array *= 25
weights = model.state_dict()
B, T, C, H, D = 1, 5, 8, 2, 4
print(f"{TEXT!r} is ids {ids[0]} in the vocabulary {LETTERS}; the model has"
      f" {model.num_parameters()} parameters.\n")  # fmt: skip


def show(title, array, note):
    print(f"{title}   {array.shape}\n  {note}\n{array}\n")


def layer_norm(x, name):
    """Every vector on its own: minus its mean, over its standard deviation."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


# ------------------------------------------------------------------------------- into the model

tokens = weights["token_embedding.weight"][ids]  # (1, 5, 8)
positions = weights["position_embedding.weight"][:T]  # (5, 8)
x = tokens + positions  # (1, 5, 8)
show("1. embeddings", x[0], "one vector for each letter, plus one for where it stands")
assert np.array_equal(tokens[0, 2], tokens[0, 3]) and not np.array_equal(x[0, 2], x[0, 3])
print("  The two l's are the same token, but after the sum they are no longer the same vector.\n")

# ------------------------------------------------------------------- attention: tokens that look

normed = layer_norm(x, "blocks.0.norm1")
qkv = linear(normed, "blocks.0.attention.qkv")  # (1, 5, 24)
q, k, v = qkv.reshape(B, T, 3, H, D).transpose(2, 0, 3, 1, 4)  # (1, 2, 5, 4) each
show("2. queries of head 0", q[0, 0], "what each position looks for; keys and values look alike")

scores = q @ k.swapaxes(-1, -2) / np.sqrt(D)  # (1, 2, 5, 5)
scores = np.where(np.tril(np.ones((T, T), dtype=bool)), scores, -np.inf)
show("3. scores of head 0", scores[0, 0], "row i: how well each key fits query i; -inf: the future")

attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
attention /= attention.sum(axis=-1, keepdims=True)
show("4. attention of head 0", attention[0, 0], "the softmax of each row: shares that sum to 1")

heads = attention @ v  # (1, 2, 5, 4)
gathered = heads.swapaxes(1, 2).reshape(B, T, C)  # the heads side by side again
y = linear(gathered, "blocks.0.attention.out")
show("5. what attention adds", y[0], "the values, mixed by those shares, from both heads")
x1 = x + y  # the residual stream: nothing is replaced, only added to

# --------------------------------------------------------------------- the MLP: tokens that think

inside = np.maximum(linear(layer_norm(x1, "blocks.0.norm2"), "blocks.0.mlp.up"), 0)  # (1, 5, 32)
print(f"6. inside the MLP   {inside[0].shape}\n  four times as wide; the ReLU leaves"
      f" {np.mean(inside > 0):.0%} of it above zero\n")  # fmt: skip
x2 = x1 + linear(inside, "blocks.0.mlp.down")
show("7. the block's result", x2[0], "the same shape as in 1, so that blocks can be stacked")

# ------------------------------------------------------------------------------ out of the model

logits = layer_norm(x2, "norm") @ weights["token_embedding.weight"].T  # (1, 5, 4)
likely = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
show("8. predictions", likely[0], f"chances of {' '.join(LETTERS)} after each letter (untrained)")

targets = ids[:, 1:]  # the letter that does come next
by_hand = -np.log(likely[0, np.arange(T - 1), targets[0]]).mean()
print(f"9. loss: {by_hand:.4f}, the mean of -log of the chance of the letter that comes next;"
      f"\n   blind guessing would have {np.log(4):.4f}\n")  # fmt: skip

# ----------------------------------------------------------------- what the model says to all this

np.testing.assert_allclose(model(ids).numpy(), logits, rtol=1e-10)
assert abs(model.loss(ids[:, :-1], targets).item() - by_hand) < 1e-10
print("The model's own logits and loss are the same to ten digits.")

# The causal mask in one sentence: a prediction does not depend on anything that comes after it.
# Each letter stands at a position with a vector of its own, whose gradient is the letter's.
chance_of_o = model(ids)[0, 1, LETTERS.index("o")]
(slope,) = grad(chance_of_o, [model.position_embedding.weight])  # (8, 8): position, channel
reach = np.abs(slope[:T]).sum(axis=-1)
print(f"How much the score of 'o' after 'he' depends on each of the five letters: {reach}")
assert (reach[:2] > 0).all() and (reach[2:] == 0).all()
print("Exactly zero from the third letter on: the future is invisible.")
