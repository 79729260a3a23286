"""Parquet: a table with the texts in one column, read some rows at a time.

A row is a document; or a line (WikiText), and then marks part the documents as in a text file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillm.data.documents import Document, Rejected
from minillm.data.extras import needed
from minillm.data.reading.jsonl import notes
from minillm.data.reading.streams import FREE, Broken, Line
from minillm.data.reading.text import parted, rejected
from minillm.data.recipe import ReadingConfig

AT_ONCE = 1 << 24  # about this many bytes of texts are unpacked at once


def row_groups(path: Path) -> list[int]:
    """Bytes of each row group, which can be read by itself; one of all where it is damaged."""
    try:
        about = _open(path).metadata
    except (OSError, ValueError):  # pyarrow's errors are both or either
        return [path.stat().st_size]
    return [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]


def read(
    path: Path, name: str, config: ReadingConfig, start: int = 0, stop: int | None = None
) -> Iterator[Document | Rejected]:
    """The documents of row groups `start` to `stop`; with rows as lines, those that begin there."""
    try:
        file = _open(path)
    except (OSError, ValueError) as error:
        yield rejected(name, Broken(0, f"no Parquet file: {_line(error)}"))
        return
    fields = file.schema_arrow.names
    field = next((name for name in config.text_fields if name in fields), None)
    if field is None:
        wanted = " or ".join(map(repr, config.text_fields))
        yield rejected(name, Broken(0, f"no column {wanted}, but {', '.join(fields)}"))
        return
    if config.rows == "lines":
        rows = (
            row if isinstance(row, Broken) else Line(row.place, row.text.rstrip("\n").encode())
            for row in _rows(file, field, config, start, file.num_row_groups)
        )
        end = None if stop is None else _first_row(file, stop)
        yield from parted(rows, name, config, _first_row(file, start), end)
        return
    for row in _rows(file, field, config, start, file.num_row_groups if stop is None else stop):
        where = f"{name}@{row.place}"
        if isinstance(row, Broken):
            yield rejected(where, row)
        else:
            yield Document(row.text, where, notes(row.beside))


@dataclass(frozen=True)
class _Row:
    """A row: its number, its text, and what stands beside that."""

    place: int
    text: str
    beside: dict[str, Any]


def _rows(
    file: Any, field: str, config: ReadingConfig, start: int, stop: int
) -> Iterator[_Row | Broken]:
    """The rows of groups `start` to `stop`."""
    for group in range(start, stop):
        try:
            yield from _rows_of(file, group, field, config)
        except (OSError, ValueError) as error:
            yield Broken(_first_row(file, group), f"row group {group} is damaged: {_line(error)}")


def _rows_of(file: Any, group: int, field: str, config: ReadingConfig) -> Iterator[_Row | Broken]:
    """The rows of one group.

    A text that comes often is stored once, so that a small file can hold any number of long texts:
    the column stays packed like that until each text is taken.
    """
    about = file.metadata.row_group(group)
    at_once = max(1, min(1024, AT_ONCE * about.num_rows // max(1, about.total_byte_size)))
    size, number = 0, _first_row(file, group)
    most = max(FREE, config.max_ratio * about.total_byte_size)
    for batch in file.iter_batches(at_once, row_groups=[group]):
        texts = batch.column(field)
        others = batch.drop_columns([field])
        for i in range(batch.num_rows):
            text, place, number = texts[i].as_py(), number, number + 1
            if not isinstance(text, str):
                yield Broken(place, f"the column {field!r} holds {type(text).__name__}, no text")
                continue
            size += len(text)
            if size > most:
                why = f"an archive bomb: {about.total_byte_size:,} bytes unpack to over {size:,}"
                yield Broken(place, why)
                return
            if len(text) > config.max_bytes:
                why = f"a text of {len(text):,} characters; at most {config.max_bytes:,} are read"
                yield Broken(place, why, text[:1000].encode("utf-8", "replace"))
                continue
            beside = {key: others.column(key)[i].as_py() for key in others.schema.names}
            yield _Row(place, text, beside)


def _open(path: Path) -> Any:
    """The file, with texts left in the dictionary that each column may have."""
    parquet = needed("pyarrow.parquet", "a .parquet file")
    arrow = needed("pyarrow", "a .parquet file")
    names = parquet.read_schema(path)
    texts = [
        field.name
        for field in names
        if arrow.types.is_string(field.type) or arrow.types.is_large_string(field.type)
    ]
    return parquet.ParquetFile(path, read_dictionary=texts)


def _first_row(file: Any, group: int) -> int:
    return sum(file.metadata.row_group(i).num_rows for i in range(group))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
