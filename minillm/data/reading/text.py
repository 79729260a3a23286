"""Plain text, Markdown and HTML.

A file is one document, unless marks part it: lines that stand between documents (TinyStories has
`<|endoftext|>`), or headings that begin one (WikiText has ` = Title = `). A file with marks may be
read in several pieces: a document belongs to the piece in which its mark begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from minillm.data.documents import UNREADABLE, Document, Rejected
from minillm.data.reading.streams import Broken, Line, chunks, lines, whole
from minillm.data.recipe import ReadingConfig

BINARY = 0.01  # share of NUL bytes above which a file is no text
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)


def read_file(path: Path, name: str, config: ReadingConfig) -> Iterator[Document | Rejected]:
    """The document that a whole file is."""
    data = whole(chunks(path, config.max_ratio), config.max_bytes)
    if isinstance(data, Broken):
        yield rejected(name, data)
    else:
        yield from decode(data, name)


def read_page(path: Path, name: str, config: ReadingConfig) -> Iterator[Document | Rejected]:
    """The page that a file is, with its markup."""
    data = whole(chunks(path, config.max_ratio), config.max_bytes)
    if isinstance(data, Broken):
        yield rejected(name, data)
    else:
        yield Document(decode_html(data), name, {"markup": "html"})


def read_parts(
    path: Path, name: str, config: ReadingConfig, start: int = 0, stop: int | None = None
) -> Iterator[Document | Rejected]:
    """The documents whose marks begin in bytes `start` to `stop` of a file with marks."""
    first = max(start - 1, 0)
    found = lines(chunks(path, config.max_ratio, first), config.max_bytes, first)
    return parted(found, name, config, start, stop)


def parted(
    found: Iterable[Line | Broken],
    name: str,
    config: ReadingConfig,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Document | Rejected]:
    """The documents of these lines whose marks are at places `start` to `stop`."""
    separator = re.compile(config.separator) if config.separator else None
    heading = re.compile(config.heading) if config.heading else None
    held: list[bytes] | None = [] if start == 0 else None  # None: before the first mark
    size, place = 0, start
    for line in found:
        if line.place < start:  # the end of a line that the piece before has
            continue
        if isinstance(line, Broken):
            yield rejected(f"{name}@{line.place}", line)
            continue
        text = line.data.decode("utf-8", "replace")
        parts = separator is not None and separator.fullmatch(text) is not None
        if parts or (heading is not None and heading.fullmatch(text) is not None):
            if held is not None:
                yield from _joined(held, f"{name}@{place}", config)
            if stop is not None and line.place >= stop:
                return
            held, size, place = [], 0, line.place
            if parts:
                continue
        if held is not None and size <= config.max_bytes:
            held.append(line.data)
            size += len(line.data) + 1
    if held is not None:
        yield from _joined(held, f"{name}@{place}", config)


def _joined(held: list[bytes], name: str, config: ReadingConfig) -> Iterator[Document | Rejected]:
    data = b"\n".join(held)
    if len(data) > config.max_bytes:
        why = f"more than {config.max_bytes:,} bytes between two marks"
        yield rejected(name, Broken(0, why, data[:1000]))
    elif data.strip():
        yield from decode(data, name)


def decode(data: bytes, name: str) -> Iterator[Document | Rejected]:
    """A document of UTF-8, or of UTF-16 where a byte order mark says so."""
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if wide else "UTF-8"
        why = f"it is not {encoding} text (byte {error.start} is {data[error.start]:#04x})"
        yield rejected(name, Broken(0, why, data[:1000]))
        return
    if (nuls := text.count("\0")) > BINARY * len(text):
        why = f"it holds NUL bytes ({nuls:,} of {len(text):,}): it is a binary file, not text"
        yield rejected(name, Broken(0, why, data[:100]))
    else:
        yield Document(text, name)


def decode_html(data: bytes, charset: str | None = None) -> str:
    """The text of a page: by its byte order mark, what it or its server says, or what fits.

    Browsers, too, take bytes that are not UTF-8 for Windows-1252 where nothing else is said.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    said = _CHARSET.search(data, 0, 4096)
    for name in ("utf-8-sig", charset, said[1].decode("ascii", "replace") if said else None):
        try:
            if name:
                return data.decode(name)
        except (UnicodeDecodeError, LookupError):  # not so, or an unknown name
            continue
    return data.decode("cp1252", "replace")


def rejected(name: str, broken: Broken) -> Rejected:
    """The record of something that could not be read, with the beginning of what there is."""
    return Rejected(Document(broken.rest.decode("utf-8", "replace"), name), UNREADABLE, broken.why)
