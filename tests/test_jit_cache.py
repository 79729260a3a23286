"""Compiled code on disk: whoever is killed or writes at the same time, no call gets other code."""

import importlib.util

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
def path(tmp_path):
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
