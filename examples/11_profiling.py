"""Where a training step goes: kernel by kernel, against what this machine can do.

    python examples/11_profiling.py

`minillm train ... --profile` prints these tables for any run. Here a small GPT is measured, then
one of its products alone: what a row says and how it comes about. What is in no kernel, Python and
NumPy's own arithmetic, has the row "between kernels".
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from minillm import backend
from minillm.kernels import linear
from minillm.lens.profile import ceilings, profile
from minillm.models.gpt import GPT, GPTConfig
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.step import update

B, T = 4, 64
rng = np.random.default_rng(0)
model = GPT(GPTConfig(vocab_size=512, block_size=T, n_layer=2, n_head=4, d_model=128), rng).train()
optimizer = AdamW(model.named_parameters())
ids = rng.integers(0, 512, (B, T + 1))


def step(number):
    return update(model, optimizer, (ids[:, :-1], ids[:, 1:]), number, TrainConfig())


# ------------------------------------------------------------------------------------ the table

step(0)  # compiles: not what we want to look at
with profile() as time:
    for number in range(1, 4):
        step(number)
machine = ceilings()
print(f"Three steps; in brackets, shares of {machine}.\n\n{time.table(machine)}\n")

rows = {row["name"]: row for row in time.rows()}
assert abs(sum(row["share"] for row in rows.values()) - 1) < 1e-9  # nothing is left out
assert rows["adamw.update"]["calls"] == 3 * len(list(model.parameters()))

# --------------------------------------------------------------------------- a row, made by hand

x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((B * T, 128), (512, 128)))
with profile() as seen:
    linear.forward(x, weight)
(row,) = (row for row in seen.rows() if row["name"] == "linear.forward")
operations = 2 * B * T * 128 * 512  # a multiplication and an addition for each pair of numbers
moved = 4 * (x.size + weight.size + B * T * 512)  # bytes: what goes in and what comes out, once
assert (row["flops"], row["traffic"]) == (operations, moved)
per_byte = machine.flops / machine.bandwidth
print(f"A linear layer: {operations:,} operations on {moved:,} bytes, {operations / moved:.0f} for each"
      " byte.\nAdamW: a dozen operations on a number and 28 bytes, less than one for each byte.\n"
      f"While memory brings one byte, this machine does {per_byte:.1f} operations. What has more waits"
      " for arithmetic,\nwhat has less waits for memory, or for Python where arrays are as small as"
      " these.\n")  # fmt: skip

# -------------------------------------------------------------------------------- memory, a trace

with profile(memory=True) as memory:
    step(4)
print(f"Memory of one step, by what is still held after it.\n\n{memory.table()}\n")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "trace.json")
    time.write_trace(path)
    events = json.loads(path.read_text())["traceEvents"]
print(f"A trace has {len(events)} calls, for ui.perfetto.dev or chrome://tracing; the first one is\n"
      f"{events[0]}\n\nbackend: {backend.name()}, {backend.threads()} threads")  # fmt: skip
