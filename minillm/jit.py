"""Numba, loaded when the first compiled kernel runs, and its cache of compiled kernels.

`@jit` marks a function to be compiled. Nothing happens until it is first called: then Numba is
imported (half a second), the marked functions that it calls are compiled with it, and the compiled
function takes the place of the mark in its module, so that later calls go straight to it.

    from minillm.jit import jit, prange

    @jit(parallel=True)
    def scale(out, x, factor):
        for i in prange(x.shape[0]):
            out[i] = x[i] * factor

Call other marked functions by their own names (`from .tile import multiply`), not through a module.
One that adds or rounds floats for its callers is marked `@jit(forceinline=True)`. Otherwise all its
callers in a process share one machine code of it, whichever was loaded first, and LLVM may have put
sums in another order there: a run that compiles would differ in its last bits from the next one.

With NUMBA_DISABLE_JIT=1 the marks vanish and the functions are the plain Python they look like.

Compiled code is kept on disk (kernel_cache.py), so that only the first run on a machine compiles.
Numba's own cache looks only at the file that a function stands in; ours also looks at the files of
the functions it calls, at their options and at the constants in them. A directory that cannot be
written is no error: the kernel is then compiled once a run. Of which functions machine code is
written, machine_code.py tells.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from minillm import backend

# Sums may be reordered and products fused into them. NaN and infinity keep their meaning: masks
# are made of -inf, and a NaN has to stay visible.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

# Called when the compilation of a kernel that is not in the cache starts, with its name and whether
# it will be kept there.
on_compile: Callable[[str, bool], None] | None = None


def jit(
    function: Callable[..., Any] | None = None,
    reads: tuple[str, ...] = (),
    writes: tuple[str, ...] = (),
    borrows: bool = False,
    **options: Any,
) -> Any:
    """Mark `function` to be compiled by `numba.njit` with `options` when it is first called.

    Defaults: `fastmath=FASTMATH`, `nogil=True`, `error_model="numpy"` (division gives inf or NaN).

    Numba compiles one version for every combination of contiguous and strided, writable and
    read-only arguments. Array arguments named in `reads` are only read, by their strides: one
    version serves them all. Those named in `writes` are written, by their strides. (Arguments are
    then given by position.) Nor does a constant that one compiled function passes to another ask
    for a version: its type is that of any number.

    Numba counts who holds an array, with an atomic instruction at the beginning and the end of
    nearly every function: 40 ns for three arrays, as much as a tile of small products takes. One
    that only `borrows` its arrays needs no counting. It makes none (`layout.on_stack` has room for
    a few numbers), returns none, and calls no counted function that returns one: the memory of
    that would never be freed.
    """
    if function is None:
        return lambda marked: jit(marked, reads, writes, borrows, **options)
    if "_nrt" in options:
        raise TypeError("whether arrays are counted is said by borrows=, not by _nrt=")
    options["_nrt"] = not borrows  # said also where it is True: else it is that of the caller,
    options.setdefault("forceinline", False)  # and so is this

    def build(mark: Marked) -> Any:
        dispatcher = _numba().njit(mark.function, **{**_defaults(), **options})
        _keep_on_disk(dispatcher, mark)
        if mark.__name__ not in _names(mark.function.__code__):  # one that calls itself stays one
            _serve_compiled_callers(dispatcher, mark, options)
        if reads or writes:
            _take_any_layout(dispatcher, reads, writes)
        return dispatcher

    return Marked(function, build, plain=function, options=options)


def _defaults() -> dict[str, Any]:
    return {"fastmath": FASTMATH, "nogil": True, "error_model": "numpy"}


def intrinsic(plain: Callable[..., Any], uses: tuple[str, ...] = ()) -> Any:
    """Mark a `numba.extending.intrinsic`: a function that writes LLVM instructions.

    `plain` is the same computation as ordinary Python; it runs under NUMBA_DISABLE_JIT=1. `uses`
    are files besides its own that decide what it writes: when they change, cached code is stale.

        @intrinsic(plain=_fma_in_python)
        def fma(typing_context, a, b, c): ...
    """

    def mark(function: Callable[..., Any]) -> Marked:
        return Marked(function, lambda _: _numba().extending.intrinsic(function), plain, uses)

    return mark


def by_types(pick: Callable[..., Callable[..., Any] | None]) -> Any:
    """Mark a function that compiled code has in several versions, for types of other results.

    `pick` gets the Numba types of the arguments while compiling and returns the function to be
    compiled for them, or None. The decorated function does the same in plain Python.
    """

    def mark(plain: Callable[..., Any]) -> Marked:
        def build(_: Marked) -> Callable[..., Any]:
            _numba().extending.overload(plain, strict=False)(lambda *types: pick(*types))
            return plain

        return Marked(plain, build, plain)

    return mark


def prange(*bounds: int) -> range:
    """A range whose iterations may run in parallel in compiled code; `range` in plain Python."""
    return range(*bounds)


def disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT=1 asks for plain Python, to step through."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


_imported: dict[str, int] = {}  # when each source file had been changed last, at its import


def _changed(file: str) -> int:
    """When a file was changed last, in nanoseconds; 0 for what is no file."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


class Marked:
    """A function waiting to be compiled; `compiled()` does it once and remembers."""

    def __init__(
        self,
        function: Any,
        build: Callable[[Marked], Any],
        plain: Callable[..., Any],
        uses: tuple[str, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> None:
        self.function, self.plain = function, plain
        self.__doc__, self.__name__, self.__wrapped__ = function.__doc__, function.__name__, plain
        self.__module__ = function.__module__
        self._build = build
        self._compiled: Any = None
        own = function.__code__.co_filename
        self.files = {own, *uses}
        self.options = options or {}  # of Numba
        self.constants: dict[str, str] = {}  # that become part of the machine code
        self.parts = {self}  # and, once it is compiled, all functions that it calls
        _imported[own] = _changed(own)
        for file in uses:
            _imported.setdefault(file, _changed(file))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.compiled()(*arguments, **named)

    def compiled(self) -> Any:
        """The compiled function, or the plain one where compilation is disabled."""
        if self._compiled is None:
            space = self.function.__globals__
            self._compiled = self.plain if disabled() else None
            for name in set(_names(self.function.__code__)):
                value = space.get(name)
                if isinstance(value, Marked) and value is not self:
                    space[name] = value.compiled()
                    self.parts |= value.parts
                elif getattr(value, "minillm_mark", None) is not None:  # replaced before us
                    self.parts |= value.minillm_mark.parts
                elif value is prange and not disabled():
                    space[name] = _numba().prange
                elif _is_constant(value):
                    self.constants[name] = repr(value)
            if self._compiled is None:
                self._compiled = self._build(self)
            try:
                self._compiled.minillm_mark = self
            except AttributeError:
                pass
            if space.get(self.__name__) is self:
                space[self.__name__] = self._compiled
        return self._compiled


def _names(code: CodeType) -> Iterator[str]:
    """Global names that `code` and the functions inside it may use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_constant(value: Any) -> bool:
    """Whether a global variable is numbers or text, which its `repr` tells whole."""
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return isinstance(value, int | float | str | bytes | np.generic | np.dtype)


def _numba() -> Any:
    """The `numba` module, with our number of threads and way of keeping memory from the start."""
    global _loaded
    if _loaded is None:
        # OpenMP's threads wait for each other by spinning. Where another program needs a core, they
        # spin while the thread they wait for cannot run; after a short while they should sleep. But
        # waking one takes 40 us, so they should outlast the Python between two kernels (some 100).
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")
        import numba
        import numba.extending  # `intrinsic` lives here

        from minillm import machine_code

        backend.keep_freed_memory()
        numba.set_num_threads(backend.threads())
        machine_code.write_late()
        _loaded = numba
    return _loaded


_loaded: Any = None


def _serve_compiled_callers(dispatcher: Any, mark: Marked, options: dict[str, Any]) -> None:
    """Let compiled callers of `dispatcher` take a second one, without entries for Python and C.

    What cannot be called from outside needs no machine code of its own (machine_code.py). It is
    made when a caller is compiled for the first time: `dispatcher.for_callers()`.
    """

    @cache
    def inner() -> Any:
        no_entries = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        made = _numba().njit(mark.function, **{**_defaults(), **options, **no_entries})
        _keep_on_disk(made, mark, ".inner")
        return made

    def template(arguments: Any, named: Any) -> Any:
        from numba.core.types import unliteral

        named = {name: unliteral(kind) for name, kind in named.items()}
        return inner().get_call_template([unliteral(kind) for kind in arguments], named)

    dispatcher.for_callers = inner
    dispatcher.get_call_template = template
    dispatcher.get_overload = lambda signature: inner().get_overload(signature)


def _take_any_layout(dispatcher: Any, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
    """Let `dispatcher` compile arguments in `reads` and `writes` as arrays of any strides.

    Those in `reads` are read-only. The version for them is then entered for the layouts at hand,
    too, so that later calls with these find it without leaving C.
    """
    from numba import types
    from numba.core.compiler_lock import global_compiler_lock

    names = list(inspect.signature(dispatcher.py_func).parameters)
    compile_exactly, entered = dispatcher.compile, set()

    def general_kind(name: str, kind: Any) -> Any:
        if name in writes and not kind.mutable:
            raise TypeError(f"{dispatcher.__name__} writes to {name}, which is read-only")
        if name in reads or name in writes:
            return types.Array(kind.dtype, kind.ndim, "A", readonly=name in reads)
        return kind

    def compile_general(given: tuple[Any, ...]) -> Any:
        general = tuple(general_kind(*each) for each in zip(names, given, strict=True))
        with global_compiler_lock:
            entry = compile_exactly(general)
            if given != general and given not in entered:
                entered.add(given)
                dispatcher._insert([kind._code for kind in given], entry, False)
        return entry

    dispatcher.compile = compile_general


def _keep_on_disk(dispatcher: Any, mark: Marked, suffix: str = "") -> None:
    """Give `dispatcher` a cache on disk that knows all of the source files it was made from.

    It keeps nothing where one of them is no file, as at Python's prompt, or was edited since it was
    imported: the code would be the old one, under a stamp of the new text.
    """
    if not hasattr(dispatcher, "enable_caching"):
        return
    from minillm import kernel_cache

    def compiling(kept: bool) -> None:
        if on_compile is not None:
            room = mark.function.__module__.rpartition(".")[2]
            on_compile(f"{room}.{mark.__name__}", kept)

    files = {file for part in mark.parts for file in part.files}
    if any(_imported[file] == 0 or _changed(file) != _imported[file] for file in files):
        dispatcher._cache = kernel_cache.NoCache(compiling)
    else:
        stamp = _stamp(mark.parts)
        dispatcher._cache = kernel_cache.kept(dispatcher.py_func, stamp, suffix, compiling)


def is_missing_on_disk(function: Any) -> bool:
    """Whether code of a marked function could be on disk, but no earlier run has left any."""
    kernel = function.compiled() if isinstance(function, Marked) else function
    kept = getattr(kernel, "_cache", None)
    return kept is not None and kept.is_empty()


def _stamp(parts: set[Marked]) -> str:
    """What code follows from: sources, each function's options and constants, and the defaults.

    The defaults stand in this file, which is not among the sources: a new comment here leaves the
    caches of everybody as they are.
    """
    digest = hashlib.sha256(_spelled(_defaults()).encode())
    for path in sorted({file for part in parts for file in part.files}):
        digest.update(Path(path).read_bytes())
    given = [{"": part.__name__, **part.options, **part.constants} for part in parts]
    digest.update("".join(sorted(map(_spelled, given))).encode())
    return digest.hexdigest()


def _spelled(options: dict[str, Any]) -> str:
    """Options as text that is the same in every process."""
    return repr([
        (name, sorted(value) if isinstance(value, set) else value)
        for name, value in sorted(options.items())
    ])  # fmt: skip
