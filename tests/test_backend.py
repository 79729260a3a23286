"""Which arrays and kernels are in use, and on how many threads."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from minillm import backend
from minillm.errors import BackendError, InputError


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=False,
        env={**os.environ, "NUMBA_DISABLE_JIT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(autouse=True)
def _as_before() -> None:
    with backend.use(backend.name()):
        yield


def test_use_is_for_good_or_for_a_block() -> None:
    backend.use("numba")
    with backend.use("numpy"):
        assert backend.name() == "numpy"
        with backend.use("numba"):
            assert backend.name() == "numba"
        assert backend.name() == "numpy"
    assert backend.name() == "numba"
    with pytest.raises(ZeroDivisionError), backend.use("numpy"):
        raise ZeroDivisionError
    assert backend.name() == "numba"


def test_the_environment_chooses() -> None:
    show = "from minillm import backend; print(backend.name())"
    assert python(show, MINILLM_BACKEND="numpy").stdout.strip() == "numpy"
    unset = "import os; os.environ.pop('MINILLM_BACKEND', None); "
    assert python(unset + show).stdout.strip() == "numba"


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(BackendError, match="'jax'; choose one of numpy, numba, cupy"):
        backend.use("jax")
    failed = python("from minillm import backend; backend.name()", MINILLM_BACKEND="jax")
    assert "BackendError: unknown backend 'jax'" in failed.stderr


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install numba"):
        backend.use("numba")
    before = backend.name()
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match="minillm\\[gpu\\]"), backend.use("cupy"):
        pass
    assert backend.name() == before


def test_the_twins_serve_numpy_arrays_under_numba_only() -> None:
    array = np.ones(3)
    with backend.use("numba"):
        assert backend.fast(array, array)
        assert not backend.fast(array, array.view(np.recarray))
    with backend.use("numpy"):
        assert not backend.fast(array)


def test_arrays_come_and_go_without_needless_copies() -> None:
    array = np.ones(3)
    assert backend.asarray(array) is array
    assert backend.to_numpy(array) is array
    assert backend.asarray([1, 2], dtype=np.float32).dtype == np.float32
    assert backend.to_numpy(2.5).shape == ()
    assert backend.array_module(array) is np
    assert backend.array_module(3.0) is np
    assert backend.module() is np


def test_threads_are_set_for_numba_and_blas() -> None:
    code = """
import numpy, threadpoolctl
from minillm import backend
backend.set_threads(1)
import numba
from minillm.jit import jit
@jit
def one():
    return 1
one()
# SciPy, where it is installed, comes in with Numba and brings a BLAS that nobody here calls.
blas = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas" and "scipy.libs" not in pool["filepath"]]
print(backend.threads(), numba.get_num_threads(), set(blas) <= {1})
"""
    for code_and_environment in (
        python(code),
        python(code.replace("backend.set_threads(1)", "backend.threads()"), MINILLM_THREADS="1"),
    ):
        assert code_and_environment.stdout.split() == ["1", "1", "True"], code_and_environment


def test_threads_in_the_environment_hold_for_blas_without_numba() -> None:
    code = """
import threadpoolctl
from minillm import backend
backend.name()
print([pool["num_threads"] for pool in threadpoolctl.threadpool_info()])
"""
    assert python(code, MINILLM_THREADS="1", MINILLM_BACKEND="numpy").stdout.strip() == "[1]"


def test_numbas_own_setting_bounds_the_threads() -> None:
    code = """
from minillm.jit import jit
from minillm import backend
@jit
def one():
    return 1
print(one(), backend.threads())
"""
    assert python(code, NUMBA_NUM_THREADS="1").stdout.split() == ["1", "1"]


@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_an_impossible_number_of_threads_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"{count} threads wanted, but this process can use 1 to"):
        backend.set_threads(count)


def test_threads_in_the_environment_must_be_a_number() -> None:
    failed = python("from minillm import backend; backend.threads()", MINILLM_THREADS="many")
    assert "MINILLM_THREADS is 'many'; it takes a whole number" in failed.stderr


def test_importing_the_library_loads_neither_numba_nor_a_gpu() -> None:
    code = """
import sys
import minillm, minillm.autograd.functional, minillm.models.gpt, minillm.tokenizer
print([name for name in ("numba", "llvmlite", "cupy", "torch", "transformers")
       if name in sys.modules])
"""
    assert python(code).stdout.strip() == "[]"


def test_parts_of_the_package_are_there_after_importing_it() -> None:
    code = """
import minillm
with minillm.backend.use("numpy"):
    print(minillm.backend.name(), hasattr(minillm, "nothing"), hasattr(minillm, "__path__"))
"""
    assert python(code).stdout.split() == ["numpy", "False", "True"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is freed is glibc's affair")
@pytest.mark.parametrize("returned", [True, False])
def test_freed_memory_goes_back_where_that_is_asked_for(returned: bool) -> None:
    found = python(f"""
        import resource
        import numpy as np
        from minillm import backend
        if {returned}:
            backend.return_freed_memory()
        backend.keep_freed_memory()  # as the first kernel does
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
        before = resident()
        arrays = [np.ones(2_000_000) for _ in range(10)]
        assert resident() - before > 150e6
        last = np.ones(300_000)
        del arrays
        print(resident() - before < 50e6)
    """)
    assert found.stdout.strip() == str(returned), found.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is glibc's affair")
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no huge pages on this system"
)
def test_the_heap_of_training_is_given_in_huge_pages() -> None:
    found = python("""
        import numpy as np
        from minillm import backend
        backend.keep_freed_memory()
        arrays = [np.ones(100_000) for _ in range(10)]  # too small for NumPy to ask for such pages
        for line in open("/proc/self/smaps"):
            first = line.split()[0]
            if not first.endswith(":"):
                start, end = (int(n, 16) for n in first.split("-"))
                inside = start <= arrays[-1].ctypes.data < end
            elif inside and first == "VmFlags:":
                print("hg" in line.split())
    """)
    assert found.stdout.strip() == "True", found.stderr
