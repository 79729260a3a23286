"""Writing files so that a reader never sees half of one, and one writer to a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from minillm.errors import InputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it and rename it over `path`.

    A crash at any moment leaves either the old file or the new one, never a mixture, because
    `os.replace` is atomic within one directory. An exception removes the temporary file.

    >>> with replacing("/tmp/minillm-doctest.txt") as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    >>> Path("/tmp/minillm-doctest.txt").read_text()
    'whole or not at all'
    """
    target = Path(path)
    with _naming(target):
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            flush(temporary)
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, target)
            flush(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Let errors name `target`: those of a full disk name no file, others the temporary one."""
    try:
        yield
    except OSError as error:
        hidden = Path(str(error.filename)).name.startswith(f".{target.name}.")
        if error.errno is not None and (error.filename is None or hidden):
            error.filename = str(target)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Put a file, or the names in a directory, on the disk, so that a power cut spares them."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # Windows cannot open a directory
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, doing: str = "training") -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends.

    Raises `InputError` where another process holds it, and says what that one is `doing`.
    """
    try:
        import fcntl  # not on Windows, where two writers in one folder are the user's to avoid
    except ImportError:
        yield
        return
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is {doing} in {folder}; wait for it") from error
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
