"""Stages: what a worker does with one shard of a corpus.

Each is a function of a task, which says where the shard is and what the recipe wants; it leaves the
files that `corpus.py` describes, the one that says "done" last. Nothing is returned but what was
counted, so a task can run anywhere that sees the same folders.

    hash_files  the hashes of input files
    clean       a piece of the input: read, extract, normalise, tell the language, filter, mask
    select      a clean shard: without duplicates, contamination and text of low quality; split
    tokenize    the texts of a shard, as token ids

Several steps share a stage: writing the corpus to disk between any two would cost more than most
of them do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minillm import tokenizer
from minillm.data import contamination, filters, masking, reading
from minillm.data.corpus import (
    Shards,
    ShardWriter,
    digest,
    forget_files,
    in_batches,
    write_done,
)
from minillm.data.dedup import (
    cut_passages,
    repeated_passages,
    texts_before,
    write_fingerprints,
    write_signatures,
)
from minillm.data.documents import Document, Rejected, read_kept
from minillm.data.extraction import extract
from minillm.data.labels import tell_language, tell_quality
from minillm.data.reading import Piece
from minillm.data.recipe import Recipe
from minillm.data.repair import normalise, repair
from minillm.data.shards import write_shard
from minillm.data.tally import Step, Tally, length_bin
from minillm.tokenizer.chat import SPECIAL_TOKENS

SPLITS = ("train", "validation")
QUALITY_BINS = 20  # of the histogram of qualities
PASSAGES_AT_ONCE = 1 << 23  # characters whose suffixes are sorted, and as many before them
Function = Callable[[list[Document], Step], list[Document | Rejected]]


@dataclass(frozen=True)
class Task:
    """One shard's work at one stage."""

    number: int
    folder: Path  # where the stage's files go
    recipe: Recipe
    size: int  # bytes of the input, about
    piece: Piece = ()  # of the input
    before: Path = Path()  # the folder of the stage before
    judged: Path = Path()  # the folder with what was found out about all documents together
    shards: int = 0  # of the stage before

    @property
    def done(self) -> Path:
        """The file that says that the task is done."""
        return self.folder / f"{self.number:05d}.json"


def hash_files(task: Task) -> dict[str, Any]:
    """The hashes of input files; None for one that cannot be read."""
    sources = []
    for part in task.piece:
        try:
            found = digest(Path(part.path))
        except OSError:
            found = None
        about = {"name": part.name, "collection": part.collection, "bytes": part.size}
        sources.append(about | {"sha256": found})
    return write_done(task.done, Tally(), [], sources=sources)


# -------------------------------------------------------------------------------------- clean


def clean(task: Task) -> dict[str, Any]:
    """Read a piece of the input and keep what is text."""
    recipe, tally = task.recipe, Tally()
    with ShardWriter(task.folder, task.number) as shard:
        kept = _cleaned(task, shard, tally)
        if recipe.duplicates.near is None:
            for _ in kept:
                pass
        else:
            write_signatures(
                task.folder / f"{task.number:05d}.signatures",
                (document.text for document in kept),
                recipe.duplicates.permutations,
                recipe.duplicates.ngram,
                recipe.duplicates.seed,
            )
    made = [task.folder / f"{shard.stem}.{suffix}" for suffix in ("jsonl", "rejected.jsonl")]
    if least := recipe.duplicates.passages:
        texts = (document.text for document in read_kept(made[0]))
        write_fingerprints(made[0].with_suffix(".prints"), texts, least)
    return write_done(task.done, tally, made)


def _cleaned(task: Task, shard: ShardWriter, tally: Tally) -> Iterator[Document]:
    """The documents of a piece that come through, once they are written."""
    steps = cleaning_steps(task.recipe)
    for name in ("read", *(name for name, _ in steps)):
        tally.step(name)
    for batch in in_batches(reading.read(task.piece, task.recipe.reading)):
        documents = []
        for record in batch:
            document = record if isinstance(record, Document) else record.document
            tally.came("read", [document])
            tally.count("characters read", length_bin(len(document.text)))
            if isinstance(record, Rejected):
                tally.rejected("read", record)
                shard.reject(record)
            else:
                documents.append(record)
        for name, function in steps:
            documents = run_step(name, function, documents, shard, tally)
        for document in documents:
            shard.keep(document)
            yield document


def run_step(
    name: str, function: Function, documents: list[Document], shard: ShardWriter, tally: Tally
) -> list[Document]:
    """Send documents through a step; what it rejects goes to the shard's rejected ones."""
    tally.came(name, documents)
    kept = []
    for record in function(documents, tally.step(name)):
        if isinstance(record, Rejected):
            tally.rejected(name, record)
            shard.reject(record)
        else:
            kept.append(record)
    return kept


def cleaning_steps(recipe: Recipe) -> list[tuple[str, Function]]:
    """The steps of `clean` that the recipe asks for, in order."""
    steps: list[tuple[str, Function]] = [
        ("extract", _each(lambda document: extract(document, recipe.extraction)))
    ]
    if recipe.extraction.repair:
        steps.append(("repair", _each(repair)))
    if recipe.extraction.normalise:
        steps.append(("normalise", _each(normalise)))
    steps.append(("empty", _each(_not_empty)))
    if recipe.language.model:
        steps.append(("language", lambda documents, _: tell_language(documents, recipe.language)))
    if recipe.filters.drop_boilerplate:
        steps.append(("boilerplate", _each(filters.without_boilerplate)))
    if recipe.filters.apply:
        steps.append(("filters", _each(lambda document: filters.check(document, recipe.filters))))
    if recipe.masking.personal:
        steps.append(("mask", _mask))
    return steps


def _each(function: Callable[[Document], Document | Rejected]) -> Function:
    """A step that does the same with every document, and notes how many it changed."""

    def step(documents: list[Document], notes: Step) -> list[Document | Rejected]:
        found = [function(document) for document in documents]
        for before, after in zip(documents, found, strict=True):
            if isinstance(after, Document) and after.text != before.text:
                notes.notes["changed"] += 1
        return found

    return step


def _not_empty(document: Document) -> Document | Rejected:
    return document if document.text.strip() else Rejected(document, "empty", 0)


def _mask(documents: list[Document], notes: Step) -> list[Document | Rejected]:
    found: list[Document | Rejected] = []
    for document in documents:
        masked, counts = masking.mask(document)
        notes.notes.update(counts)
        found.append(masked)
    return found


# ------------------------------------------------------------------------------------- select


def select(task: Task) -> dict[str, Any]:
    """Of a clean shard, keep what is new and untainted, and say which split it belongs to."""
    tally, everything = Tally(), Shards(task.before, task.shards)
    first = np.load(task.judged / "first.npy", mmap_mode="r")
    exact = np.load(task.judged / "exact.npy", mmap_mode="r")
    held_below = int((task.judged / "held_below").read_text())
    for name in ("duplicates", *(name for name, _ in selecting_steps(task, everything, 0, 0))):
        tally.step(name)
    number = everything.first(task.number)
    at_once = PASSAGES_AT_ONCE if task.recipe.duplicates.passages else 1 << 20
    records = read_kept(everything.paths[task.number])
    with ShardWriter(task.folder, task.number) as shard:
        for batch in in_batches(records, PASSAGES_AT_ONCE, at_once):
            tally.came("duplicates", batch)
            begin, documents = number, []
            for document in batch:
                original = int(first[number])
                if original == number:
                    held = int(everything.key(number)) < held_below
                    document.metadata["split"] = SPLITS[held]
                    documents.append(document)
                else:
                    copy = exact[number] != number
                    rule, of = ("exact_duplicate", exact) if copy else ("near_duplicate", first)
                    source = everything.document(int(of[number])).source
                    rejected = Rejected(document, rule, source)
                    tally.rejected("duplicates", rejected)
                    shard.reject(rejected)
                number += 1
            for name, function in selecting_steps(task, everything, begin, number):
                documents = run_step(name, function, documents, shard, tally)
            for document in documents:
                _count_kept(document, tally)
                shard.keep(document)
    forget_files()
    made = [task.folder / f"{shard.stem}.{suffix}" for suffix in ("jsonl", "rejected.jsonl")]
    return write_done(task.done, tally, made)


def selecting_steps(
    task: Task, everything: Shards, begin: int, end: int
) -> list[tuple[str, Function]]:
    """The steps of `select` for documents `begin` to `end` without duplicates, in order."""
    recipe = task.recipe
    steps: list[tuple[str, Function]] = []
    if least := recipe.duplicates.passages:
        pairs = np.load(task.judged / "sharers.npy", mmap_mode="r")
        text_of = everything.texts().__getitem__
        before = texts_before(pairs, begin, end, text_of, PASSAGES_AT_ONCE)
        steps.append(("passages", lambda documents, notes: _cut(documents, before, least, notes)))
    if recipe.contamination.paths:
        index = contamination.read_index(task.judged)
        steps.append(("contamination", lambda documents, _: _untainted(documents, index)))
    if recipe.quality.model:
        steps.append(("quality", lambda documents, _: tell_quality(documents, recipe.quality)))
    return steps


def _cut(
    documents: list[Document], before: list[str], least: int, notes: Step
) -> list[Document | Rejected]:
    """Documents without the passages that stood before in them or in the texts `before` them."""
    texts = [*before, *(document.text for document in documents)]
    cut = cut_passages(texts, repeated_passages(texts, least))
    found: list[Document | Rejected] = []
    for document, text in zip(documents, cut[len(before) :], strict=True):
        if text != document.text:
            notes.notes["changed"] += 1
            notes.notes["characters cut"] += len(document.text) - len(text)
        if not text.strip():
            found.append(Rejected(document, "repeated_passages", len(document.text)))
        else:
            found.append(Document(text.strip(), document.source, document.metadata))
    return found


def _untainted(
    documents: list[Document], index: list[contamination.Ngrams]
) -> list[Document | Rejected]:
    counts = contamination.shared([document.text for document in documents], index)
    return [
        Rejected(document, "contamination", int(count)) if count else document
        for document, count in zip(documents, counts, strict=True)
    ]


def _count_kept(document: Document, tally: Tally) -> None:
    tally.came(f"kept for {document.metadata['split']}", [document])
    tally.count("characters kept", length_bin(len(document.text)))
    tally.count("collections", document.metadata.get("collection", ""))
    if "language" in document.metadata:
        tally.count("languages", document.metadata["language"])
    if "quality" in document.metadata:
        tally.count("quality", quality_bin(document))


def quality_bin(document: Document) -> int:
    """The bin of a document's quality, of `QUALITY_BINS` of one width; 1 is in the last."""
    return min(int(float(document.metadata["quality"]) * QUALITY_BINS), QUALITY_BINS - 1)


# ----------------------------------------------------------------------------------- tokenize


def tokenize(task: Task) -> dict[str, Any]:
    """Turn the texts of a shard into tokens, the mark of a new text before each."""
    tally, made = Tally(), tokenizer.load(task.judged / "tokenizer.json")
    mark = made.special_tokens.get(SPECIAL_TOKENS[0])
    collections = list(task.recipe.sources)
    about: dict[str, list[tuple[int, int, float]]] = {split: [] for split in SPLITS}
    counts = {}
    for split in SPLITS:

        def ids(split: str = split) -> Iterator[np.ndarray]:
            for document in read_kept(task.before / f"{task.number:05d}.jsonl"):
                if document.metadata["split"] != split:
                    continue
                found = made.encode_array(document.text)
                found = found if mark is None else np.concatenate([[mark], found])
                tally.count("tokens", length_bin(len(found)))
                collection = collections.index(document.metadata.get("collection", ""))
                weight = float(document.metadata.get("weight", 1))
                about[split].append((len(found), collection, weight))
                yield found

        path = task.folder / f"{split}-{task.number:05d}.bin"
        counts[split] = write_shard(path, ids(), made.vocab_size, about[split])
        tally.step(f"tokens for {split}").documents = len(about[split])
        tally.step(f"tokens for {split}").notes["tokens"] = counts[split]
    written = [
        task.folder / f"{split}-{task.number:05d}.{suffix}"
        for split in SPLITS
        for suffix in ("bin", "documents")
    ]
    return write_done(task.done, tally, written, tokens=counts)
