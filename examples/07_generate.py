"""Writing text: the cache, the sampling settings, seeds, streaming and stop strings.

    python examples/07_generate.py

A character-level GPT learns a tongue twister by heart, in a few seconds. Then it writes.
"""

import time

import numpy as np

from minillm.autograd import no_grad
from minillm.inference.generate import decode, generate, prefill, stream
from minillm.inference.sampling import SamplingConfig, keep_min_p, keep_top_k, keep_top_p, softmax
from minillm.models.gpt import GPT, GPTConfig
from minillm.tokenizer import CharTokenizer
from minillm.training.optimizer import AdamW

TEXT = (
    "Peter Piper picked a peck of pickled peppers.\n"
    "A peck of pickled peppers Peter Piper picked.\n"
    "If Peter Piper picked a peck of pickled peppers,\n"
    "where's the peck of pickled peppers Peter Piper picked?\n"
)

# ------------------------------------------------------------------------------ a model to ask

tokenizer = CharTokenizer.train(TEXT)
text = tokenizer.encode_array(TEXT * 2)  # so that the end leads to the beginning
rng = np.random.default_rng(0)
config = GPTConfig(tokenizer.vocab_size, block_size=64, n_layer=2, n_head=4, d_model=64)
model = GPT(config, rng)
optimizer = AdamW(model.named_parameters(), lr=3e-3)

print(f"Training {model.num_parameters():,} parameters on {len(TEXT)} characters.")
for step in range(200):
    starts = rng.integers(0, len(text) - 65, size=12)
    rows = np.stack([text[start : start + 65] for start in starts])  # (B, T + 1)
    loss = model.loss(rows[:, :-1], rows[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"  step {step:3}: loss {loss.item():.3f}")
print(f"  step {step:3}: loss {loss.item():.3f}\n")
assert loss.item() < 0.3

# ------------------------------------------------------------------ prefill, sample, decode, again

prompt = tokenizer.encode("A peck of")
cache, logits = prefill(model, [prompt])  # all nine characters in one pass
print(f"After {tokenizer.decode(prompt)!r} the cache holds {cache.length} positions.")
written = []
for _ in range(12):
    written.append(int(logits[0].argmax()))  # greedy: the likeliest character
    logits = decode(model, [written[-1]], cache)  # one character in, one prediction out
print(f"Twelve characters by hand: {tokenizer.decode(written)!r}; now it holds {cache.length}.")
greedy = SamplingConfig(greedy=True)
assert written == generate(model, [prompt], 12, greedy)[0]  # `generate` is that loop

# Without a cache every new character costs a pass over the whole text. The result is the same.
with no_grad():
    whole = model(np.array([prompt + written])).numpy()[0, -1]
print(f"Largest difference to the logits without a cache: {np.abs(whole - logits[0]).max():.1e}\n")
np.testing.assert_allclose(whole, logits[0], atol=1e-4)

for cached in (True, False):
    begin = time.perf_counter()
    if cached:
        generate(model, [prompt], 54, greedy)
    else:
        tokens = list(prompt)
        with no_grad():
            for _ in range(54):
                tokens.append(int(model(np.array([tokens])).numpy()[0, -1].argmax()))
    seconds = time.perf_counter() - begin
    print(f"54 characters {'with' if cached else 'without'} a cache: {1000 * seconds:.0f} ms")

# ------------------------------------------------------------------------- what the settings do

scores = np.array([4.0, 3.0, 2.0, 1.0, 0.0])
np.set_printoptions(precision=2, suppress=True)
print(f"\nFive logits {scores}, and the chances they become:")
for name, changed in (
    ("as they are", scores),
    ("temperature 0.5", scores / 0.5),
    ("temperature 2", scores / 2),
    ("top_k 3", keep_top_k(scores, 3)),
    ("top_p 0.8", keep_top_p(scores, 0.8)),
    ("min_p 0.1", keep_min_p(scores, 0.1)),
):
    print(f"  {name:16}", softmax(changed))
assert np.count_nonzero(softmax(keep_top_p(scores, 0.8))) == 2  # 0.64 is too little, 0.87 enough

print("\nThe same prompt, four ways:")
for sampling in (
    greedy,
    SamplingConfig(temperature=1.0),
    SamplingConfig(temperature=3.0),
    SamplingConfig(temperature=3.0, top_p=0.5),
):
    ids = generate(model, [tokenizer.encode("Peter ")], 50, sampling, seed=1)[0]
    print(f"  temperature {sampling.temperature}, top_p {sampling.top_p}, greedy {sampling.greedy}:"
          f"\n    {tokenizer.decode(ids)!r}")  # fmt: skip

# ---------------------------------------------------------------------------- batches and seeds

prompts = [tokenizer.encode(start) for start in ("Peter ", "If", "where's the peck")]
warm = SamplingConfig(temperature=1.5)
together = generate(model, prompts, 20, warm, seed=[7, 8, 9])
alone = [generate(model, [prompts[i]], 20, warm, seed=[7 + i])[0] for i in range(3)]
print("\nThree prompts of different lengths in one batch, each with its seed:")
for prompt, ids in zip(prompts, together, strict=True):
    print(f"  {tokenizer.decode(prompt)!r} + {tokenizer.decode(ids)!r}")
assert together == alone  # who else is in the batch makes no difference

# ------------------------------------------- past the context; streaming, up to a stop string

# The model sees 64 characters at once. When they are full, it goes on with the newest 32 of them.
long = generate(model, prompts[:1], 150, greedy)[0]
print(f"\n150 characters: {tokenizer.decode(long)!r}")
assert len(long) == 150

print("\nStreamed as it is written, up to the word 'If':\n  ", end="")
shown = ""
for token in stream(model, prompts[2:], 400, SamplingConfig(temperature=0.5), seed=3,
                    stop=["If"], tokenizer=tokenizer):  # fmt: skip
    shown += token.text  # an "I" waits until it is clear that no "f" follows
    print(token.text.replace("\n", " / "), end="", flush=True)
print(f"\n{len(shown)} characters, ended by: {token.reason}")
assert "If" not in shown and token.reason in ("stop", "length")
