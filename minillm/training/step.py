"""One step of training: the batch, the gradient, the norm, the learning rate, the new weights.

Everything random in a step follows from the seed and the step's number: the batch
(`data/batches.py`) and the dropout masks (`seed_dropout`). So a checkpoint needs no generator's
state, and a run that was killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minillm import backend
from minillm.kernels.cross_entropy import IGNORED
from minillm.models.base import LanguageModel
from minillm.training.config import TrainConfig
from minillm.training.diagnose import DivergedError
from minillm.training.optimizer import AdamW, clip_scale, global_norm
from minillm.training.schedule import learning_rate

Batch = tuple[np.ndarray, ...]  # ids, targets, and the numbers of packed documents if any: (B, T)


@dataclass(frozen=True)
class Update:
    """What one step reports of itself."""

    loss: float
    grad_norm: float
    lr: float


def update(
    model: LanguageModel, optimizer: AdamW, batch: Batch, step: int, config: TrainConfig
) -> Update:
    """Change the weights once. `step` counts from 0.

    Raises `DivergedError`, before any weight is touched, where the loss or the gradient is not
    finite.
    """
    optimizer.zero_grad()
    seed_dropout(model, config.seed, step)
    model.recompute = config.recompute
    with backend.precision(config.precision, config.activations):
        loss = accumulate(model, batch, config.micro_batch_size)
    norm = global_norm(optimizer.parameters.values())
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(f"the loss is {loss} and the gradient's norm is {norm}")
    lr = learning_rate(step, config)
    optimizer.step(lr, grad_scale=clip_scale(norm, config.clip))
    return Update(loss, norm, lr)


def accumulate(model: LanguageModel, batch: Batch, rows: int = 0) -> float:
    """Add the gradient of the batch's mean loss to that of the parameters; returns the loss.

    The batch is taken `rows` sequences at a time (0: all at once). Every piece divides by the
    number of targets in the whole batch, so that the pieces add up to the batch even where some
    have fewer targets than others.
    """
    count = max(1, int(np.count_nonzero(batch[1] != IGNORED)))
    total = 0.0
    for ids, targets, *documents in pieces(batch, rows):
        packed = documents[0] if documents else None
        loss = model.loss(ids, targets, normalizer=count, documents=packed)
        loss.backward()
        total += loss.item()
    return total


def pieces(batch: Batch, rows: int) -> Iterator[Batch]:
    """The batch in parts of `rows` sequences; 0: whole."""
    rows = rows or len(batch[0])
    for first in range(0, len(batch[0]), rows):
        yield tuple(array[first : first + rows] for array in batch)


def seed_dropout(model: LanguageModel, seed: int, step: int) -> None:
    """Make the dropout masks of a step a function of the seed and the step."""
    if model.dropout.drops:
        model.dropout.rng = np.random.default_rng([seed, step])
