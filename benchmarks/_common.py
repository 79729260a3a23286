"""What every benchmark shares: equal threads, alternating timing, the machine's description.

Machines drift: clocks change, neighbours wake up. So contenders run in turns within one process,
each gets the same number of threads, and only medians are reported, of times and of ratios.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from minillm import backend

THREADS = min(2, backend.cores())


def start(*packages: str) -> None:
    """Set the threads of every library and print the machine, the versions and the command."""
    backend.set_threads(THREADS)
    if "torch" in packages:
        import torch

        torch.set_num_threads(THREADS)
    versions = [f"Python {platform.python_version()}"]
    versions += [
        f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "numba", *packages)
    ]
    print(f"machine   {processor()}, {backend.cores()} cores; {THREADS} threads each")
    print(f"versions  {', '.join(versions)}")
    print(f"command   python {' '.join(sys.argv)}", flush=True)


def processor() -> str:
    """The processor's name, and the one Numba is told to compile for where that differs."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        if "model name" in facts:
            numbers = f"family {facts.get('cpu family')} model {facts.get('model')}"
            name = f"{facts['model name']} ({numbers})"
    limited = os.environ.get("NUMBA_CPU_NAME")
    return f"{name}, compiled for {limited}" if limited else name


STRETCH = 0.02  # seconds of one contender that count, before the next
PAUSE = 0.12  # seconds between two: threads spin before they sleep, OpenBLAS's for 0.1 s
WAKING = 0.05  # seconds until a contender counts: a system may wake all threads on one core first


def race(*contenders: Callable[[], object], seconds: float = 1.0) -> list[float]:
    """Seconds of one call of each contender, in turns, about `seconds` in all: see `typical`.

    Between turns nobody runs for PAUSE seconds, or idle threads of one contender would take the
    cores from the next. For the first WAKING seconds of each turn nothing is counted.
    """
    for contender in contenders:  # compile, allocate, fill caches
        contender()
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        rounds.append([statistics.median(_turn(contender)) for contender in contenders])
    return typical(rounds)


def typical(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Seconds of each contender, from those of every round in which each had its turn.

    The first's are the median of its rounds; the others' are that times the median of their ratios
    to it, round by round: what slows a machine down, for a second or an hour, lasts longer than a
    round.
    """
    first = statistics.median(turns[0] for turns in rounds)
    ratios = [[turn / turns[0] for turn in turns] for turns in rounds]
    return [first * statistics.median(column) for column in zip(*ratios, strict=True)]


def _turn(contender: Callable[[], object]) -> list[float]:
    """Seconds of each call in one turn."""
    time.sleep(PAUSE)
    times: list[float] = []
    began = start = time.perf_counter()
    while not times or began - start < WAKING + STRETCH:
        contender()
        ended = time.perf_counter()
        if began - start >= WAKING:
            times.append(ended - began)
        began = ended
    return times


def table(*columns: str) -> None:
    """Print a head for rows of the same columns; the first is wide, the others take numbers."""
    print("\n" + _line(columns), flush=True)
    print(_line(["-" * len(column) for column in columns]), flush=True)


def row(name: str, *values: float | str) -> None:
    """Print one row; numbers get as many digits as they deserve."""
    print(_line([name, *(v if isinstance(v, str) else _short(v) for v in values)]), flush=True)


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:<44}" + "".join(f"{cell:>14}" for cell in cells[1:])


def _short(value: float) -> str:
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) < 1
        else f"{value:.2f}"
    )


def verdict(name: str, value: float, target: float) -> None:
    """Print whether a ratio reached what was set out for it."""
    print(
        f"{name}: {value:.2f}, wanted at least {target:.2f}: {'yes' if value >= target else 'NO'}"
    )
