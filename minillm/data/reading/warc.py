"""Web archives: the pages of WARC files, and the texts of WET files.

A record that holds a page (a response, or a resource) becomes a document of HTML or of plain text;
a conversion (in a WET file) is a document of plain text. Requests and metadata are no documents,
and other kinds of content, such as pictures, are rejected as what they are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minillm.data.documents import Document, Rejected
from minillm.data.extras import needed
from minillm.data.reading.streams import Broken, Chunks, members
from minillm.data.reading.text import decode, decode_html, rejected
from minillm.data.recipe import ReadingConfig

PAGES = ("text/html", "application/xhtml+xml")


def read(path: Path, name: str, config: ReadingConfig) -> Iterator[Document | Rejected]:
    """The documents of an archive. They are numbered: a record's place is where it was packed."""
    number = 0
    for member in members(path, config.max_ratio):
        stream = _Stream(member)
        try:
            for record in needed("warcio.archiveiterator", "a .warc file").ArchiveIterator(stream):
                for found in _document(record, f"{name}@{number}", config):
                    if stream.broken is None:  # else what was read is not all of it
                        yield found
                        number += 1
        except Exception as error:  # noqa: BLE001 - warcio's errors are of many kinds
            why = stream.broken.why if stream.broken else f"no record: {_line(error)}"
            yield rejected(f"{name}@{number}", Broken(0, why))
            number += 1
        else:
            if stream.broken is not None:  # the damage lies behind the last record, or in its end
                yield rejected(f"{name}@{number}", stream.broken)
                number += 1
        for _ in member:  # what the parser left
            pass


def _document(record: Any, name: str, config: ReadingConfig) -> Iterator[Document | Rejected]:
    headers = record.rec_headers
    if record.format != "warc" or not (headers.get_header("Content-Length") or "").isdigit():
        raise ValueError("it does not begin like one, or does not say how long it is")
    if record.rec_type not in ("response", "resource", "conversion"):
        return
    known = {"url": headers.get_header("WARC-Target-URI"), "date": headers.get_header("WARC-Date")}
    about = {key: value for key, value in known.items() if value}
    kind, charset = _content_type(record)
    if record.rec_type != "conversion" and kind not in (*PAGES, "text/plain"):
        yield Rejected(Document("", name, about), "no_text", kind or "content of no known type")
        return
    data = record.content_stream().read(config.max_bytes + 1)
    if len(data) > config.max_bytes:
        why = f"more than {config.max_bytes:,} bytes, the most that is read"
        yield rejected(name, Broken(0, why, data[:1000]))
    elif record.raw_stream.limit > 0 and not record.raw_stream.read(1):
        why = f"the record is cut off, {record.raw_stream.limit:,} bytes before its end"
        yield rejected(name, Broken(0, why, data[:1000]))
    elif kind in PAGES:
        yield Document(decode_html(data, charset), name, about | {"markup": "html"})
    elif charset not in (None, "utf-8", "utf8"):
        yield Document(decode_html(data, charset), name, about)
    else:
        for found in decode(data, name):
            document = found if isinstance(found, Document) else found.document
            document.metadata.update(about)
            yield found


def _content_type(record: Any) -> tuple[str, str | None]:
    """The kind of a record's content and its charset, as its server gave them."""
    headers = record.http_headers if record.rec_type == "response" else record.rec_headers
    value = (headers.get_header("Content-Type") if headers else None) or ""
    kind, _, rest = value.partition(";")
    charset = rest.partition("charset=")[2].split(";")[0].strip(" \"'").lower()
    return kind.strip().lower(), charset or None


class _Stream(io.RawIOBase):
    """Chunks as a file; it ends where they break, and remembers how."""

    def __init__(self, parts: Chunks) -> None:
        self.parts, self.held = parts, memoryview(b"")
        self.broken: Broken | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.held and self.broken is None:
            part = next(self.parts, None)
            if part is None:
                break
            if isinstance(part, Broken):
                self.broken = part
            else:
                self.held = memoryview(part)
        count = min(len(buffer), len(self.held))
        buffer[:count] = self.held[:count]
        self.held = self.held[count:]
        return count


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
