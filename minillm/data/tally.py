"""Tallies: what each step let through and what it took, counted so that parts can be added up.

Workers count the documents of their shards; the sums over all shards do not depend on who counted
what, nor in which order. A tally is kept as JSON, keys sorted, so equal tallies are equal bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minillm.data.documents import Document, Rejected

BINS_PER_OCTAVE = 2  # of a histogram of lengths


@dataclass
class Step:
    """What came to one step, and what became of it."""

    documents: int = 0
    characters: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # documents by rule
    removed: Counter[str] = field(default_factory=Counter)  # their characters by rule
    notes: Counter[str] = field(default_factory=Counter)  # what else was done, and how often


@dataclass
class Tally:
    """The steps in their order, and histograms of what is counted."""

    steps: dict[str, Step] = field(default_factory=dict)
    histograms: dict[str, Counter[str]] = field(default_factory=dict)

    def step(self, name: str) -> Step:
        """The step of this name, which begins at nothing."""
        return self.steps.setdefault(name, Step())

    def count(self, histogram: str, value: str | int) -> None:
        """One more of `value`."""
        self.histograms.setdefault(histogram, Counter())[str(value)] += 1

    def came(self, name: str, documents: Iterable[Document]) -> None:
        """Documents have come to a step."""
        step = self.step(name)
        for document in documents:
            step.documents += 1
            step.characters += len(document.text)

    def rejected(self, name: str, record: Rejected) -> None:
        """A step has rejected a document that came to it."""
        step = self.step(name)
        step.rejected[record.rule] += 1
        step.removed[record.rule] += len(record.document.text)

    def add(self, other: Tally) -> None:
        """Add what another tally counted."""
        for name, theirs in other.steps.items():
            ours = self.step(name)
            ours.documents += theirs.documents
            ours.characters += theirs.characters
            for table in ("rejected", "removed", "notes"):
                getattr(ours, table).update(getattr(theirs, table))
        for name, counts in other.histograms.items():
            self.histograms.setdefault(name, Counter()).update(counts)

    # ------------------------------------------------------------------ as JSON

    def to_json(self) -> dict[str, Any]:
        """The tally as JSON values."""
        steps = {
            name: {
                "documents": step.documents,
                "characters": step.characters,
                "rejected": _sorted(step.rejected),
                "removed": _sorted(step.removed),
                "notes": _sorted(step.notes),
            }
            for name, step in self.steps.items()
        }
        histograms = {name: _sorted(self.histograms[name]) for name in sorted(self.histograms)}
        return {"steps": steps, "histograms": histograms}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Tally:
        """The tally that `to_json` gave."""
        steps = {
            name: Step(
                step["documents"],
                step["characters"],
                Counter(step["rejected"]),
                Counter(step["removed"]),
                Counter(step["notes"]),
            )
            for name, step in found["steps"].items()
        }
        return cls(steps, {name: Counter(table) for name, table in found["histograms"].items()})


def _sorted(table: Counter[str]) -> dict[str, int]:
    return {key: table[key] for key in sorted(table) if table[key]}


def length_bin(length: int) -> int:
    """The bin of a length: `BINS_PER_OCTAVE` of them from each power of two to the next."""
    return int(BINS_PER_OCTAVE * math.log2(length)) if length > 0 else -1


def bin_start(number: int) -> int:
    """The least length in a bin."""
    return math.ceil(2 ** (number / BINS_PER_OCTAVE)) if number >= 0 else 0
