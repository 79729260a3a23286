"""How good a classifier is: precision and recall of every label, and what it takes for what.

    precision   of the texts it gave a label, the share that has it
    recall      of the texts that have a label, the share it gave it
    F1          the harmonic mean of both
    accuracy    of all texts, the share that got its own label
    loss        mean of -log P(own label), in nats: how far the probabilities can be trusted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """The result of asking a classifier about texts of known labels.

    `confusion[i, j]` (K, K) counts the texts of label i that were taken for label j.
    """

    labels: list[str]
    confusion: np.ndarray
    loss: float

    @classmethod
    def of(cls, labels: Sequence[str], truth: np.ndarray, probabilities: np.ndarray) -> Self:
        """From the numbers of the true labels (N,) and the probabilities (N, K)."""
        confusion = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(confusion, (truth, probabilities.argmax(axis=1)), 1)
        own = probabilities[np.arange(len(truth)), truth]
        least = np.finfo(probabilities.dtype).tiny
        return cls(list(labels), confusion, float(-np.log(np.maximum(own, least)).mean()))

    @property
    def accuracy(self) -> float:
        """The share of texts that got their own label."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def precision(self) -> np.ndarray:
        """Of each label (K,); NaN where no text was given it."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def recall(self) -> np.ndarray:
        """Of each label (K,); NaN where no text has it."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def f1(self) -> np.ndarray:
        """Of each label (K,); NaN where no text has it or was given it."""
        both = self.confusion.sum(axis=0) + self.confusion.sum(axis=1)
        return _share(2 * np.diag(self.confusion), both)

    def table(self) -> str:
        """All of it as lines of text, labels with many texts first."""
        rows = [f"{'label':<20}{'texts':>8}{'precision':>11}{'recall':>9}{'F1':>9}  taken for"]
        texts = self.confusion.sum(axis=1)
        for i in np.argsort(-texts, kind="stable"):
            numbers = (self.precision[i], self.recall[i], self.f1[i])
            cells = "".join(
                f"{'-' if np.isnan(x) else f'{x:.4f}':>{width}}"
                for x, width in zip(numbers, (11, 9, 9), strict=True)
            )
            rows.append(f"{self.labels[i]:<20}{texts[i]:>8,}{cells}  {self._mistakes(i)}".rstrip())
        rows.append(f"accuracy {self.accuracy:.4f}, loss {self.loss:.4f}, {texts.sum():,} texts")
        return "\n".join(rows)

    def _mistakes(self, label: int, most: int = 3) -> str:
        """The labels that texts of `label` were mostly taken for, with counts."""
        row = self.confusion[label].copy()
        row[label] = 0
        order = np.argsort(-row, kind="stable")[:most]
        return ", ".join(f"{self.labels[j]} {row[j]}" for j in order if row[j])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
