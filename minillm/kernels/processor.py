"""Which processor the kernels are compiled for: how wide its vectors are, and how many.

The answer comes from the compiler itself. It is given one multiplication of sixteen numbers, and
the registers in the assembly it makes of that tell what there is: no table of processors' names.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from minillm.jit import disabled

WORD = "uint32"  # dtype of a pair of bfloat16: the even k in the low half, the odd in the high


class Machine(NamedTuple):
    """What the tile needs to know of a processor."""

    vector_bytes: int
    registers: int
    bfloat16_dot: bool  # has vdpbf16ps


@functools.cache
def machine() -> Machine:
    """The processor that Numba compiles for, found by asking LLVM which registers it would use.

    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES are respected: `haswell` and "" give the tile for AVX2. A
    name without features keeps those of this processor, as Numba has it.
    """
    if disabled():
        return Machine(vector_bytes=16, registers=16, bfloat16_dot=False)
    text = _assembly("fmul <16 x float> %x, %x", "<16 x float>")
    if "zmm" in text:
        halves = _assembly("fptrunc <16 x float> %x to <16 x bfloat>", "<16 x bfloat>")
        return Machine(64, 32, "vcvtneps2bf16" in halves)
    if "ymm" in text:
        return Machine(32, 16, False)
    neon = ".4s" in text  # its vectors are as short as those of SSE, but there are 32
    return Machine(16, 32 if neon else 16, False)


def _assembly(instruction: str, result: str) -> str:
    """What LLVM makes of one instruction on a <16 x float>, for the processor in use."""
    import llvmlite.binding as llvm
    from numba.core import codegen, config

    # Numba makes its settings when it is loaded, out of sight of a type checker.
    name = config.CPU_NAME or llvm.get_host_cpu_name()  # type: ignore[attr-defined]
    features = config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is None:
        features = codegen.get_host_cpu_features()
    text = f"""define void @probe(ptr %from, ptr %to) {{
        %x = load <16 x float>, ptr %from
        %y = {instruction}
        store {result} %y, ptr %to
        ret void
    }}"""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(name, features)
    return target.emit_assembly(llvm.parse_assembly(text))
