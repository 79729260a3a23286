"""From ids to text that may be shown, up to a stop string.

Two things can be incomplete when a token arrives. Its last bytes may begin a character, which
`StreamDecoder` waits for; and its last characters may begin a stop string, which must not be shown
once it turns out to be one. So both are held back until the next tokens decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from minillm.errors import InputError
from minillm.tokenizer import StreamDecoder, Tokenizer


class TextOut:
    """The text of one row as its tokens come; without a tokenizer, no text.

    >>> from minillm.tokenizer import BPETokenizer
    >>> out = TextOut(BPETokenizer.of_bytes(), stop=["ab"])
    >>> [out.push(byte) for byte in b"xab"]
    [('x', False), ('', False), ('', True)]
    """

    def __init__(self, tokenizer: Tokenizer | None, stop: Sequence[str] = ()) -> None:
        if isinstance(stop, str) or "" in stop:
            raise InputError(f"stop={stop!r}; it takes a list of strings that are not empty")
        self._decoder = None if tokenizer is None else StreamDecoder(tokenizer)
        self._stop = tuple(stop)
        self._held = ""  # complete characters that a stop string might begin with

    def push(self, token: int) -> tuple[str, bool]:
        """The text to show now, and whether a stop string has come; text after it is dropped."""
        if self._decoder is None:
            return "", False
        text = self._held + self._decoder.push(token)
        found = [start for string in self._stop if (start := text.find(string)) >= 0]
        if found:
            self._decoder.finish()
            self._held = ""
            return text[: min(found)], True
        shown = len(text) - self._beginning(text)
        self._held = text[shown:]
        return text[:shown], False

    def finish(self) -> str:
        """What was held back, now that nothing follows; U+FFFD for an unfinished character."""
        rest = self._held + (self._decoder.finish() if self._decoder else "")
        self._held = ""
        return rest

    def _beginning(self, text: str) -> int:
        """How many of the last characters a stop string begins with."""
        longest = max(map(len, self._stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(string.startswith(text[-size:]) for string in self._stop):
                return size
        return 0
