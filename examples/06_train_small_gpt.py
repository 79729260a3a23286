"""Training a small GPT: what one step does, then a whole run that can be stopped and resumed.

    python examples/06_train_small_gpt.py

The text is Python's own documentation, which every Python brings along. The model reads characters
and learns to guess the next one; a minute is enough for it to find out about words.
"""

import math
import tempfile
from pathlib import Path

import numpy as np

from minillm import backend
from minillm.data.batches import Batches
from minillm.data.python_docs import collect, documents
from minillm.data.shards import TokenDataset, write_tokens
from minillm.inference.generate import generate
from minillm.models.gpt import GPT, GPTConfig
from minillm.tokenizer import CharTokenizer
from minillm.training.checkpoint import RunFolder, load_run
from minillm.training.config import TrainConfig
from minillm.training.loop import train
from minillm.training.metrics import token_lengths
from minillm.training.optimizer import AdamW, clip_scale, global_norm
from minillm.training.schedule import learning_rate
from minillm.training.step import accumulate

BLOCK = 64  # characters that the model sees at once
folder = Path(tempfile.mkdtemp())

# ------------------------------------------------------------------ text, tokens, batches

text = "\n".join(document.text for document in documents(collect()))[:300_000]
text = "".join(letter if letter.isascii() else "?" for letter in text)
tokenizer = CharTokenizer.train(text)
ids = tokenizer.encode_array(text)
cut = int(0.9 * len(ids))  # the last tenth is never trained on
write_tokens(folder / "data", "train", ids[:cut], tokenizer.vocab_size)
write_tokens(folder / "data", "validation", ids[cut:], tokenizer.vocab_size)
training = TokenDataset(folder / "data", "train")
validation = TokenDataset(folder / "data", "validation")
print(f"{len(training):,} characters to train on, {len(validation):,} held out,"
      f" {tokenizer.vocab_size} different ones.\n")  # fmt: skip

batches = Batches(training, batch_size=16, block_size=BLOCK, seed=0)
inputs, targets = batches.batch(0)  # (16, 64) each
print("A row of a batch, and what should be guessed at each of its positions:")
print(f"  ids     {inputs[0, :12]}  {tokenizer.decode(inputs[0, :12])!r}")
print(f"  targets {targets[0, :12]}  {tokenizer.decode(targets[0, :12])!r}\n")
assert np.array_equal(inputs[:, 1:], targets[:, :-1])  # the same text, one further

# ------------------------------------------------------------------ one step by hand

shape = GPTConfig(tokenizer.vocab_size, BLOCK, n_layer=2, n_head=4, d_model=64)
config = TrainConfig(
    steps=400, batch_size=16, lr=4e-3, min_lr=4e-4, warmup=20, beta2=0.99, eval_every=200,
    save_every=100,
)  # fmt: skip
model = GPT(shape, np.random.default_rng(0)).train()
print(f"The model has {model.num_parameters():,} parameters and guesses blindly: its loss is about"
      f" log({tokenizer.vocab_size}) = {math.log(tokenizer.vocab_size):.3f}.")  # fmt: skip
optimizer = AdamW(model.named_parameters(), weight_decay=config.weight_decay)
for step in range(3):
    batch = batches.batch(step)
    optimizer.zero_grad()
    loss = accumulate(model, batch)  # forward and backward: the gradients are there now
    norm = global_norm(model.parameters())
    lr = learning_rate(step, config)  # still warming up
    optimizer.step(lr, grad_scale=clip_scale(norm, config.clip))
    print(f"  step {step}: loss {loss:.4f}, gradient norm {norm:.3f}, learning rate {lr:.5f}")
    assert abs(loss - math.log(tokenizer.vocab_size)) < 0.3

pieces = GPT(shape, np.random.default_rng(0)).train()
whole = GPT(shape, np.random.default_rng(0)).train()
accumulate(whole, batch)
accumulate(pieces, batch, rows=4)  # a quarter of the batch in memory at a time
off = max(np.abs(p.grad - q.grad).max() for p, q in zip(whole.parameters(), pieces.parameters()))
print(f"  The batch in four pieces gives the same gradient, up to {off:.0e}.\n")
assert off < 1e-5

print("The same with products of bfloat16 numbers, with activations in float32 and in bfloat16:")
exact = np.concatenate([p.grad.ravel() for p in whole.parameters()])
for kept in ("float32", "bfloat16"):  # a recipe or a flag sets these two: train.precision, ..
    with backend.precision("bfloat16", activations=kept):
        whole.zero_grad()
        accumulate(whole, batch)
    rough = np.concatenate([p.grad.ravel() for p in whole.parameters()])
    off = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    need = whole.memory_estimate(16, activations=kept).activations / 2**20
    print(f"  {kept}: the gradient is off by {off:.2%} of its length; {need:.1f} MiB are kept")
    assert 0 < off < 2**-7
print()

# ------------------------------------------------------------------ a run


def run(name: str, steps: int):
    """Train in a run folder up to `steps`, going on from the last checkpoint there is."""
    place = RunFolder(folder / name)
    fresh = GPT(shape, np.random.default_rng(0))
    until = TrainConfig(**{**vars(config), "steps": steps, "decay_steps": config.steps - 1})
    with place.writing():
        if not place.exists():
            place.begin({"data": {"path": str(folder / "data")}})
            tokenizer.save(place.tokenizer_file)
        return fresh, train(fresh, batches, until, run=place, validation=validation,
                            lengths=token_lengths(tokenizer))  # fmt: skip


print("Now the loop, which also evaluates, measures and saves:")
model, result = run("straight", config.steps)
assert result.validation.loss < 2.6  # blind guessing had 4.55

print("\nThe same run, stopped half-way and resumed from what is on the disk:")
run("stopped", 200)
resumed, _ = run("stopped", config.steps)
for (name, weight), other in zip(model.named_parameters(), resumed.parameters()):
    assert np.array_equal(weight.numpy(), other.numpy()), name
print("Every weight has the same bits.\n")

# ------------------------------------------------------------------ what it has learned

model, tokenizer, info = load_run(folder / "straight")  # what every command starts from
prompt = "The function"
written = generate(model, [tokenizer.encode(prompt)], 150, seed=1)[0]
print(f"From {info.checkpoint.path.name}, after {prompt!r}:\n{prompt}{tokenizer.decode(written)}")
assert len(written) == 150
