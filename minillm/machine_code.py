"""Machine code for what Numba compiles: written once, for the functions that Python calls.

Numba gives each compiled function a library: its code for LLVM, linked with the libraries of all
functions that it calls, so that LLVM can inline them. As soon as a library is complete, LLVM
optimizes it and writes its machine code. Writing is wasted on a function which only other compiled
functions call, for these have its code in libraries of their own, to be written again. A parallel
loop is wrapped in three more libraries, and all is optimized and written for each. In attention,

    _backward_tasks -> the loop (3 libraries) -> _backward_worker -> multiply -> multiply_tile

the work on one tile would be optimized and written seven times, and the topmost is the one that
runs. So a `Library` is written when somebody asks for the address of a function in it. Numba does
that for what Python may call, and for compiled callers `jit.py` makes a version that it may not.

What is written has to be optimized first; helpers are optimized with their callers, but for one
kind: LLVM vectorizes a loop in a function that stands for itself better than inside of its caller.
So what `forceinline` pastes into others, which is where the arithmetic stands, is optimized before.
With all helpers left to their callers softmax and rotary positions ran 12 to 30 % slower; with all
optimized before, and so once more at every step up, LLVM took three times as long.
"""

from __future__ import annotations

from typing import Any

from numba.core import codegen
from numba.core.environment import lookup_environment
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

# What we change of Numba's insides. A version without these compiles in its own way: more slowly.
_METHODS = (
    "add_ir_module",
    "_optimize_final_module",
    "_finalize_final_module",
    "_finalize_dynamic_globals",
    "_verify_declare_only_symbols",
    "serialize_using_bitcode",
)
# How Numba names the libraries around a parallel loop: its body, which it asks for although nothing
# will call it there, and what calls that. Libraries of `guvectorize` have such names, too.
_BODY = "__numba_parfor_gufunc"
_LOOP = (_BODY, "<numba.np.ufunc.wrappers._GufuncWrapper ", "parallelgufuncwrapper")
_ENVIRONMENT = "_ZN08NumbaEnv"  # and the pointers by which functions find their Python objects


class Library(codegen.JITCodeLibrary):
    """Code for LLVM, and machine code once the address of something in it was asked for."""

    _codegen: Generator
    pasted = optimized = written = False

    def add_ir_module(self, ir_module: Any) -> None:
        """Take in a function as Numba translated it, with its wish to be pasted into callers."""
        own = (f for f in ir_module.functions if not f.is_declaration)
        self.pasted |= any("alwaysinline" in f.attributes for f in own)
        super().add_ir_module(ir_module)

    def _optimize_final_module(self) -> None:
        """What goes into its callers now; all else when it is written, or as a part of them."""
        if self.pasted and not self.name.startswith(_LOOP):
            self._optimize()

    def _optimize(self) -> None:
        if not self.optimized:
            super()._optimize_final_module()
            self.optimized = True

    def _finalize_final_module(self) -> None:
        on_disk = self._object_caching_enabled and self._compiled_object is not None
        # Functions that call each other find themselves by pointers, set when they are loaded.
        waiting = codegen.RuntimeLinker.PREFIX
        recursive = any(v.name.startswith(waiting) for v in self._final_module.global_variables)
        if on_disk:
            self._load()
        elif recursive:
            self._write()
        else:
            self._finalize_dynamic_globals()
            self._verify_declare_only_symbols()
            self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Address of the machine code of `name`; 0 where it has none."""
        self._ensure_finalized()
        if not self.written and not self.name.startswith(_BODY) and self._defines(name):
            self._write()
        return super().get_pointer_to_function(name)

    def serialize_using_object_code(self) -> Any:
        """What is kept on disk: with machine code, where there is any."""
        self._ensure_finalized()
        if self.name.startswith(_LOOP) and not self.written:  # a loop's are not kept alone
            self._write()
        if self.written:
            return super().serialize_using_object_code()
        return self.serialize_using_bitcode()

    def _defines(self, name: str) -> bool:
        functions = self._final_module.functions
        return any(f.name == name and not f.is_declaration for f in functions)

    def _write(self) -> None:
        self._optimize()
        self._load()

    def _load(self) -> None:
        """Hand the code to LLVM's engine, which writes what it does not find written."""
        self.written = True
        super()._finalize_final_module()
        for variable in self._final_module.global_variables:
            if variable.name.startswith(_ENVIRONMENT):
                environment = lookup_environment(variable.name)
                if environment is not None:
                    self._codegen.set_env(variable.name, environment)


class Generator(codegen.JITCPUCodegen):
    _library_class = Library

    def set_env(self, name: str, environment: Any) -> None:
        """Point code to its Python objects, once it is there; until then `_load` has time."""
        if self._engine.is_symbol_defined(name):
            super().set_env(name, environment)


def write_late() -> bool:
    """Have Numba write machine code when it is asked for; whether this version of it can."""
    if not all(hasattr(codegen.JITCodeLibrary, name) for name in _METHODS):
        return False
    rtsys.initialize(cpu_target.target_context)  # compiled as ever: loading others needs it
    cpu_target.target_context.codegen().__class__ = Generator
    return True
