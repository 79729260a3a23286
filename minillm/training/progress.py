"""Telling how a run goes: a progress bar on a terminal, plain lines anywhere else.

with reporter() as report:
    report.begin(first=0, steps=1000)
    report.step({"step": 1, "loss": 4.2, ...})
    report.say("checkpoint written")
"""

from __future__ import annotations

import sys
import time
from typing import Any, Self

from minillm import jit

PLAIN_SECONDS = 5.0  # at least this long between two plain lines
NOT_KEPT = "they cannot be kept for later runs here (NUMBA_CACHE_DIR can name another place)"


class Reporter:
    """Plain lines: the first step, the last, and one every few seconds.

    `gone`: nobody can read them any more, as after `| head` or in a closed terminal.
    """

    def __init__(self) -> None:
        self.gone = False
        self.first = self.steps = 0
        self._started = self._printed = 0.0
        self._told = False

    def __enter__(self) -> Self:
        jit.on_compile = self.compiling
        return self

    def __exit__(self, *_: object) -> None:
        jit.on_compile = None

    def begin(self, first: int, steps: int) -> None:
        """Steps `first` to `steps` are about to be made."""
        self.first, self.steps, self._started = first, steps, time.monotonic()

    def step(self, line: dict[str, Any]) -> None:
        """One step is done; `line` is what goes to `metrics.jsonl`."""
        now = time.monotonic()
        edge = line["step"] in (self.first + 1, self.steps)
        if edge or now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            left = duration(self._left(line["step"], now))
            self.say(f"step {line['step']}/{self.steps}  {summary(line)}  left {left}")

    def status(self, text: str) -> None:
        """What happens between steps, such as an evaluation; an empty text: steps go on."""

    def say(self, text: str) -> None:
        """A line that stays."""
        try:
            self._print(text)
        except OSError:
            self.gone = True

    def _print(self, text: str) -> None:
        print(text, flush=True)

    def compiling(self, kernel: str, kept: bool = True) -> None:
        """`kernel` was not in the cache; compiling takes seconds, and once where it is `kept`."""
        if not self._told:
            often = "only the first run does this" if kept else NOT_KEPT
            self.say(f"compiling kernels for this processor; {often}")
            self._told = True

    def _left(self, step: int, now: float) -> float:
        """Seconds to go, at the mean speed so far."""
        return (now - self._started) / max(1, step - self.first) * (self.steps - step)


class BarReporter(Reporter):
    """A bar with the time left, and the newest figures above it."""

    def __init__(self) -> None:
        super().__init__()
        from rich import console, live, progress, text  # slow to load; only terminals need it

        self.console = console.Console(highlight=False)
        self._figures = text.Text()
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(None),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            expand=True,
        )
        self._task = self._bar.add_task("training", total=None)
        self._live = live.Live(console.Group(self._figures, self._bar), console=self.console)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._live.stop()

    def begin(self, first: int, steps: int) -> None:
        super().begin(first, steps)
        self._bar.reset(self._task, total=steps, completed=first, description="training")
        self._live.start()

    def step(self, line: dict[str, Any]) -> None:
        self._figures.plain = summary(line)
        self._bar.update(self._task, completed=line["step"], description="training")

    def status(self, text: str) -> None:
        self._bar.update(self._task, description=text or "training")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False)

    def compiling(self, kernel: str, kept: bool = True) -> None:
        super().compiling(kernel, kept)
        self.status(f"compiling {kernel}")


def reporter() -> Reporter:
    """A bar where the output is a terminal, else plain lines."""
    return BarReporter() if sys.stdout.isatty() else Reporter()


def summary(line: dict[str, Any]) -> str:
    """The figures of a step, on one line."""
    parts = [f"loss {line['loss']:.4f}", f"perplexity {line['perplexity']:.2f}"]
    if line.get("bits_per_byte") is not None:
        parts.append(f"bits/byte {line['bits_per_byte']:.3f}")
    parts += [f"lr {line['lr']:.1e}", f"norm {line['grad_norm']:.2f}"]
    parts += [f"{line['tokens_per_second']:,.0f} tokens/s", f"mfu {line['mfu']:.0%}"]
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour.

    >>> duration(123.4)
    '2:03'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
