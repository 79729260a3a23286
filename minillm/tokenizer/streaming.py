"""Text from ids that arrive one by one, never with half a character in it."""

from __future__ import annotations

import codecs

from minillm.tokenizer.base import Tokenizer


class StreamDecoder:
    """Turns ids into text as they come.

    A token of a byte-level vocabulary may end in the middle of a UTF-8 character. The bytes of the
    unfinished character wait here until the next ids complete it. All pieces of text together are
    what `Tokenizer.decode` gives.

    >>> from minillm.tokenizer.bpe import BPETokenizer
    >>> stream = StreamDecoder(BPETokenizer.of_bytes())
    >>> [stream.push(byte) for byte in "né".encode()]
    ['n', '', 'é']
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is unfinished."""
        data = self.tokenizer.token_bytes(int(token))
        if data and not self._begun:
            data, self._begun = data.removeprefix(self.tokenizer.front), True
        return self._utf8.decode(data)

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        self._begun = False
        return rest
