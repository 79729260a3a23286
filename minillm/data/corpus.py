"""A corpus on disk while it is made: one file of documents per shard, and what is known of each.

    00000.jsonl            documents, a line of JSON each (documents.py)
    00000.rejected.jsonl   those that a rule did not let through, with the rule and its value
    00000.index            for each document where its line begins, a hash of its text, its size
    00000.signatures       for near duplicates (dedup/signature_files.py)
    00000.prints           for repeated passages (dedup/prints.py)
    00000.json             what was counted; written last, so it says that the shard is done
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from minillm import files
from minillm.data.documents import Document, Rejected, as_kept, from_line, read_kept, to_line
from minillm.data.tally import Tally

RECORD = np.dtype([("offset", "<i8"), ("key", "<u8", (2,)), ("characters", "<u4")])
OPEN_FILES = 32
Record = TypeVar("Record", bound=Document | Rejected)


def text_key(text: str) -> bytes:
    """16 bytes that stand for a text; two texts share them by chance never."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


class ShardWriter:
    """Writes a shard, whole or not at all: what is here when an error passes is removed.

    with ShardWriter(folder, 7) as shard:
        shard.keep(document)
        shard.reject(rejected)
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.stem = folder, f"{number:05d}"

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        kept, rejected, index = (
            self._stack.enter_context(files.replacing(self.folder / f"{self.stem}.{suffix}"))
            for suffix in ("jsonl", "rejected.jsonl", "index")
        )
        self._kept = self._stack.enter_context(kept.open("wb"))
        self._rejected = self._stack.enter_context(rejected.open("wb"))
        self._index = self._stack.enter_context(index.open("wb"))
        self._offset = 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def keep(self, document: Document) -> None:
        """Add a document."""
        line = to_line(document).encode("utf-8", "replace")
        key = np.frombuffer(text_key(document.text), "<u8")
        record = np.array((self._offset, key, min(len(document.text), 2**32 - 1)), RECORD)
        self._kept.write(line)
        self._index.write(record.tobytes())
        self._offset += len(line)

    def reject(self, record: Rejected) -> None:
        """Put a document aside."""
        self._rejected.write(to_line(record).encode("utf-8", "replace"))


class Shards:
    """The shards of a stage, as one numbered collection of documents."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.paths = [folder / f"{number:05d}.jsonl" for number in range(count)]
        self.records = [_mapped(path.with_suffix(".index"), RECORD) for path in self.paths]
        self.ends = np.cumsum([len(records) for records in self.records], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def first(self, number: int) -> int:
        """The number of the first document of a shard."""
        return int(self.ends[number]) - len(self.records[number])

    def document(self, i: int) -> Document:
        """Document i, read from its shard."""
        number = int(np.searchsorted(self.ends, i, side="right"))
        offset = int(self.records[number]["offset"][i - self.first(number)])
        file = _opened(str(self.paths[number]))
        file.seek(offset)
        return as_kept(from_line(file.readline()))

    def key(self, i: int) -> int:
        """The first half of document i's hash."""
        number = int(np.searchsorted(self.ends, i, side="right"))
        return int(self.records[number]["key"][i - self.first(number), 0])

    def texts(self) -> Texts:
        """The texts of all documents, each read when it is asked for."""
        return Texts(self)


class Texts(Sequence[str]):
    """Texts that stay on disk until they are asked for."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, i: Any) -> Any:
        return self.shards.document(int(i)).text


@lru_cache(OPEN_FILES)
def _opened(path: str) -> Any:
    return open(path, "rb")


def forget_files() -> None:
    """Close the files that `Shards.document` keeps open."""
    _opened.cache_clear()


def _mapped(path: Path, record: np.dtype) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.empty(0, record)
    return np.memmap(path, record, mode="r")


def shard_files(folder: Path, suffix: str = ".jsonl") -> list[Path]:
    """The files of a stage's shards that end so, in the order of the shards.

    `.jsonl` are the documents that were kept, `.rejected.jsonl` the others.
    """
    found = {path: path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")}
    return sorted((path for path in found if found[path].isdigit()), key=lambda p: int(found[p]))


def documents_in(folder: Path) -> Iterator[Document]:
    """The documents that a stage kept, one at a time."""
    for path in shard_files(folder):
        yield from read_kept(path)


# ------------------------------------------------------------------------------ what was done


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_done(path: Path, tally: Tally, made: Sequence[Path], **more: Any) -> dict[str, Any]:
    """Say that a shard is done: its counts, and the hash of every file that was made."""
    found = {
        "tally": tally.to_json(),
        "files": {file.name: digest(file) for file in made},
        **more,
    }
    files.write_text(path, json.dumps(found, indent=1) + "\n")
    return found


def read_done(path: Path) -> dict[str, Any] | None:
    """What `write_done` wrote; None where the shard is not done."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def in_batches(
    records: Iterator[Record], documents: int = 256, characters: int = 1 << 20
) -> Iterator[list[Record]]:
    """Records in the same order, some at a time."""
    held: list[Record] = []
    size = 0
    for record in records:
        held.append(record)
        size += len(record.text) if isinstance(record, Document) else 0
        if len(held) >= documents or size >= characters:
            yield held
            held, size = [], 0
    if held:
        yield held
