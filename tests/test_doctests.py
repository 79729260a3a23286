"""The examples in the docstrings say what the code does."""

import doctest
import importlib
import pkgutil

import pytest

import minillm
from minillm import backend

NAMES = [info.name for info in pkgutil.walk_packages(minillm.__path__, "minillm.")]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("__main__")])
def test_examples(name):
    module = importlib.import_module(name)
    if backend.name() != "numba":
        pytest.skip("the examples show the default backend's numbers")
    assert doctest.testmod(module).failed == 0
