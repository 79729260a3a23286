"""Whether operations leave notes for a backward pass; every thread decides for itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Mode(threading.local):
    recording = True  # until the thread says otherwise


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
