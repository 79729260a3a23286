"""Which files there are, and which worker reads what of them.

The input is cut into pieces of about one size: a range of bytes of a large file, a range of row
groups of a Parquet file, or several small files in a row. How it is cut changes nothing but who
reads what: the documents of all pieces, one after the other, are the documents of the input in the
order of its files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minillm.data.documents import UNREADABLE, Document, Rejected
from minillm.data.extraction import extract
from minillm.data.reading import jsonl, parquet, text, warc
from minillm.data.reading.streams import COMPRESSED
from minillm.data.recipe import ExtractionConfig, ReadingConfig
from minillm.errors import InputError

KINDS = {
    ".txt": "text", ".text": "text", ".md": "text", ".markdown": "text", ".rst": "text",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".warc": "warc", ".wet": "warc",
}  # fmt: skip
UNREAD = (".json", ".csv", ".tsv")  # text, but of a form that would be learned with its content


@dataclass(frozen=True)
class Part:
    """All of a file, or a range of it: bytes, or row groups of a Parquet file."""

    path: str
    name: str  # in the names of documents: relative to what the user named
    collection: str
    size: int  # in bytes, about
    start: int = 0
    stop: int | None = None


Piece = tuple[Part, ...]  # what one worker reads at a time


@dataclass(frozen=True)
class Plan:
    """The input: its files, what was left out, and how it is cut."""

    pieces: tuple[Piece, ...]
    left_out: Mapping[str, int]  # files under folders that are of no known kind, by suffix


def plan(sources: Mapping[str, Iterable[str | os.PathLike[str]]], config: ReadingConfig) -> Plan:
    """Find the files of all sources and cut them into pieces.

    Args:
        sources: the paths of each collection. A file is read whatever its name, as text if nothing
            else (but for `UNREAD`); under a folder, those of a known kind are.
        config: how to read and cut.

    Raises `InputError` where a path does not exist, is of a form that has no reader, or a format
    needs a package that is missing.
    """
    parts: list[Part] = []
    left_out: Counter[str] = Counter()
    for collection, paths in sources.items():
        for path in map(Path, paths):
            for file, name in _files(path, left_out):
                parts += _parts(file, name, collection, config)
    return Plan(tuple(grouped(parts, config.piece_bytes)), dict(sorted(left_out.items())))


def _files(path: Path, left_out: Counter[str]) -> Iterator[tuple[Path, str]]:
    """Files and their names, in a fixed order."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            inside = file.relative_to(path)
            if not file.is_file() or any(part.startswith(".") for part in inside.parts):
                continue
            if kind(file.name) is None:
                left_out[file.suffix or file.name] += 1
            else:
                yield file, inside.as_posix()
    elif not path.exists():
        raise InputError(f"{path} does not exist; give a file of text or a folder of them")
    elif path.suffix.lower() in UNREAD:
        raise InputError(
            f"{path}: no reader for {path.suffix} files; there are some for {', '.join(KINDS)},"
            ' and JSON Lines have one {"text": ...} on each line'
        )
    else:
        yield path, path.name


def kind(name: str) -> str | None:
    """How a file of this name is read; None where its name says nothing."""
    plain = Path(name.lower())
    return KINDS.get(Path(plain.stem).suffix if plain.suffix in COMPRESSED else plain.suffix)


def _parts(file: Path, name: str, collection: str, config: ReadingConfig) -> Iterator[Part]:
    """A file, cut where it is large and can be read from the middle on."""
    size, how = file.stat().st_size, kind(name) or "text"
    path = str(file.resolve())
    step = config.piece_bytes
    ranged = how == "jsonl" or (how == "text" and bool(config.separator or config.heading))
    if how == "parquet":
        groups = parquet.row_groups(file)
        first = held = 0
        for number, group in enumerate(groups):
            if held and held + group > step:
                yield Part(path, name, collection, held, first, number)
                first, held = number, 0
            held += group
        yield Part(path, name, collection, held, first, None)
    elif ranged and file.suffix.lower() not in COMPRESSED and size > step:
        for start in range(0, size, step):
            stop = start + step if start + step < size else None
            yield Part(path, name, collection, min(step, size - start), start, stop)
    else:
        yield Part(path, name, collection, size)


def grouped(parts: Sequence[Part], size: int) -> Iterator[Piece]:
    """Parts in the same order, small ones together, of about `size` bytes."""
    held: list[Part] = []
    for part in parts:
        if held and sum(p.size for p in held) + part.size > size:
            yield tuple(held)
            held = []
        held.append(part)
    if held:
        yield tuple(held)


def read(piece: Iterable[Part], config: ReadingConfig) -> Iterator[Document | Rejected]:
    """The documents of a piece in order, and a `Rejected` for each thing that cannot be read."""
    for part in piece:
        try:
            for found in _read(part, config):
                document = found.document if isinstance(found, Rejected) else found
                if part.collection:
                    document.metadata["collection"] = part.collection
                yield found
        except OSError as error:
            why = f"it cannot be read: {error.strerror or error}"
            yield Rejected(Document("", part.name), UNREADABLE, why)


def _read(part: Part, config: ReadingConfig) -> Iterator[Document | Rejected]:
    path, how = Path(part.path), kind(part.name) or "text"
    if how == "jsonl":
        return jsonl.read(path, part.name, config, part.start, part.stop)
    if how == "parquet":
        return parquet.read(path, part.name, config, part.start, part.stop)
    if how == "warc":
        return warc.read(path, part.name, config)
    if how == "html":
        return text.read_page(path, part.name, config)
    if how == "text" and (config.separator or config.heading):
        return text.read_parts(path, part.name, config, part.start, part.stop)
    return text.read_file(path, part.name, config)


def read_documents(
    paths: Iterable[str | os.PathLike[str]], config: ReadingConfig | None = None
) -> list[Document]:
    """Read files, and the files under folders, in a fixed order, into memory.

    Raises `InputError` where a path is missing, something cannot be read, or there is no text.
    """
    paths = [Path(path) for path in paths]
    config = config or ReadingConfig()
    documents = []
    for piece in plan({"": paths}, config).pieces:
        for found in read(piece, config):
            if isinstance(found, Rejected):
                raise InputError(_refusal(found))
            found = extract(found, ExtractionConfig())
            if isinstance(found, Document) and found.text.strip():
                documents.append(found)
    if not documents:
        names = ", ".join(map(str, paths)) or "no path"
        raise InputError(f"no text in {names}; give files of text, or folders with *.txt or *.md")
    return documents


def _refusal(found: Rejected) -> str:
    return f"{found.document.source}: {found.value}; mend it, or leave it out"

