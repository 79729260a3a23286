"""Packages that only some kinds of files need, loaded when such a file comes."""

from __future__ import annotations

import importlib
from types import ModuleType

from minillm.errors import InputError


def needed(package: str, what: str) -> ModuleType:
    """The package, or an `InputError` that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{what} needs the package {package.partition('.')[0]}:"
            " pip install 'minillm[data]' brings all formats"
        ) from error
