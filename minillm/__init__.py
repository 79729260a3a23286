"""minillm: a large language model from raw text to a chat window, written to be read."""

__version__ = "0.1.0"
