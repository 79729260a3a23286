"""Compiled code on disk: whoever is killed or writes at the same time, no call gets other code."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from minillm import jit

SOURCE = """
from minillm.jit import jit

@jit
def double(x):
    return x + x
"""

pytestmark = pytest.mark.skipif(jit.disabled(), reason="nothing is compiled")


def fresh(path):
    """`double` as a new process would find it."""
    spec = importlib.util.spec_from_file_location("doubling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.double


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.config.CACHE_DIR", "")  # beside the file, whatever the environment
    file = tmp_path / "doubling.py"
    file.write_text(SOURCE)
    return file


@pytest.mark.parametrize("step", ["_save_data", "_save_index"])
def test_dying_between_the_two_files_leaves_no_wrong_entry(path, monkeypatch, step):
    assert fresh(path)(np.float32(1)) == 2
    path.write_text(SOURCE.replace("x + x", "x + x + x"))  # new code, with the same signature

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(IndexDataCacheFile, step, die)
    with pytest.raises(KeyboardInterrupt):
        fresh(path)(np.float32(1))
    monkeypatch.undo()
    assert fresh(path)(np.float32(1)) == 3


def test_a_file_that_is_edited_while_a_process_runs_leaves_no_old_code_under_a_new_stamp(
    path, monkeypatch
):
    imported, compiled = fresh(path), []
    monkeypatch.setattr(jit, "on_compile", lambda *told: compiled.append(told))
    path.write_text(SOURCE.replace("x + x", "x * x * x"))
    os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))  # even where the clock is coarse
    assert imported(np.float32(3)) == 6  # what was imported
    assert compiled == [("doubling.double", False)]  # and it is not kept
    assert not list(path.parent.glob("__pycache__/*.nbc"))
    assert fresh(path)(np.float32(3)) == 27
    assert list(path.parent.glob("__pycache__/*.nbc"))


def test_other_fastmath_flags_compile_again(path, monkeypatch):
    compiled = []
    monkeypatch.setattr(jit, "on_compile", lambda *told: compiled.append(told))
    for flags in (jit.FASTMATH, jit.FASTMATH, jit.FASTMATH - {"reassoc"}, set(jit.FASTMATH)):
        monkeypatch.setattr(jit, "FASTMATH", flags)
        assert fresh(path)(np.float32(1)) == 2
    # the second finds the first's code; the fourth's was replaced by the third's
    assert compiled == [("doubling.double", True)] * 3


def test_a_full_disk_is_told_of_from_the_second_kernel_on(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    kept = []
    monkeypatch.setattr(jit, "on_compile", lambda _, will_be_kept: kept.append(will_be_kept))
    monkeypatch.setattr(IndexDataCacheFile, "_save_data", full)
    double = fresh(path)
    assert (double(1.0), double(1), double(np.float32(1))) == (2, 2, 2)
    assert kept == [True, False, False]


WITH_OPTIONS = """
import os
from minillm.jit import jit

def marked(function):  # as it might stand in another file
    return jit(function, error_model=os.environ["MODEL"])

@marked
def divided(x):
    return x / (x - x)

@jit
def double(x):
    return divided(x)
"""


def test_other_constants_compile_again(path, monkeypatch):
    path.write_text(SOURCE.replace("x + x", "FACTOR * x") + "\nimport os\n"
                    'FACTOR = int(os.environ["FACTOR"])  # as it might come from another file\n')  # fmt: skip
    for factor in "2", "3":
        monkeypatch.setenv("FACTOR", factor)
        assert fresh(path)(1.0) == int(factor)


def test_other_options_of_a_function_compile_its_callers_again(path, monkeypatch):
    path.write_text(WITH_OPTIONS)
    monkeypatch.setenv("MODEL", "numpy")
    assert fresh(path)(1.0) == np.inf
    monkeypatch.setenv("MODEL", "python")
    with pytest.raises(ZeroDivisionError):
        fresh(path)(1.0)


def test_writers_at_the_same_time_do_not_mix_up_signatures(path):
    one, other = fresh(path), fresh(path)
    one(np.float64(1))
    cache = one.compiled()._cache._cache_file
    cache._save_index({})  # as by a process that had read the index before `one` wrote to it
    other(np.float32(1))
    again = fresh(path)
    assert again(np.float64(1.5)) == 3
    assert again(np.float32(1.5)) == 3
    assert len(list(path.parent.glob("__pycache__/*.nbc"))) == 2


KERNELS = """
import numpy as np
from minillm.kernels import cross_entropy, layer_norm, log_softmax, rms_norm, softmax, swiglu

x = np.random.default_rng(0).standard_normal((256, 1000), dtype=np.float32)
weight, targets = x[0], np.arange(256)
y, *kept = layer_norm.forward(x, weight, weight)
results = [y, *layer_norm.backward(y, x, weight, *kept)]
y, *kept = rms_norm.forward(x, weight)
results += [y, *rms_norm.backward(y, x, weight, *kept)]
losses, lse = cross_entropy.forward(x, targets)
results += [losses, cross_entropy.backward(losses, x, targets, lse)]
results += [log_softmax.forward(x), log_softmax.backward(x, x)]
results += [softmax.forward(x), softmax.backward(x, x), *swiglu.backward(x, x, x)]
for result in results:
    print(hash(result.tobytes()))
"""


@pytest.mark.slow
def test_a_process_that_compiles_computes_the_same_bits_as_one_that_loads(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"}
    one, other = (
        subprocess.run(
            [sys.executable, "-c", KERNELS],
            check=True, env=environment, capture_output=True, text=True, timeout=300,
        ).stdout
        for _ in range(2)
    )  # fmt: skip
    assert one.count("\n") == 15
    assert one == other
