"""Whether operations leave notes for a backward pass; every thread decides for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _Mode(threading.local):
    recording = True  # until the thread says otherwise
    watch: Callable[[Any], None] | None = None


mode = _Mode()


def is_recording() -> bool:
    """Whether operations of this thread leave notes at the moment."""
    return mode.recording


@contextmanager
def no_grad() -> Iterator[None]:
    """Operations inside the block leave no notes: for evaluation and generation.

    A generator that yields inside such a block leaves it in force for whoever called it; open the
    block around each step instead.
    """
    previous, mode.recording = mode.recording, False
    try:
        yield
    finally:
        mode.recording = previous


@contextmanager
def enable_grad() -> Iterator[None]:
    """Operations inside the block leave notes, also within `no_grad`: for recomputation."""
    previous, mode.recording = mode.recording, True
    try:
        yield
    finally:
        mode.recording = previous


@contextmanager
def watching(see: Callable[[Any], None]) -> Iterator[None]:
    """Call `see(tensor)` with every tensor that an operation inside the block makes.

    It sees the tensor before anybody else does, and may put another `array` into it.
    """
    previous, mode.watch = mode.watch, see
    try:
        yield
    finally:
        mode.watch = previous
