"""The training loop: what a long run needs around its steps.

The step itself is in `step.py`. Here it is repeated and measured; the validation split is evaluated
as a whole; checkpoints are written; Ctrl-C is obeyed after the step at hand; and a loss that is no
number stops the run with the name of the layer where the trouble began.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np

from minillm import backend
from minillm.data.batches import BatchSource
from minillm.data.shards import TokenDataset
from minillm.errors import CheckpointError
from minillm.kernels.cross_entropy import IGNORED
from minillm.models.base import LanguageModel
from minillm.training.checkpoint import Checkpoint, RunFolder
from minillm.training.config import TrainConfig
from minillm.training.diagnose import DivergedError, first_bad, is_finite
from minillm.training.metrics import MetricsLog, TextLoss, read_metrics, split_losses
from minillm.training.optimizer import AdamW
from minillm.training.peak import peak
from minillm.training.progress import Reporter
from minillm.training.step import Batch, pieces, seed_dropout, update


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    step: int  # updates made, those before a resume included
    stopped: bool  # by Ctrl-C, before the last step
    validation: TextLoss | None  # of the newest evaluation
    checkpoint: Checkpoint | None  # the newest one


def train(
    model: LanguageModel,
    batches: BatchSource,
    config: TrainConfig,
    *,
    run: RunFolder | None = None,
    validation: TokenDataset | None = None,
    lengths: np.ndarray | None = None,
    report: Reporter | None = None,
    sample: Callable[[int], str] | None = None,
) -> Result:
    """Train `model` until `config.steps`, going on from the last checkpoint in `run` if it has one.

    Args:
        model: changed in place; left in evaluation mode.
        batches: gives the batch of each step.
        config: how to train.
        run: where metrics and checkpoints go; without it nothing is written. The caller holds
            `run.writing()`.
        validation: the split that is evaluated as a whole.
        lengths: bytes of each token (`metrics.token_lengths`), for bits per byte.
        report: what to tell the user, and how.
        sample: given the step, a text that the model writes, to be shown after an evaluation.

    Raises `DivergedError` where the loss or a gradient stops being finite, with the step, the layer
    and the last good checkpoint.
    """
    loop = _Loop(model, batches, config, run, validation, lengths, report or Reporter(), sample)
    return loop.go()


@dataclass
class _Loop:
    """The state of one call of `train`; the first fields are its arguments."""

    model: LanguageModel
    batches: BatchSource
    config: TrainConfig
    run: RunFolder | None
    validation: TokenDataset | None
    lengths: np.ndarray | None
    report: Reporter
    sample: Callable[[int], str] | None

    def __post_init__(self) -> None:
        c = self.config
        self.optimizer = AdamW(
            self.model.named_parameters(), c.lr, (c.beta1, c.beta2), c.eps, c.weight_decay
        )
        self.flops = cache(self.model.flops_per_token)
        self.peak = peak(c.precision)
        self.line: dict[str, Any] = {}  # the figures of the newest step
        self.evaluated: TextLoss | None = None
        self.saved = self.run.last() if self.run else None

    def go(self) -> Result:
        """Make the steps."""
        done = self._restore()
        if done >= self.config.steps:
            self.report.say(
                f"step {done} of {self.config.steps}: there is nothing left to train;"
                " a larger train.steps goes on"
            )
            self.model.eval()
            return Result(done, False, None, self.saved)
        log = None
        self.report.begin(done, self.config.steps)
        self.model.train()
        try:
            with StopRequest() as self.stop:
                self._catch_up(done)
                log = MetricsLog(self.run.metrics_file, done) if self.run else None
                while done < self.config.steps and not (self.stop.asked or self.report.gone):
                    self._step(done)
                    done += 1
                    evaluation = self._evaluate(done)
                    if log:
                        log.write(self.line)
                    self.report.step(self.line)
                    if evaluation is not None or self._due(done, self.config.save_every):
                        self._save(done, evaluation)
                    self._tell(done, evaluation)
                if self.saved is None or self.saved.step != done:  # stopped between checkpoints
                    self._save(done, None)
        except OSError as error:  # a full disk, most likely
            raise self._unwritable(done, error) from error
        finally:
            self.model.eval()
            self.model.zero_grad()
            if log:
                with contextlib.suppress(OSError):  # what it could not write is known by now
                    log.close()
        return Result(done, done < self.config.steps, self.evaluated, self.saved)

    def _restore(self) -> int:
        """Load the last checkpoint; the number of updates it holds."""
        if self.run is None or self.saved is None:
            return 0
        try:
            self.saved.check()
        except CheckpointError as error:
            before = [found.step for found in self.run.checkpoints()[:-1]]
            where = f"from step {before[-1]}" if before else "from the beginning"
            raise CheckpointError(
                f"{error}; without the folder {self.saved.path} the run goes on {where}"
            ) from error
        for damage in self.run.damaged():
            self.report.say(f"an older checkpoint is of no use and does not count: {damage}")
        self.saved.load(self.model, self.optimizer)
        return self.saved.step

    def _catch_up(self, done: int) -> None:
        """Make the evaluation that Ctrl-C has cut short after step `done`, where there was one."""
        if self.saved is None or self.saved.validation_loss is not None:
            return
        evaluation = self._evaluate(done)
        if self.run is None or evaluation is None:
            return
        found = read_metrics(self.run.metrics_file)
        before = [line for line in found if line["step"] == done]
        log = MetricsLog(self.run.metrics_file, done - 1)
        log.write({"step": done, **(before[-1] if before else {}), **self.line})
        log.close()
        self._save(done, evaluation)
        self._tell(done, evaluation)

    # ------------------------------------------------------------------ a step and what follows it

    def _step(self, step: int) -> None:
        """Make update `step`, counted from 0, and note its figures in `self.line`."""
        start = time.perf_counter()
        batch = self.batches.batch(step)
        try:
            made = update(self.model, self.optimizer, batch, step, self.config)
        except DivergedError as error:
            raise self._diverged(step, str(error), batch) from None
        seconds = time.perf_counter() - start
        speed = batch[0].size / seconds
        counted = batch[1][batch[1] != IGNORED]
        size = None if self.lengths is None else int(self.lengths[counted].sum())
        self.line = {
            "step": step + 1,
            **_figures(TextLoss(made.loss * counted.size, counted.size, size)),
            "lr": made.lr,
            "grad_norm": made.grad_norm,
            "tokens_per_second": speed,
            "mfu": self.peak.share(speed * self.flops(batch[0].shape[1])),
        }

    def _evaluate(self, done: int) -> TextLoss | None:
        """The loss on the validation split if it is due; None if not, or if told to stop."""
        if self.validation is None or not self._due(done, self.config.eval_every):
            return None
        found, T = TextLoss(0.0, 0, 0), self.model.config.block_size
        for part in split_losses(self.model, self.validation, T, self.lengths):
            found += part
            self.report.status(f"evaluating: {found.tokens:,} of {len(self.validation):,} tokens")
            if self.stop.asked and done < self.config.steps:
                return None
        if not math.isfinite(found.loss):
            raise self._diverged(done - 1, f"the validation loss is {found.loss}")
        self.line |= {f"validation_{name}": value for name, value in _figures(found).items()}
        self.report.status("")
        self.evaluated = found
        return found

    def _tell(self, done: int, found: TextLoss | None) -> None:
        """Show the result of an evaluation, and what the model writes."""
        if found is None:
            return
        self.report.say(f"step {done}: validation {found}")
        if self.sample is not None:
            self.model.eval()
            self.report.say(f"---\n{self.sample(done)}\n---")
            self.model.train()

    def _save(self, done: int, found: TextLoss | None) -> None:
        """Write a checkpoint with the result of this step's evaluation, if there was one."""
        if self.run is None:
            return
        if not all(is_finite(weight.array) for weight in self.model.parameters()):
            raise self._diverged(done - 1, "a weight is not finite after the update")
        self.report.status("saving")
        loss = None if found is None else found.loss
        self.saved = self.run.save(done, self.model, self.optimizer, loss, self.config.keep)
        self.report.status("")

    def _due(self, done: int, every: int) -> bool:
        """Whether what happens `every` so many steps, and at the end, happens now."""
        return done == self.config.steps or (every > 0 and done % every == 0)

    # ------------------------------------------------------------------ what went wrong

    def _diverged(self, step: int, reason: str, batch: Batch | None = None) -> DivergedError:
        """The error of a run that can no longer learn."""
        where = ""
        if batch is not None:
            seed_dropout(self.model, self.config.seed, step)
            with backend.precision(self.config.precision, self.config.activations):
                found = first_bad(self.model, pieces(batch, self.config.micro_batch_size))
            where = f"; first bad: {found}"
        return DivergedError(
            f"step {step + 1}: {reason}{where}; {self._last_good()};"
            " a lower train.lr or a longer train.warmup may help"
        )

    def _unwritable(self, done: int, error: OSError) -> OSError:
        kept = f"{self._last_good()}{' is whole, --resume goes on from it' if self.saved else ''}"
        what = f"{error.strerror or error}, at step {done}; {kept}"
        return OSError(error.errno, what, str(error.filename or self.run and self.run.path))

    def _last_good(self) -> str:
        return f"last good checkpoint: {self.saved.path}" if self.saved else "no checkpoint yet"


class StopRequest:
    """Ctrl-C, a polite `kill` or a closed terminal asks the loop to stop after the step at hand.

    A second Ctrl-C interrupts at once, as it usually would. What `nohup` has started does not hear
    of terminals.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            asking: list[int] = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                asking.append(signal.SIGHUP)
            for number in asking:
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            os.write(2, b"\nfinishing this step; press Ctrl-C again to stop at once\n")  # safe here


def _figures(text: TextLoss) -> dict[str, Any]:
    return {"loss": text.loss, "perplexity": text.perplexity, "bits_per_byte": text.bits_per_byte}
