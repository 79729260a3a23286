"""The errors a user can cause, each one sentence: what came, what was needed, what to do.

Below them, words that such sentences share.
"""

from __future__ import annotations

from collections.abc import Iterable


class MiniLLMError(Exception):
    """Base of every error that names a mistake in what the library was given.

    The command line prints the message of these on one line and exits with status 2.
    """


class InputError(MiniLLMError, ValueError):
    """A value, a setting or a file's content that cannot be used."""


class BackendError(MiniLLMError, RuntimeError):
    """A backend that is unknown or cannot run on this machine."""


class GraphError(MiniLLMError, RuntimeError):
    """A use of the autograd graph that would give a wrong gradient."""


class CheckpointError(MiniLLMError, ValueError):
    """A run folder or checkpoint file that cannot be read, or is of another model."""


def nearest(word: str, choices: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """The end of a sentence about a word that is not among `choices`: the most similar one, or all.

    `listed`: those to name where none is similar, if not all.

    >>> "no model is called 'lama'" + nearest("lama", ["gpt", "llama"])
    "no model is called 'lama'; did you mean 'llama'?"
    """
    import difflib  # only a mistake needs it

    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    listed = choices if listed is None else list(listed)
    return f"; there are {', '.join(listed)}" if listed else ""


def counted(number: int, noun: str) -> str:
    """`number` of what `noun` names, in the plural where it is not one.

    >>> counted(1, "document"), counted(1200, "document")
    ('1 document', '1,200 documents')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
