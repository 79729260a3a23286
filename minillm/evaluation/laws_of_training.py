"""Laws of learning: however a step is computed, whatever interrupts a run, the weights agree."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np

from minillm.autograd import Tensor
from minillm.evaluation.subjects import Subject, compare, gradients, largest
from minillm.kernels.cross_entropy import IGNORED
from minillm.models.base import LanguageModel
from minillm.training.checkpoint import RunFolder
from minillm.training.config import TrainConfig
from minillm.training.loop import train
from minillm.training.progress import Reporter
from minillm.training.step import Batch, accumulate, seed_dropout

_TOKENS = 24


def batch_of(subject: Subject, B: int, T: int = _TOKENS) -> tuple[np.ndarray, np.ndarray]:
    """Ids and targets (B, T), of which each row ignores more than the row before."""
    ids = subject.ids(B, T + 1)
    targets = ids[:, 1:].copy()
    for row in range(B):
        targets[row, : row * targets.shape[1] // B] = IGNORED
    return ids[:, :-1], targets


def batch_is_pieces(subject: Subject) -> float:
    """The gradient of a batch is the sum of its pieces', though their targets differ in number."""
    model, batch = subject.model, batch_of(subject, 5)
    model.eval()
    model.zero_grad()
    loss = accumulate(model, batch)
    whole = gradients(model)
    loss_of_pieces = accumulate(model, batch, rows=2)
    return largest([abs(loss - loss_of_pieces), compare(gradients(model), whole)])


def recomputed_is_stored(subject: Subject) -> float:
    """Computing activations again in the backward pass changes no bit, with dropout too."""
    model, batch = subject.model, batch_of(subject, 3)
    model.train()
    before, found = model.recompute, []
    try:
        for recompute in (False, True):
            model.zero_grad()
            model.recompute = recompute
            seed_dropout(model, seed=0, step=0)
            loss: Tensor = model.loss(*batch)
            loss.backward()
            found.append({"loss": np.array(loss.item()), **gradients(model)})
    finally:
        model.recompute = before
    return compare(found[1], found[0])


def resumed_is_uninterrupted(subject: Subject) -> float:
    """A run that stops half-way, and goes on in a new process, ends with the same bits.

    All that the second half knows of the first is what lies on the disk.
    """
    half, steps = 2, 4
    source = _Batches(subject)
    with tempfile.TemporaryDirectory() as folder:
        straight, first, second = subject.copy(), subject.copy(), subject.copy()
        _train(straight, source, Path(folder, "straight"), steps, steps)
        _train(first, source, Path(folder, "stopped"), half, steps)
        _train(second, source, Path(folder, "stopped"), steps, steps)
    theirs = straight.state_dict()
    found = compare(second.state_dict(), theirs)
    moved = compare(subject.model.state_dict(), theirs)
    return found if moved > 0 else float("inf")  # nothing learned would prove nothing


def _train(model: LanguageModel, source: _Batches, folder: Path, until: int, steps: int) -> None:
    """Train up to step `until` of a run of `steps`, or go on with the run in `folder`."""
    config = TrainConfig(
        steps=until, decay_steps=steps, lr=1e-2, warmup=1, eval_every=0, save_every=0
    )
    run = RunFolder(folder)
    with run.writing(), contextlib.redirect_stdout(io.StringIO()):
        train(model, source, config, run=run, report=Reporter())


class _Batches:
    """A batch of its own for every step."""

    def __init__(self, subject: Subject) -> None:
        self.ids, self.targets = batch_of(subject, 8)

    def batch(self, step: int) -> Batch:
        """Two rows for each of four steps."""
        rows = slice(2 * (step % 4), 2 * (step % 4) + 2)
        return self.ids[rows], self.targets[rows]
