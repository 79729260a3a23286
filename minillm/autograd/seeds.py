"""Seeds of random operations: drawn from a generator once, replayed where a pass is repeated.

Dropout does not take its mask from a generator. It draws one number, the seed, and the mask is a
pure function of that number. So whoever runs a function again, as `checkpoint` does, needs only the
seeds to get the same masks: `recorded()` writes down those drawn, `replayed(seeds)` gives them
out again and leaves the generator alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from minillm.errors import GraphError


def _fresh(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 2**64, dtype=np.uint64))


class _State(threading.local):
    source: Callable[[np.random.Generator], int] = staticmethod(_fresh)


_state = _State()


def draw(rng: np.random.Generator) -> int:
    """A seed between 0 and 2**64 - 1: from `rng`, or the next of those being replayed."""
    return _state.source(rng)


@contextmanager
def recorded() -> Iterator[list[int]]:
    """Collect the seeds drawn inside the block in the list that it yields."""
    seeds: list[int] = []
    outer = _state.source

    def source(rng: np.random.Generator) -> int:
        seeds.append(outer(rng))
        return seeds[-1]

    _state.source = source
    try:
        yield seeds
    finally:
        _state.source = outer


@contextmanager
def replayed(seeds: Sequence[int]) -> Iterator[None]:
    """Give out `seeds` in their order to the draws inside the block.

    Raises `GraphError` where the block draws more of them, or fewer.
    """
    outer, rest = _state.source, list(reversed(seeds))

    def source(rng: np.random.Generator) -> int:
        if not rest:
            raise GraphError(f"a repeated run drew more than the {len(seeds)} seeds of the first")
        return rest.pop()

    _state.source = source
    try:
        yield
    finally:
        _state.source = outer
    if rest:
        raise GraphError(
            f"a repeated run drew {len(seeds) - len(rest)} seeds, the first one {len(seeds)}"
        )
