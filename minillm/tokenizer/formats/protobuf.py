"""Just enough of the protocol buffer wire format to read a SentencePiece model.

A message is a row of fields: a key (field number * 8 + wire type) and a value. Wire type 0 is a
variable-length integer, 1 eight bytes, 2 a length and that many bytes, 5 four bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from minillm.errors import InputError


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value. Raises `InputError` where it is cut off."""
    place = 0
    while place < len(data):
        key, place = _integer(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _integer(data, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _integer(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise InputError(f"byte {place} is no field of a protocol buffer (wire type {wire})")
        if place + size > len(data):
            raise InputError(f"it ends in the middle of field {number}, at byte {len(data)}")
        yield number, data[place : place + size]
        place += size


def _integer(data: bytes, place: int) -> tuple[int, int]:
    """The variable-length integer at `place`, seven bits a byte, and where it ends."""
    value, shift = 0, 0
    while True:
        if place >= len(data) or shift > 63:
            raise InputError(f"it ends in the middle of a number, at byte {place}")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
