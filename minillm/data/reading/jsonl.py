"""JSON Lines: one object per line, with the text under one key and whatever else beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minillm.data.documents import UNREADABLE, Document, Rejected
from minillm.data.reading.streams import Broken, Line, chunks, lines
from minillm.data.reading.text import rejected
from minillm.data.recipe import ReadingConfig

NOTE = 300  # characters of a value that is kept beside the text
OURS = {"collection", "language", "markup", "quality", "split", "weight"}  # what stages note


def read(
    path: Path, name: str, config: ReadingConfig, start: int = 0, stop: int | None = None
) -> Iterator[Document | Rejected]:
    """The documents whose lines begin in bytes `start` to `stop` of a file."""
    first = max(start - 1, 0)  # to see whether a line begins at `start`
    for line in lines(chunks(path, config.max_ratio, first), config.max_bytes, first):
        if stop is not None and line.place >= stop:
            return
        if line.place < start:
            continue
        where = f"{name}@{line.place}"
        if isinstance(line, Broken):
            yield rejected(where, line)
        elif line.data.strip():
            yield _document(line, where, config)


def _document(line: Line, where: str, config: ReadingConfig) -> Document | Rejected:
    try:
        found = json.loads(line.data)
        if b"\\ud" in line.data or b"\\uD" in line.data:  # perhaps half a surrogate pair
            text = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
            found = json.loads(text.decode("utf-16", "replace"))
    except (ValueError, RecursionError) as error:
        why = f"the line is not JSON: {' '.join(str(error).split()) or 'nested too deeply'}"
        return rejected(where, Broken(0, why, line.data[:1000]))
    if isinstance(found, dict):
        for field in config.text_fields:
            if isinstance(text := found.pop(field, None), str):
                return Document(text, where, notes(found))
    wanted = " or ".join(map(repr, config.text_fields))
    had = f"an object with {', '.join(found) or 'nothing'}" if isinstance(found, dict) else "none"
    why = f"the line is no object with a text under {wanted}, but {had}"
    return Rejected(Document(line.data[:1000].decode("utf-8", "replace"), where), UNREADABLE, why)


def notes(found: dict[str, Any]) -> dict[str, str]:
    """What stands beside a text, as metadata: short values, and those of objects inside.

    A field that has the name of a note of ours is kept under another.

    >>> notes({"id": 3, "quality": "good", "about": {"url": "u"}})
    {'id': '3', 'source.quality': 'good', 'about.url': 'u'}
    """
    kept = {}
    for key, value in found.items():
        inner = value.items() if isinstance(value, dict) else ((None, value),)
        for below, item in inner:
            if isinstance(item, str | int | float) and len(shown := str(item)) <= NOTE:
                name = f"source.{key}" if key in OURS else key
                kept[name if below is None else f"{key}.{below}"] = shown
    return kept
