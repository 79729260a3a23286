"""Programs that tests run in a process of their own, as a user would start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(folder: Path, **environment: str) -> list[str]:
    """What `kernel.py` in `folder` prints, by lines; it must end well. Kernels are compiled."""
    done = subprocess.run(
        [sys.executable, "kernel.py"],
        check=False,
        cwd=folder,
        env={**os.environ, "NUMBA_DISABLE_JIT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
