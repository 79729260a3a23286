"""Compilation when a kernel is first called, and what is kept of it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
from own_process import run

from minillm.jit import disabled, jit
from minillm.kernels.layout import on_stack

KERNEL = """
import numpy as np
from helper import double
from minillm import jit as jit_module
from minillm.jit import jit, prange

jit_module.on_compile = lambda name, kept: print("compiling", name, kept)

@jit(parallel=True)
def add_double(out, x):
    for i in prange(x.size):
        out[i] = double(x[i]) + 1

mark = add_double
out = np.zeros(4)
add_double(out, np.arange(4.0))
print(out.tolist())
print("replaced" if add_double is not mark else "plain")
"""
HELPER = """
from minillm.jit import jit

@jit
def double(value):
    return value * 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kernel.py").write_text(KERNEL)
    (tmp_path / "helper.py").write_text(HELPER)
    return tmp_path


def test_compiled_once_and_again_only_when_a_source_changes(folder: Path) -> None:
    """Also the source of a function that it calls, which Numba's own cache does not look at."""
    cache = {"NUMBA_CACHE_DIR": str(folder / "cache")}
    first = run(folder, **cache)
    assert "compiling __main__.add_double True" in first
    assert first[-2:] == ["[1.0, 3.0, 5.0, 7.0]", "replaced"]
    assert run(folder, **cache) == first[-2:]
    (folder / "helper.py").write_text(HELPER.replace("* 2", "* 3"))
    changed = run(folder, **cache)
    assert "compiling __main__.add_double True" in changed
    assert changed[-2] == "[1.0, 4.0, 7.0, 10.0]"


def test_disabled_it_is_the_plain_function(folder: Path) -> None:
    shown = run(folder, NUMBA_DISABLE_JIT="1")
    assert shown == ["[1.0, 3.0, 5.0, 7.0]", "replaced"]
    code = textwrap.dedent(
        """
        import sys
        from minillm.jit import jit, intrinsic, disabled
        def plain(a): return a + 1
        @intrinsic(plain=plain)
        def vector(typing, a): raise AssertionError
        @jit
        def use(a): return vector(a)
        print(disabled(), use(1), use.__name__, "numba" in sys.modules)
        """
    )
    (folder / "kernel.py").write_text(code)
    assert run(folder, NUMBA_DISABLE_JIT="1") == ["True 2 use False"]


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path) -> None:
    blocked = folder / "cache"
    blocked.write_text("a file where the cache's folder would be")
    shown = run(folder, NUMBA_CACHE_DIR=str(blocked))
    assert shown[-2] == "[1.0, 3.0, 5.0, 7.0]"


def test_where_no_folder_can_be_written_every_run_compiles_and_says_so(folder: Path) -> None:
    (folder / "__pycache__").write_text("a file where Python's folder would be")
    home = folder / "home"
    home.write_text("a file where the user's folders would be")
    nowhere = {"NUMBA_CACHE_DIR": "", "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    for _ in range(2):
        shown = run(folder, **nowhere)
        assert "compiling __main__.add_double False" in shown
        assert shown[-2:] == ["[1.0, 3.0, 5.0, 7.0]", "replaced"]


def test_arguments_that_are_only_read_share_one_version(folder: Path) -> None:
    code = textwrap.dedent(
        """
        import numpy as np
        from minillm.jit import jit

        @jit(reads=("x",))
        def total(x, out):
            out[0] = 0.0
            for i in range(x.shape[0]):
                for j in range(x.shape[1]):
                    out[0] += x[i, j]

        out = np.zeros(1)
        frozen = np.ones((4, 6))
        frozen.flags.writeable = False
        for x in (np.ones((4, 6)), np.ones((6, 4)).T, np.ones((8, 6))[::2], frozen):
            total(x, out)
            print(out[0])
        print(len(total.signatures))
        """
    )
    (folder / "kernel.py").write_text(code)
    assert run(folder, NUMBA_CACHE_DIR=str(folder / "cache")) == ["24.0"] * 4 + ["1"]


def test_arguments_that_are_written_share_one_version(folder: Path) -> None:
    code = textwrap.dedent(
        """
        import numpy as np
        from minillm.jit import jit

        @jit(reads=("x",), writes=("out",))
        def double(x, out):
            for i in range(x.shape[0]):
                for j in range(x.shape[1]):
                    out[i, j] = 2 * x[i, j]

        x = np.arange(24.0).reshape(4, 6)
        for out in (np.zeros((4, 6)), np.zeros((6, 4)).T, np.zeros((8, 12))[::2, ::-2]):
            double(x, out)
            print((out == 2 * x).all())
        print(len(double.signatures))
        out.flags.writeable = False
        try:
            double(x, out)
        except TypeError as error:
            print(error)
        """
    )
    (folder / "kernel.py").write_text(code)
    refusal = "double writes to out, which is read-only"
    assert run(folder, NUMBA_CACHE_DIR=str(folder / "cache")) == ["True"] * 3 + ["1", refusal]


def test_a_literal_argument_needs_no_version_of_its_own(folder: Path) -> None:
    code = textwrap.dedent(
        """
        from minillm.jit import jit

        @jit
        def power(x, n):
            result = 1
            for _ in range(n):
                result *= x
            return result

        @jit
        def sum_of_powers(x, n):
            return power(x, 2) + power(x, n=3) + power(x, n)

        print(sum_of_powers(2, 4), len(power.for_callers().signatures))
        """
    )
    (folder / "kernel.py").write_text(code)
    assert run(folder, NUMBA_CACHE_DIR=str(folder / "cache")) == ["28 1"]


def test_threads_may_call_such_a_function_first_at_the_same_time(folder: Path) -> None:
    code = textwrap.dedent(
        """
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier
        import numpy as np
        from minillm.jit import jit

        @jit(reads=("x",))
        def total(x):
            sum = 0.0
            for i in range(x.size):
                sum += x[i]
            return sum

        barrier = Barrier(8)

        def work(step):
            barrier.wait()
            return total(np.arange(8.0 * step)[::step])

        with ThreadPoolExecutor(8) as pool:
            print([*pool.map(work, [1, 2] * 4)] == [28.0, 56.0] * 4, len(total.signatures))
        """
    )
    (folder / "kernel.py").write_text(code)
    assert run(folder, NUMBA_CACHE_DIR=str(folder / "cache")) == ["True 1"]


def test_nan_and_infinity_keep_their_meaning(folder: Path) -> None:
    code = textwrap.dedent(
        """
        import numpy as np
        from minillm.jit import jit

        @jit
        def largest_finite(x):
            best = -np.inf
            for value in x:
                if np.isfinite(value) and value > best:
                    best = value
            return best, x[0] / 0.0, np.isnan(x).any()

        print(*largest_finite(np.array([1.0, -np.inf, np.nan, 3.0, np.inf])))
        """
    )
    (folder / "kernel.py").write_text(code)
    assert run(folder, NUMBA_CACHE_DIR=str(folder / "cache")) == ["3.0 inf True"]


@jit(borrows=True)
def sum_below(x, limit):
    room, count = on_stack(x), 0
    for i in range(x.size):
        part = x[i : i + 1]
        if part[0] < limit:
            room[count] = part[0]
            count += 1
    total = 0.0
    for i in range(count):
        total += room[i]
    return total


@jit(borrows=True)
def borrows_and_makes(x):
    return x.copy()[0]


def test_a_function_that_borrows_does_not_count() -> None:
    x = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    assert sum_below(x, 4.0) == 5.5
    if not disabled():
        import numba

        fresh = numba.jit(sum_below.py_func, **sum_below.targetoptions)  # cached code shows nothing
        assert fresh(x, 4.0) == 5.5
        code = "".join(fresh.inspect_llvm().values())
        body = code[code.index("define") : code.index("define", code.index("define") + 1)]
        assert "NRT_incref" not in body


@pytest.mark.skipif(disabled(), reason="plain Python makes arrays wherever it is told to")
def test_a_function_that_borrows_makes_no_array() -> None:
    from numba.core.errors import NumbaError

    with pytest.raises((NumbaError, RuntimeError), match="NRT required"):
        borrows_and_makes(np.ones(3))


def test_whether_a_function_counts_is_said_in_one_way() -> None:
    with pytest.raises(TypeError, match="borrows="):
        jit(_nrt=False)(len)


@pytest.mark.slow
def test_functions_that_borrow_get_no_array_from_one_that_counts(folder: Path) -> None:
    code = textwrap.dedent(
        """
        import gc
        import numpy as np
        from numba.core import types
        from numba.core.registry import CPUDispatcher
        from minillm.models.gpt import GPT, GPTConfig
        from minillm.training.config import TrainConfig
        from minillm.training.optimizer import AdamW
        from minillm.training.step import update

        shape = GPTConfig(vocab_size=65, block_size=64, n_layer=1, n_head=2, d_model=64)
        ids = np.random.default_rng(0).integers(0, 65, (4, 65))
        for precision in ("float32", "bfloat16"):
            model = GPT(shape, np.random.default_rng(0))
            plan = TrainConfig(precision=precision, activations=precision)
            update(model, AdamW(model.named_parameters()), (ids[:, :-1], ids[:, 1:]), 0, plan)

        def counts(function):
            return function.targetoptions.get("_nrt") is not False

        def holds_array(kind):
            parts = kind if isinstance(kind, types.BaseTuple) else [kind]
            return any(isinstance(part, types.Array) for part in parts)

        borrowing = [f for f in gc.get_objects() if isinstance(f, CPUDispatcher) and not counts(f)]
        looked_at, wrong = 0, []
        for caller in borrowing:
            for compiled in caller.overloads.values():
                seen = compiled.type_annotation
                for call, signature in seen.calltypes.items():
                    if signature is None or getattr(call, "op", None) != "call":
                        continue
                    called = seen.typemap[call.func.name]
                    if isinstance(called, types.Dispatcher):
                        looked_at += 1
                        if counts(called.dispatcher) and holds_array(signature.return_type):
                            wrong.append((caller.__name__, called.dispatcher.__name__))
        print(looked_at > 50, wrong)
        """
    )
    (folder / "kernel.py").write_text(code)
    assert run(folder, NUMBA_CACHE_DIR=str(folder / "cache")) == ["True []"]
