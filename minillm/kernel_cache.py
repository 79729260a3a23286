"""Compiled kernels on disk: Numba's cache, with what they were made from in its stamp.

Numba keeps code beside the source (`__pycache__`) or in a directory of the user's: an index of the
types that a function was compiled for, and for each of them a file of code. An index that bears
another stamp than the function has now counts as empty. `jit.py` says what the stamp is made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache

# Called where code has to be compiled, with whether it will be kept.
Compiling = Callable[[bool], None]


def kept(function: Any, stamp: str, suffix: str, compiling: Compiling) -> KernelCache | NoCache:
    """A cache for `function`, or none where no directory can be written.

    `suffix` tells its files from those of another cache for the same function.
    """
    try:
        return KernelCache(function, stamp, suffix, compiling)
    except (RuntimeError, OSError):
        return NoCache(compiling)


class KernelFiles(IndexDataCacheFile):
    """Numba's files, but code is written before the index that names it, and never under a name
    that other code has had: a killed process or a second one leaves no wrong entry.
    """

    def save(self, key: Any, data: Any) -> None:
        own = hashlib.sha256(f"{self._source_stamp} {key!r}".encode()).hexdigest()[:16]
        name = f"{self._index_name.removesuffix('.nbi')}.{own}.nbc"
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


class KernelCache(FunctionCache):
    """Numba's cache of a function, with a stamp of ours, forgiving of disks it cannot write."""

    def __init__(self, function: Any, stamp: str, suffix: str, compiling: Compiling) -> None:
        super().__init__(function)
        self._cache_file = KernelFiles(self._cache_path, self._impl.filename_base + suffix, stamp)
        self._compiling = compiling

    def load_overload(self, signature: Any, target: Any) -> Any:
        found = super().load_overload(signature, target)
        if found is None:
            self._compiling(self._enabled)
        return found

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError:  # a full disk: this run keeps what it compiled
            self.disable()

    def is_empty(self) -> bool:
        """Whether no earlier run has left any code that could be loaded."""
        return not self._cache_file._load_index()


class NoCache(NullCache):
    """Every run compiles anew."""

    def __init__(self, compiling: Compiling) -> None:
        self._compiling = compiling

    def load_overload(self, signature: Any, target: Any) -> None:
        self._compiling(False)

    def is_empty(self) -> bool:
        """False: no run before this one could have left any."""
        return False
