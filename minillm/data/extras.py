"""Packages that only some kinds of files need, loaded when such a file comes."""

from __future__ import annotations

import importlib
from types import ModuleType

from minillm.errors import InputError


def needed(package: str, what: str, extra: str = "data") -> ModuleType:
    """The package, or an `InputError` that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{what} needs the package {package.partition('.')[0]},"
            f" which comes with pip install 'minillm[{extra}]'"
        ) from error
