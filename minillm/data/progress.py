"""Telling how long work on data goes: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

PLAIN_SECONDS = 5.0  # at least this long between two plain lines


class Progress:
    """Plain lines: one every few seconds, and one at the end of each stage."""

    def __init__(self) -> None:
        self.stage, self.size, self.total = "", 0, 0
        self.documents = self.shards = self.all_shards = 0
        self._began = self._printed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The work is over, or was interrupted."""

    def begin(self, stage: str, shards: int, size: int) -> None:
        """A stage begins, of so many shards and bytes of input that are still to be done."""
        self.stage, self.all_shards, self.total = stage, shards, size
        self.shards = self.size = self.documents = 0
        self._began = self._printed = time.monotonic()

    def shard(self, size: int, documents: int) -> None:
        """A shard is done, of `size` bytes of input."""
        self.shards, self.documents = self.shards + 1, self.documents + documents
        self.advance(size)

    def advance(self, size: int) -> None:
        """So many more bytes are done; below 0: so many were in vain."""
        self.size += size
        now = time.monotonic()
        if now - self._printed >= PLAIN_SECONDS and self.shards < self.all_shards:
            self._printed = now
            self.say(f"{self.stage}: {self.figures()}")

    def end(self) -> None:
        """The stage is done."""
        if self.all_shards:
            self.say(f"{self.stage}: {self.figures()}")

    def figures(self) -> str:
        """How far it is, how fast, and how long it will take."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        text = f"{self.size / 1e6:,.1f} of {self.total / 1e6:,.1f} MB"
        if not self.total:  # nobody knows
            text = f"{self.size / 1e6:,.1f} MB"
        text += f"  {self.size / 1e6 / seconds:,.1f} MB/s"
        if self.documents:
            text += f"  {self.documents:,} documents  {self.documents / seconds:,.0f}/s"
        if self.shards < self.all_shards and self.size and self.total:
            left = seconds * (self.total - self.size) / self.size
            return f"{text}  left {_duration(left)}"
        return f"{text}  in {_duration(seconds)}"

    def say(self, text: str) -> None:
        """A line that stays."""
        print(text, flush=True)


class BarProgress(Progress):
    """A bar with the time left, and the figures behind it."""

    def __init__(self) -> None:
        super().__init__()
        from rich import console, progress  # slow to load; only terminals need it

        self.console = console.Console(highlight=False)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:<12}"),
            progress.BarColumn(None),
            progress.TextColumn("{task.fields[figures]}"),
            expand=True,
            console=self.console,
            transient=True,
        )
        self._task: Any = None

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, stage: str, shards: int, size: int) -> None:
        super().begin(stage, shards, size)
        if shards:
            self._task = self._bar.add_task(stage, total=size or None, figures="")
            self._bar.start()

    def advance(self, size: int) -> None:
        self._printed = time.monotonic()  # the bar is enough
        super().advance(size)
        self._bar.update(self._task, completed=self.size, figures=self.figures())

    def end(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
            self._bar.stop()
        super().end()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)


def reporter() -> Progress:
    """A bar where the output is a terminal, else plain lines."""
    return BarProgress() if sys.stdout.isatty() else Progress()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes else f"{seconds:.1f} s"
