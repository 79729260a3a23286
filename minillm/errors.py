"""The errors a user can cause, each one sentence: what came, what was needed, what to do."""


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
