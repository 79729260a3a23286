"""Learning-rate schedules: a linear warmup, then one of four ways down.

With w warmup steps, the end of the descent at step D, and p = (step - w) / (D - w), all from
`lr` down to `min_lr`:

    warmup     lr * (step + 1) / (w + 1)                         while step < w
    cosine     min_lr + (lr - min_lr) * (1 + cos(pi p)) / 2      Loshchilov and Hutter 2017
    linear     min_lr + (lr - min_lr) * (1 - p)
    constant   lr
    wsd        lr until `stable * D`, then linear to min_lr at D   (warmup, stable, decay: Hu 2024)

After step D the rate stays at `min_lr`. `step` counts from 0: the first update has step 0. D is the
last step or `decay_steps`, and at least 1, so that a run of one step takes it at `lr`.
"""

from __future__ import annotations

import math

from minillm.training.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of update `step`, counted from 0.

    >>> config = TrainConfig(steps=11, lr=1.0, min_lr=0.0, warmup=0, schedule="linear")
    >>> [learning_rate(step, config) for step in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    if config.schedule == "constant":
        return config.lr
    end = config.decay_steps or max(1, config.steps - 1)
    start = config.warmup
    if config.schedule == "wsd":
        start = max(start, round(config.stable * end))
    if step >= end:
        return config.min_lr
    if step <= start:
        return config.lr
    gone = (step - start) / (end - start)
    left = (1 + math.cos(math.pi * gone)) / 2 if config.schedule == "cosine" else 1 - gone
    return config.min_lr + (config.lr - config.min_lr) * left
