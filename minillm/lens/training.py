"""`minillm train --profile`: a few steps of a run, measured instead of counted.

Two steps are made first and not looked at: they compile kernels and warm the caches. Then the time
of some steps is noted, and the memory of one more in a block of its own, because counting memory
slows Python down. The model changes as it does in training; nothing is saved.
"""

from __future__ import annotations

from minillm.data.batches import BatchSource
from minillm.lens.profile import Profile, profile
from minillm.models.base import LanguageModel
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.step import update

WARMUP = 2


def profile_steps(
    model: LanguageModel, batches: BatchSource, config: TrainConfig, steps: int = 5
) -> tuple[Profile, Profile]:
    """Train `model` for a few steps; where their time goes, and the memory of one more."""
    optimizer = AdamW(
        model.named_parameters(),
        config.lr,
        (config.beta1, config.beta2),
        config.eps,
        config.weight_decay,
    )

    def run(first: int, last: int) -> None:
        for number in range(first, last):
            update(model, optimizer, batches.batch(number), number, config)

    model.train()
    try:
        run(0, WARMUP)
        with profile() as time:
            run(WARMUP, WARMUP + steps)
        with profile(memory=True) as memory:
            run(WARMUP + steps, WARMUP + steps + 1)
    finally:
        model.eval()
        model.zero_grad()
    return time, memory
