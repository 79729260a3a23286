"""Which arrays and which kernels are in use, and on how many threads.

    numpy   the plain references: every kernel as array expressions, slow and easy to step through
    numba   the fast twins of the same kernels, compiled for this processor (the default)
    cupy    the references on a GPU: the same lines, through CuPy's array module

The choice is made by the environment variable MINILLM_BACKEND, by `use("numpy")` for the rest of
the program, or by `with use("numpy"):` for a block.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any, Self

import numpy as np

from minillm.errors import BackendError, InputError

Array = Any  # numpy.ndarray, or the array of another module with the same functions

NAMES = ("numpy", "numba", "cupy")
_INSTALL = {
    "numba": "pip install numba",
    "cupy": "pip install 'minillm[gpu]' on a machine with an NVIDIA GPU",
}
_current: str | None = None  # None until something asks; then the environment decides
_threads: int | None = None


class use:
    """Choose a backend, for good or for a `with` block.

    Raises `BackendError` for an unknown name or one whose package or device is missing.
    """

    def __init__(self, name: str) -> None:
        global _current
        self.previous = _current
        _current = _checked(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        global _current
        _current = self.previous


def name() -> str:
    """The backend in use: "numpy", "numba" or "cupy"."""
    global _current
    if _current is None:
        _current = _checked(os.environ.get("MINILLM_BACKEND", "numba"))
    return _current


def _checked(wanted: str) -> str:
    if wanted not in NAMES:
        raise BackendError(f"unknown backend {wanted!r}; choose one of {', '.join(NAMES)}")
    threads()  # MINILLM_THREADS holds for BLAS under every backend
    if wanted == "numpy":
        return wanted
    if wanted == "numba":  # it takes half a second to load, so here only look whether it is there
        if importlib.util.find_spec("numba") is None:
            raise BackendError(f"backend 'numba' is not installed: {_INSTALL['numba']}")
        return wanted
    try:
        cupy = importlib.import_module("cupy")
        cupy.zeros(1)
    except Exception as error:  # a missing package, library, driver or device, each its own class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise BackendError(
            f"backend 'cupy' cannot run here ({reason}): {_INSTALL['cupy']}"
        ) from error
    return wanted


# ---------------------------------------------------------------------------------- arrays


def array_module(*arrays: Array) -> Any:
    """The module whose functions work on `arrays`: `numpy`, `cupy`, or a stand-in with that API.

    References ask once, at their first line: `xp = array_module(x)`.
    """
    for array in arrays:
        if isinstance(array, np.ndarray):
            return np
        if hasattr(array, "__array_namespace__"):
            return array.__array_namespace__()
        package = type(array).__module__.partition(".")[0]
        if package == "cupy":
            return sys.modules["cupy"]
    return np


def module() -> Any:
    """The module that new arrays are made with under the backend in use."""
    return importlib.import_module("cupy") if name() == "cupy" else np


def asarray(values: Any, dtype: Any = None) -> Array:
    """`values` as an array of the backend in use, without a copy where none is needed."""
    return module().asarray(values, dtype=dtype)


def to_numpy(array: Array) -> np.ndarray:
    """`array` in main memory, as NumPy's; the one way from a GPU back to the host."""
    if isinstance(array, np.ndarray) or np.isscalar(array):
        return np.asarray(array)
    return array.get() if hasattr(array, "get") else np.asarray(array)


def wait() -> None:
    """Until a GPU has done all it was given; elsewhere work is done when a call returns."""
    if name() == "cupy":
        module().cuda.Device().synchronize()


def fast(*arrays: Array) -> bool:
    """Whether the Numba twins serve these arrays: the backend is `numba` and all are NumPy's.

    With NUMBA_DISABLE_JIT=1 the twins run as plain Python loops, for stepping through them.
    """
    for array in arrays:  # every kernel asks: `all` over a generator takes three times as long
        if type(array) is not np.ndarray:
            return False
    return name() == "numba"


# ---------------------------------------------------------------------------------- precision

PRECISIONS = ("float32", "bfloat16")
_precision, _activations = "float32", "float32"
_FLOAT32 = np.dtype(np.float32)


class precision:
    """Choose how linear layers and attention multiply, for good or for a `with` block.

    "float32": as they stand. "bfloat16": operands rounded to bfloat16, products summed in float32,
    twice the speed or more where the processor multiplies bfloat16. Weights, gradients, norms,
    softmax, loss and optimizer stay float32; float64 arrays stay float64.

    `activations`: the type in which some arrays are stored that the backward pass will need,
    "float32" or, with bfloat16 products, "bfloat16". These are the norms' outputs in front of
    products, GPT's queries, keys and values, which products round anyway, and the feed-forward
    layer's widest array (in main memory only: on a GPU they stay float32).

    Raises `InputError` for other names, and for bfloat16 activations of float32 products.
    """

    def __init__(self, name: str, activations: str = "float32") -> None:
        global _precision, _activations
        for what, given in (("precision", name), ("activations", activations)):
            if given not in PRECISIONS:
                raise InputError(f"{what} is {given!r}; it takes {' or '.join(PRECISIONS)}")
        if activations == "bfloat16" and name != "bfloat16":
            raise InputError("activations in bfloat16 need the precision bfloat16 too")
        self.previous = _precision, _activations
        _precision, _activations = name, activations

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        global _precision, _activations
        _precision, _activations = self.previous


def bfloat16_products(*arrays: Array) -> bool:
    """Whether the product of these arrays, float32 or bfloat16, is to be computed in bfloat16."""
    if _precision != "bfloat16":
        return False
    for array in arrays:  # no `all`: as in `fast`
        if array.dtype != _FLOAT32 and array.dtype.name != "bfloat16":
            return False
    return True


def bfloat16_activations(*arrays: Array) -> bool:
    """Whether what products of these arrays leave for the backward pass is stored in bfloat16."""
    return (
        _activations == "bfloat16"
        and bfloat16_products(*arrays)
        and all(type(array) is np.ndarray for array in arrays)
    )


# ---------------------------------------------------------------------------------- threads


def threads() -> int:
    """Threads in use by kernels and BLAS: `set_threads`, else MINILLM_THREADS, else all cores.

    Every product asks, so the environment is read once.
    """
    global _threads
    if _threads is None:
        wanted = os.environ.get("MINILLM_THREADS")
        if not wanted:
            _threads = _pool()
        elif wanted.isdigit():
            set_threads(int(wanted))
            return int(wanted)
        else:
            raise InputError(f"MINILLM_THREADS is {wanted!r}; it takes a whole number")
    return _threads


def cores() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pool() -> int:
    """The most threads that Numba can start; the environment may set fewer than there are cores."""
    wanted = os.environ.get("NUMBA_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) else cores()


def set_threads(count: int) -> None:
    """Let kernels and BLAS use `count` threads; results do not depend on it, bit for bit.

    Raises `InputError` where `count` is not between 1 and Numba's pool (NUMBA_NUM_THREADS).
    """
    global _threads
    most = _pool()
    if not 1 <= count <= most:
        raise InputError(f"{count} threads wanted, but this process can use 1 to {most}")
    _threads = count
    if "numba" in sys.modules:
        sys.modules["numba"].set_num_threads(count)
    from threadpoolctl import threadpool_limits  # needed only by who sets threads

    threadpool_limits(count, user_api="blas")


# ---------------------------------------------------------------------------------- memory

# Names of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_MADV_HUGEPAGE = 14  # of madvise(2), on Linux
_HUGE = 256 << 20  # bytes of the heap that are to lie in huge pages
_returns_memory = False


def keep_freed_memory() -> None:
    """Let freed arrays be used again instead of going back to the system (glibc only).

    By default every array above a few megabytes is mapped afresh, and each of its pages faults on
    first touch, which costs more than the arithmetic of an element-wise kernel. A training step
    frees and takes the same sizes again and again, so its memory is best kept. Does nothing after
    `return_freed_memory`.

    The first _HUGE bytes are given in pages of 2 MB where the system has them, as NumPy does for
    arrays above 4 MB: else the processor, with its list of 3,000 pages or so, loses sight of a
    step's arrays. Pages that are not touched take no memory; but `np.zeros` clears, and so touches,
    all that it takes of these bytes.
    """
    if _returns_memory:
        return
    if _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 << 20}):
        _advise_huge_pages(_HUGE)


def return_freed_memory() -> None:
    """Let freed arrays go back to the system, in this process from now on (glibc only).

    For processes that stand beside each other and wait: what one does not need, another may.
    """
    global _returns_memory
    _returns_memory = True
    mapped = 1 << 20  # bytes of an array from which on it is mapped by itself
    _mallopt({_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: mapped, _M_TRIM_THRESHOLD: mapped,
              _M_TOP_PAD: 0})  # fmt: skip


def _mallopt(options: dict[int, int]) -> bool:
    """Set what the C library's allocator does; whether it has such settings."""
    import ctypes  # slow to load

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows: the system's way is fine
        return False
    for option, value in options.items():
        mallopt(option, value)
    return True


def _advise_huge_pages(size: int) -> None:
    """Have the system give the next `size` bytes of the heap in huge pages (madvise(2))."""
    import ctypes

    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = library.malloc(size)  # the heap grows by so much, and keeps it
    if start:
        page = os.sysconf("SC_PAGE_SIZE")
        first = -(-start // page) * page
        library.madvise(first, start + size - first, _MADV_HUGEPAGE)  # a system may do without
        library.free(start)
