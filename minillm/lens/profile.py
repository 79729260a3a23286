"""Where a training step spends its time and memory, kernel by kernel.

    with profile() as seen:
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.step(...)
    print(seen.table(ceilings()))
    seen.write_trace("trace.json")        # open it in Perfetto or chrome://tracing

Nothing in the kernels knows of this. Everybody reaches a kernel through its module
(`softmax.forward(x)`), so for the length of the block each module's `forward`, `backward` and
`update` are exchanged for a wrapper that notes the time and calls the original. What a step spends
outside all kernels, in Python and in NumPy's own arithmetic, is the row "between kernels". The
profile's own work is in no row: its clock stands still meanwhile.

The work of a kernel is counted from its arguments: floating-point operations for the products, and
for every kernel the bytes that it has to read and to write at least once. Where a kernel seems
faster than memory, it has found some of them in a cache.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pkgutil
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minillm import backend, kernels
from minillm.files import replacing
from minillm.kernels import adamw
from minillm.training.peak import fastest, peak

_ENTRIES = ("forward", "backward", "update")


@dataclass
class Event:
    """One call of a kernel; times in seconds since the profile began, sizes in bytes."""

    name: str
    start: float
    duration: float
    flops: float
    traffic: int
    depth: int  # 0: called by the step; 1 and more: called by another kernel
    grown: int = 0  # memory held after the call minus before
    peak: int = 0  # most memory held during the call, for those inside: since the outer one began


@dataclass
class Profile:
    """The events of a block, and what can be read from them."""

    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    memory: bool = False

    def rows(self) -> list[dict[str, Any]]:
        """One row per kernel, longest first: calls, seconds, share, flops, traffic, memory."""
        groups: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            if event.depth == 0:
                groups[event.name].append(event)
        rows = [_row(name, events, self.seconds) for name, events in groups.items()]
        outside = self.seconds - sum(row["seconds"] for row in rows)
        share = outside / self.seconds if self.seconds else 0.0
        between = _row("between kernels", [], self.seconds)
        rows.append(between | {"seconds": outside, "share": share})
        return sorted(rows, key=lambda row: -row["seconds"])

    def table(self, ceiling: Ceilings | None = None) -> str:
        """The rows as text; with `ceiling`, rates also as shares of what this machine can do."""
        if self.memory:
            head = f"{'kernel':32}{'calls':>7}{'grown MB':>12}{'peak MB':>12}"
            lines = [
                f"{r['name']:32}{r['calls']:7d}{r['grown'] / 1e6:12.1f}{r['peak'] / 1e6:12.1f}"
                for r in sorted(self.rows(), key=lambda row: -row["grown"])
                if r["calls"]
            ]
            return "\n".join([head, *lines])
        head = f"{'kernel':32}{'calls':>7}{'ms':>10}{'share':>8}{'GFLOP/s':>16}{'GB/s':>16}"
        lines = [
            f"{r['name']:32}{r['calls']:7d}{r['seconds'] * 1e3:10.2f}{r['share']:8.1%}"
            f"{_rate(r['flops'], r['seconds'], ceiling.flops if ceiling else None):>16}"
            f"{_rate(r['traffic'], r['seconds'], ceiling.bandwidth if ceiling else None):>16}"
            for r in self.rows()
        ]
        total = f"{'whole block':32}{'':7}{self.seconds * 1e3:10.2f}{1:8.1%}"
        return "\n".join([head, *lines, total])

    def write_trace(self, path: str | Path) -> None:
        """Write the events in Chrome's trace format, which Perfetto opens too."""
        events: list[dict[str, Any]] = []
        for event in self.events:
            at = event.start * 1e6  # the format counts in microseconds
            events.append({
                "name": event.name, "ph": "X", "ts": at, "dur": event.duration * 1e6, "pid": 1,
                "tid": 1, "args": {"flops": event.flops, "bytes": event.traffic}})  # fmt: skip
            if self.memory:
                events.append({"name": "memory", "ph": "C", "ts": at, "pid": 1,
                               "args": {"peak MB": event.peak / 1e6}})  # fmt: skip
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))


@contextmanager
def profile(memory: bool = False) -> Iterator[Profile]:
    """Note every kernel call inside the block; with `memory`, what each holds instead of how long.

    Memory is counted by `tracemalloc`, which slows Python: time and memory want a block each.
    """
    seen = Profile(memory=memory)
    originals, clock, depth = [], _Clock(), [0]
    traced_before = tracemalloc.is_tracing()
    if memory:
        tracemalloc.start()
    try:
        for name, module in kernel_modules():
            for entry in _ENTRIES:
                function = getattr(module, entry, None)
                if function is not None:
                    originals.append((module, entry, function))
                    wrapper = _wrapped(f"{name}.{entry}", function, seen, depth, clock)
                    setattr(module, entry, wrapper)
        clock.stand_still_since(0.0)
        yield seen
    finally:
        seen.seconds = clock.now()
        for module, entry, function in originals:
            setattr(module, entry, function)
        if memory and not traced_before:
            tracemalloc.stop()


def kernel_modules() -> list[tuple[str, Any]]:
    """Every file of the kernel room, as (name, module)."""
    names = sorted(info.name for info in pkgutil.iter_modules(kernels.__path__))
    return [(name, importlib.import_module(f"{kernels.__name__}.{name}")) for name in names]


class _Clock:
    """Seconds since it was made, without those in which it stood still."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._begun

    def stand_still_since(self, moment: float) -> None:
        """Turn it back to `moment`."""
        self._begun += self.now() - moment


def _wrapped(
    name: str, function: Callable[..., Any], seen: Profile, depth: list[int], clock: _Clock
) -> Callable[..., Any]:
    signature = inspect.signature(function)
    flops, traffic = _FLOPS.get(name, lambda *_: 0.0), _TRAFFIC.get(name, _each_once)

    def call(*arguments: Any, **named: Any) -> Any:
        called = clock.now()
        before = _traced(seen.memory, reset=depth[0] == 0)[0]  # else the outer call's peak is lost
        depth[0] += 1
        clock.stand_still_since(called)
        try:
            result = function(*arguments, **named)
            backend.wait()
        finally:
            done = clock.now()
            depth[0] -= 1
        held, peak = _traced(seen.memory, reset=False)
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        work, moved = flops(*bound.args), traffic(result, *bound.args)
        seen.events.append(
            Event(name, called, done - called, work, moved, depth[0], held - before, peak)
        )
        clock.stand_still_since(done)
        return result

    return call


def _traced(memory: bool, reset: bool) -> tuple[int, int]:
    if not memory:
        return 0, 0
    if reset:
        tracemalloc.reset_peak()
    return tracemalloc.get_traced_memory()


def _row(name: str, events: list[Event], total: float) -> dict[str, Any]:
    seconds = sum(event.duration for event in events)
    return {
        "name": name, "calls": len(events), "seconds": seconds,
        "share": seconds / total if total else 0.0,
        "flops": sum(event.flops for event in events),
        "traffic": sum(event.traffic for event in events),
        "grown": sum(event.grown for event in events),
        "peak": max((event.peak for event in events), default=0),
    }  # fmt: skip


def _rate(amount: float, seconds: float, ceiling: float | None) -> str:
    if not amount or not seconds:
        return ""
    share = f" ({amount / seconds / ceiling:.0%})" if ceiling else ""
    return f"{amount / seconds / 1e9:.1f}{share}"


# -------------------------------------------------------------------------------- counting work


def _linear_flops(x: Any, weight: Any, *_: Any) -> float:
    return 2.0 * x.size * weight.shape[0]


def _matmul_flops(a: Any, b: Any, *_: Any) -> float:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return 2.0 * math.prod(batch) * a.shape[-2] * a.shape[-1] * b.shape[-1]


def _attention_flops(products: int, q: Any, first: Any, last: Any) -> float:
    """2 D per visible (query, key) pair for each of the products."""
    pairs = np.maximum(np.asarray(last) - np.asarray(first) + 1, 0).sum()
    return 2.0 * products * q.shape[1] * q.shape[3] * float(pairs) * q.shape[0] / first.shape[0]


_FLOPS: dict[str, Callable[..., float]] = {
    "linear.forward": _linear_flops,
    "linear.backward": lambda dout, x, weight, with_bias, wanted: (
        sum(wanted) * _linear_flops(x, weight)
    ),
    "feed_forward.forward": lambda x, up, *_: 2 * _linear_flops(x, up),
    "feed_forward.backward": lambda dout, x, u, up, down, with_bias, approximate, wanted, spend: (
        (sum(wanted) + any(wanted[:2])) * _linear_flops(x, up)  # x and up need that of u
    ),
    "matmul.forward": _matmul_flops,
    "matmul.backward": lambda dout, a, b, wanted: sum(wanted) * _matmul_flops(a, b),
    "attention.forward": lambda q, k, v, first, last, *_: _attention_flops(2, q, first, last),
    "attention.backward": lambda dout, q, k, v, out, lse, first, last, *_: _attention_flops(
        5, q, first, last
    ),
    "linear_cross_entropy.forward": lambda x, weight, targets, scale, wanted: (
        _linear_flops(x, weight) * (1 + sum(wanted))
    ),
}


def _each_once(*values: Any) -> int:
    """The bytes of all arrays among the results and arguments of a kernel."""
    return sum(
        _each_once(*value) if isinstance(value, tuple) else getattr(value, "nbytes", 0)
        for value in values
    )


# From the result and the arguments, where it is not each of these arrays once.
_TRAFFIC: dict[str, Callable[..., int]] = {
    "adamw.update": lambda _, weight, *rest: 7 * weight.nbytes,  # four read, three written
    "attention.backward": lambda result, *given: _each_once(result, *given[:9]),  # not `into`
    "cross_entropy.backward": lambda out, *given: _each_once(out, *given[:4]),  # `out` is given
    "embedding.forward": lambda out, weight, ids: ids.nbytes + 2 * out.nbytes,  # rows of weight
    "embedding.backward": lambda _, dout, ids, dweight: ids.nbytes + 3 * dout.nbytes,
}


# -------------------------------------------------------------------------------- ceilings


@dataclass(frozen=True)
class Ceilings:
    """What this machine reaches: `flops` per second in products, `bandwidth` in bytes/s."""

    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return f"{self.flops / 1e9:.0f} GFLOP/s and {self.bandwidth / 1e9:.0f} GB/s"


def ceilings(precision: str = "float32", megabytes: int = 128) -> Ceilings:
    """Measure both: the best product in a precision, and the best AdamW update of a large array."""
    arrays = [backend.asarray(np.ones(megabytes * 2**18 // 4, np.float32)) for _ in range(4)]
    given = (*arrays, 0.0, 0.9, 0.999, 1e-8, 0.0, 1)
    seconds = fastest(lambda: adamw.update(*given), seconds=0.5)
    return Ceilings(peak(precision).flops, _TRAFFIC["adamw.update"](None, *given) / seconds)
