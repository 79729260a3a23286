"""SentencePiece's table of characters to replace, as a model file holds it.

Four bytes say how long the trie is; the trie (a double array in 32-bit units, made by the library
Darts) maps UTF-8 strings to places in what follows it, the replacements, each ending in a zero
byte. At every place of a text the longest string of the trie that begins there is replaced.
"""

from __future__ import annotations

import struct

import numpy as np

from minillm.errors import InputError


class CharsMap:
    """Replaces characters as a precompiled table says."""

    def __init__(self, table: bytes) -> None:
        size = struct.unpack_from("<I", table)[0] if len(table) >= 4 else -1
        if size < 4 or size % 4 or 4 + size > len(table):
            raise InputError("the table of characters to replace is cut off")
        self.table = table
        self._units: list[int] = np.frombuffer(table, "<u4", size // 4, 4).tolist()
        self._replacements = table[4 + size :]

    def apply(self, text: str) -> str:
        """`text` with every string that the table knows replaced, the longest first."""
        data = text.encode()
        pieces: list[bytes] = []
        place = 0
        while place < len(data):
            found, size = self._longest(data, place)
            if size == 0:
                byte = data[place]
                size = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                pieces.append(data[place : place + size])
            else:
                end = self._replacements.index(b"\0", found)
                pieces.append(self._replacements[found:end])
            place += size
        return b"".join(pieces).decode()

    def apply_to_graphemes(self, text: str) -> str:
        """`text` as Hugging Face's twin of `apply` does it, which is not quite the same.

        What a reader takes for one character (a letter and its marks) is replaced as a whole, by
        what belongs to the shortest known string that it starts with; if none is, or it has six
        bytes or more, every code point alone.
        """
        import regex  # takes 50 ms to load

        pieces: list[str] = []
        for grapheme in regex.findall(r"\X", text):
            found = self._shortest(grapheme.encode()) if len(grapheme.encode()) < 6 else None
            if found is not None:
                pieces.append(found)
                continue
            for letter in grapheme:
                found = self._shortest(letter.encode())
                pieces.append(letter if found is None else found)
        return "".join(pieces)

    def _shortest(self, data: bytes) -> str | None:
        """The replacement of the shortest known string that `data` starts with."""
        for size in range(1, len(data) + 1):
            found, known = self._longest(data[:size], 0)
            if known:
                return self._replacements[found : self._replacements.index(b"\0", found)].decode()
        return None

    def _longest(self, data: bytes, place: int) -> tuple[int, int]:
        """Where the replacement of the longest known string at `place` is, and that one's size."""
        units = self._units
        found, size = -1, 0
        node = _offset(units[0])
        for end in range(place, len(data)):
            node ^= data[end]
            if node >= len(units):
                break
            unit = units[node]
            if unit & 0x800000FF != data[end]:
                break
            node ^= _offset(unit)
            if unit >> 8 & 1 and node < len(units):
                found, size = units[node] & 0x7FFFFFFF, end + 1 - place
        return found, size


def _offset(unit: int) -> int:
    """How far the children of a unit are from it, as Darts packs it."""
    return (unit >> 10) << ((unit & 0x200) >> 6)
