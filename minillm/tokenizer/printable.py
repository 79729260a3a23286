"""Bytes as printable characters and back: GPT-2's way to write byte tokens into text files.

A byte that is a printable Latin-1 character stands for itself; the other 68 take the characters
from U+0100 on, in order. So a space is written "Ġ" and a newline "Ċ".
"""

from __future__ import annotations

from minillm.errors import InputError


def _alphabet() -> list[str]:
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


ALPHABET = _alphabet()  # character of each byte
_BYTE_OF = {ord(character): byte for byte, character in enumerate(ALPHABET)}
_SPELL = {byte: character for byte, character in enumerate(ALPHABET)}


def to_printable(data: bytes) -> str:
    """`data` with one printable character per byte.

    >>> to_printable(b" low\\n")
    'ĠlowĊ'
    """
    return data.decode("latin-1").translate(_SPELL)


def from_printable(text: str) -> bytes:
    """The bytes that `to_printable` wrote. Raises `InputError` for any other character."""
    try:
        return bytes([_BYTE_OF[ord(character)] for character in text])
    except (KeyError, TypeError):
        raise InputError(
            f"token {text!r} is not written in GPT-2's alphabet of 256 printable bytes"
        ) from None
