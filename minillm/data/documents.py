"""Documents: the one kind of record, how records are kept, and how a corpus is split.

A document is one piece of text that stands by itself: a file, an article, a module's documentation.
Whatever a stage does not let through is kept beside the rest, as a `Rejected` with the rule that
rejected it and the value that it found.

The split into training and validation text is made of whole documents where there are enough of
them, so that the validation loss is measured on text that no neighbouring sentence gave away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minillm.errors import InputError

ENOUGH_DOCUMENTS = 20  # below this, the end of every document is held out instead
UNREADABLE = "unreadable"  # the rule that rejects what a reader could make nothing of


@dataclass(frozen=True)
class Document:
    """One text, where it came from, and what else is known of it."""

    text: str
    source: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """A document that a rule did not let through, and what the rule found."""

    document: Document
    rule: str
    value: float | str


# ---------------------------------------------------------------------------- records on disk


def to_line(record: Document | Rejected) -> str:
    """A record as a line of JSON, with its end.

    >>> to_line(Rejected(Document("Hi.", "a.txt"), "min_words", 1))
    '{"text": "Hi.", "source": "a.txt", "metadata": {}, "rule": "min_words", "value": 1}\\n'
    """
    document = record.document if isinstance(record, Rejected) else record
    fields: dict[str, Any] = {
        "text": document.text, "source": document.source, "metadata": document.metadata,
    }  # fmt: skip
    if isinstance(record, Rejected):
        fields |= {"rule": record.rule, "value": record.value}
    return json.dumps(fields, ensure_ascii=False) + "\n"


def from_line(line: str | bytes) -> Document | Rejected:
    """The record that `to_line` wrote."""
    found = json.loads(line)
    document = Document(found["text"], found["source"], found["metadata"])
    return Rejected(document, found["rule"], found["value"]) if "rule" in found else document


def read_lines(path: str | os.PathLike[str]) -> Iterator[Document | Rejected]:
    """The records of a file of lines, one at a time."""
    with open(path, "rb") as file:
        for line in file:
            yield from_line(line)


def as_kept(record: Document | Rejected) -> Document:
    """`record`, which stands where no rejected ones may; else `InputError`."""
    if isinstance(record, Rejected):
        raise InputError(
            f"a document from {record.document.source}, rejected by {record.rule}, stands among"
            " those that were kept"
        )
    return record


def read_kept(path: str | os.PathLike[str]) -> Iterator[Document]:
    """The documents of a file that holds no rejected ones, one at a time."""
    return map(as_kept, read_lines(path))


# ----------------------------------------------------------------------------- files of text


def write_documents(folder: str | os.PathLike[str], documents: Iterable[Document]) -> Path:
    """Write each document to a file of its own in `folder`, which `read_documents` reads again.

    The folder appears whole or not at all, and replaces one of its name. Files are named after the
    documents' sources and numbered, so that they are read in the same order.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        for number, document in enumerate(documents):
            name = re.sub(r"[^\w.-]+", "-", Path(document.source).name).removesuffix(".txt")
            text = document.text.encode("utf-8", "replace")
            (temporary / f"{number:05d}-{name[:80]}.txt").write_bytes(text)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def split_documents(
    documents: Sequence[Document], validation: float = 0.1
) -> tuple[list[Document], list[Document]]:
    """Part a corpus into training and validation documents, the same way every time.

    Documents are taken in the order of a hash of their text until `validation` (0 to 1) of all
    characters are held out, so the choice depends neither on where they lie nor on a seed. With
    fewer than `ENOUGH_DOCUMENTS`, the last part of each is held out, from a line's start.

    Returns (training, validation), each in the order the documents came in.
    """
    if not 0 < validation < 1:
        raise InputError(f"the validation share is {validation}; it lies between 0 and 1")
    if len(documents) < ENOUGH_DOCUMENTS:
        return _split_ends(documents, validation)
    wanted = validation * sum(len(document.text) for document in documents)
    held: set[int] = set()
    taken = 0
    for i in sorted(range(len(documents)), key=lambda i: _digest(documents[i])):
        if taken + len(documents[i].text) / 2 <= wanted:  # else the share is nearer without it
            held.add(i)
            taken += len(documents[i].text)
    return (
        [document for i, document in enumerate(documents) if i not in held],
        [document for i, document in enumerate(documents) if i in held],
    )


def _split_ends(
    documents: Sequence[Document], validation: float
) -> tuple[list[Document], list[Document]]:
    training: list[Document] = []
    held: list[Document] = []
    for document in documents:
        cut = round(len(document.text) * (1 - validation))
        line_end = document.text.find("\n", cut)
        if 0 <= line_end < len(document.text) - 1:
            cut = line_end + 1
        for part, side in ((document.text[:cut], training), (document.text[cut:], held)):
            if part.strip():
                side.append(Document(part, document.source, document.metadata))
    return training, held


def _digest(document: Document) -> bytes:
    return hashlib.sha256(document.text.encode()).digest()
