"""minillm: a large language model from raw text to a chat window, written to be read."""

import importlib
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Load a part when it is first asked for, so that `minillm.backend.use("numpy")` just works."""
    full = f"{__name__}.{name}"
    try:
        if not name.startswith("_"):
            return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name != full:  # the part is there; what it needs is not
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
