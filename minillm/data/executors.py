"""Who does the work: processes of this machine, MPI ranks of a cluster, or this process itself.

A stage hands its shards to anything that is a `concurrent.futures.Executor`. Three come with us:

    processes   one per core; the default
    mpi         mpi4py's pool: mpiexec -n 8 python -m mpi4py.futures -m minillm data build ...
    serial      no other process: to step through a stage, and for small inputs

Dask's, Ray's or a batch system's executor is passed to `pipeline.build` as it is: functions and
arguments are plain and can be pickled, and results are small.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

from minillm import backend
from minillm.data.extras import needed
from minillm.errors import InputError

KINDS = ("processes", "mpi", "serial")


class SerialExecutor(Executor):
    """Does each call at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future:
        """The call's outcome, as a future that is done."""
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - it is raised again where the result is taken
            future.set_exception(error)
        return future


def make(kind: str, workers: int = 0) -> Executor:
    """An executor of one of `KINDS`.

    `workers` 0: as many as there are cores, or MPI ranks besides the first. Raises `InputError` for
    another kind, and where mpi4py is missing.
    """
    if kind == "serial" or (kind == "processes" and workers == 1):
        return SerialExecutor()
    if kind == "processes":
        # Not forked: a copy of a process with running threads may hang.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers or backend.cores(), context, _begin)
    if kind == "mpi":
        mpi = needed("mpi4py.futures", "the executor 'mpi'", extra="mpi")
        return mpi.MPIPoolExecutor(workers or None)
    raise InputError(f"no executor is called {kind!r}; there are {', '.join(KINDS)}")


def _begin() -> None:
    """What a new worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets us finish
    backend.set_threads(1)  # there are as many of us as cores
    backend.return_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has died, killed perhaps."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
