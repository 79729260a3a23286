"""Parquet: a table with the texts in one column, read some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minillm.data.documents import Document, Rejected
from minillm.data.extras import needed
from minillm.data.reading.jsonl import notes
from minillm.data.reading.streams import FREE, Broken
from minillm.data.reading.text import rejected
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
    """The documents of row groups `start` to `stop`."""
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
    for group in range(start, file.num_row_groups if stop is None else stop):
        try:
            yield from _read_group(file, group, name, field, config)
        except (OSError, ValueError) as error:
            why = f"row group {group} is damaged: {_line(error)}"
            yield rejected(f"{name}@{_first_row(file, group)}", Broken(0, why))


def _read_group(
    file: Any, group: int, name: str, field: str, config: ReadingConfig
) -> Iterator[Document | Rejected]:
    """The documents of one row group.

    A text that comes often is stored once, so that a small file can hold any number of long texts:
    the column stays packed like that until each text is taken.
    """
    about = file.metadata.row_group(group)
    rows = max(1, min(1024, AT_ONCE * about.num_rows // max(1, about.total_byte_size)))
    size, row = 0, _first_row(file, group)
    most = max(FREE, config.max_ratio * about.total_byte_size)
    for batch in file.iter_batches(rows, row_groups=[group]):
        texts = batch.column(field)
        others = batch.drop_columns([field])
        for i in range(batch.num_rows):
            where, row = f"{name}@{row}", row + 1
            text = texts[i].as_py()
            if not isinstance(text, str):
                why = f"the column {field!r} holds {type(text).__name__}, no text"
                yield rejected(where, Broken(0, why))
                continue
            size += len(text)
            if size > most:
                why = f"an archive bomb: {about.total_byte_size:,} bytes unpack to over {size:,}"
                yield rejected(where, Broken(0, why))
                return
            if len(text) > config.max_bytes:
                why = f"a text of {len(text):,} characters; at most {config.max_bytes:,} are read"
                yield rejected(where, Broken(0, why, text[:1000].encode("utf-8", "replace")))
                continue
            beside = {key: others.column(key)[i].as_py() for key in others.schema.names}
            yield Document(text, where, notes(beside))


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
