"""JSON and arrays on disk: written whole, and read with one clear error where they are damaged."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from minillm import backend, files
from minillm.backend import Array
from minillm.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `CheckpointError` where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is cut off or damaged: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object")
    return content


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a safetensors file, by name. Raises `CheckpointError` where it is not whole."""
    check_arrays(path)
    return load_file(path)


def check_arrays(path: Path) -> None:
    """Raise `CheckpointError` unless a safetensors file is there and whole; looks at little of it.

    Its header says how long it must be, so a file that was cut off gives itself away.
    """
    try:
        with safe_open(path, framework="numpy"):
            pass
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is cut off or damaged: {error}") from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write a safetensors file, whole or not at all. Raises `OSError` where it does not fit."""
    host = {name: np.ascontiguousarray(backend.to_numpy(a)) for name, a in arrays.items()}
    with files.replacing(path) as temporary:
        try:
            save_file(host, temporary)
        except SafetensorError as error:
            raise _system_error(error, path) from error


@contextlib.contextmanager
def explaining(what: str, size: int, folder: Path) -> Iterator[None]:
    """Let an `OSError` say what could not be written, and of how many bytes where the disk is full.

    The block writes `what`, `size` bytes, to somewhere in `folder`.
    """
    try:
        yield
    except OSError as error:
        words = f"{error.strerror or error}, writing {what}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(folder).free
            words += f", which takes {size / 1e6:,.1f} MB ({free / 1e6:,.1f} MB are free)"
        raise OSError(error.errno, words, str(error.filename or folder)) from error


def _system_error(error: SafetensorError, path: Path) -> OSError:
    """The system's error inside one of safetensors': "... (os error 28)"."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number) if found else str(error), str(path))
