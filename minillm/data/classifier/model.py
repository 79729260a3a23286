"""The classifier: train it on labelled texts, ask it for probabilities, save it, load it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np

from minillm import backend
from minillm.data.classifier import storage
from minillm.data.classifier.config import ClassifierConfig
from minillm.data.classifier.evaluation import Evaluation
from minillm.data.classifier.features import features_of, met_buckets, row_table
from minillm.data.classifier.lexicon import Lexicon, read
from minillm.data.classifier.losses import label_probabilities
from minillm.data.classifier.rows import aligned, average, gather
from minillm.data.classifier.training import Progress, fit
from minillm.errors import InputError
from minillm.jit import jit

BLOCK = 1 << 20  # characters of text that one thread takes at a time, about


class Guess(NamedTuple):
    """A label, and the probability the classifier gives it."""

    label: str
    probability: float


class Classifier:
    """A linear classifier of texts, after fastText: averaged embeddings of hashed features.

    `labels` are its labels, the most frequent of the training texts first. Of the hashed features,
    only those that the training texts have take a row; a text's other pieces and runs count as rows
    of zeros, so that a text full of strange things gets a less certain answer.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        labels: Sequence[str],
        label_counts: np.ndarray,
        vocabulary: Lexicon,
        met: np.ndarray,
        embeddings: np.ndarray,
        outputs: np.ndarray,
    ) -> None:
        """A classifier of learned matrices; `train` and `load` make one from less.

        Args:
            labels, label_counts: the K labels and how many texts had each (int64).
            vocabulary: the V words that are features.
            met: the buckets that have a row, in rising order (int64, M of them).
            embeddings: (V + M, dim). One row of zeros is added for all other buckets.
            outputs: (K, dim), or (K - 1, dim) for hierarchical softmax.
        """
        self.config, self.labels, self.label_counts = config, list(labels), label_counts
        self.vocabulary, self.met = vocabulary, met
        strange = len(vocabulary) + len(met)
        self.embeddings = aligned(strange + 1, config.dim)
        self.embeddings[:strange, : config.dim] = embeddings
        self.outputs = aligned(len(outputs), config.dim)
        self.outputs[:, : config.dim] = outputs
        self._rows = row_table(len(vocabulary), met, config.buckets)
        _ = vocabulary.slots  # made now, so that threads find it ready

    def __repr__(self) -> str:
        return (
            f"classifier of {len(self.labels)} labels, {len(self.vocabulary):,} words and "
            f"{len(self.met):,} hashed features, dim {self.config.dim}"
        )

    # -------------------------------------------------------------------------- training

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        labels: Iterable[str],
        config: ClassifierConfig | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn to tell labels from texts.

        Args:
            texts, labels: as many of one as of the other; at least two different labels.
            config: what to look at and how to learn.
            progress: called with (texts seen, texts to be seen, mean loss of the last ones).

        The result depends on the texts, their order, the settings and nothing else: not on the
        number of threads. Raises `InputError` for texts that nothing can be learned from.
        """
        config = config or ClassifierConfig()
        texts, labels = list(texts), list(labels)
        _check(texts, labels)
        names, targets, counts = _label_numbers(labels)
        lexicon, words, ends = read(texts, config.lowercase)
        order = np.argsort(-lexicon.counts, kind="stable")  # frequent words get the first rows
        chosen = order[lexicon.counts[order] >= config.min_count]
        vocabulary = lexicon.chosen(chosen)
        numbers = np.full(len(lexicon), -1, np.int64)
        numbers[chosen] = np.arange(len(chosen))
        features = features_of(lexicon, words, ends, numbers, len(chosen), config)
        met = met_buckets(features, len(chosen), config.buckets)
        if len(chosen) + len(met) == 0:
            raise InputError(
                f"no word occurs {config.min_count} times, and there are no other features; "
                "lower min_count"
            )
        features = features.numbered(row_table(len(chosen), met, config.buckets))
        rows = len(chosen) + len(met)
        embeddings, outputs = fit(features, targets, counts, rows, config, progress)
        dim = config.dim
        return cls(
            config, names, counts, vocabulary, met, embeddings[:, :dim], outputs[:, :dim]
        )

    # -------------------------------------------------------------------------- asking

    def probabilities(self, texts: Iterable[str]) -> np.ndarray:
        """The probability of every label for every text, (N, K) float32; rows sum to 1."""
        texts = list(texts)
        _check_texts(texts)
        blocks = list(_blocks(texts))
        if len(blocks) < 2 or backend.threads() < 2:
            parts = [self._block(block) for block in blocks]
        else:
            self._block(texts[:1])  # what has to be compiled is compiled here, once
            with ThreadPoolExecutor(backend.threads()) as pool:
                parts = list(pool.map(self._block, blocks))
        empty = np.empty((0, len(self.labels)), np.float32)
        return np.concatenate([empty, *parts])

    def predict(self, texts: Iterable[str]) -> list[Guess]:
        """The most probable label of every text, and its probability."""
        found = self.probabilities(texts)
        best = found.argmax(axis=1)
        sure = found[np.arange(len(found)), best]
        return [Guess(self.labels[k], p) for k, p in zip(best.tolist(), sure.tolist(), strict=True)]

    def top(self, texts: Iterable[str], count: int) -> list[list[Guess]]:
        """The `count` most probable labels of every text, the best first."""
        found = self.probabilities(texts)
        best = np.argsort(-found, axis=1, kind="stable")[:, :count]
        return [
            [Guess(self.labels[k], float(row[k])) for k in order]
            for row, order in zip(found, best, strict=True)
        ]

    def score(self, texts: Iterable[str], label: str) -> np.ndarray:
        """The probability of one label for every text, (N,) float32: P(good), say."""
        return self.probabilities(texts)[:, self._number(label)]

    def evaluate(self, texts: Iterable[str], labels: Iterable[str]) -> Evaluation:
        """How well the classifier does on texts of known labels.

        Raises `InputError` for a label that it was not trained on.
        """
        texts, labels = list(texts), list(labels)
        _check(texts, labels, least=1)
        truth = np.array([self._number(label, i) for i, label in enumerate(labels, 1)])
        return Evaluation.of(self.labels, truth, self.probabilities(texts))

    def _number(self, label: str, text: int | None = None) -> int:
        try:
            return self.labels.index(label)
        except ValueError:
            known = ", ".join(self.labels[:8]) + (", ..." if len(self.labels) > 8 else "")
            where = f"text {text} has" if text else "asked for"
            raise InputError(
                f"{where} the label {label!r}, which the classifier does not know; it knows {known}"
            ) from None

    def _block(self, texts: list[str]) -> np.ndarray:
        """`probabilities` of some texts, in one thread."""
        lexicon, words, ends = read(texts, self.config.lowercase)
        numbers = self.vocabulary.find(lexicon)
        size = len(self.vocabulary)
        features = features_of(lexicon, words, ends, numbers, size, self.config)
        features = features.numbered(self._rows)
        found, stops = gather(features, np.arange(len(texts)), features.sizes())
        if backend.fast(self.embeddings):
            scores = np.empty((len(texts), len(self.outputs)), np.float32)
            _score_texts(found, stops, self.embeddings, self.outputs, scores)
        else:
            parts = np.split(found[: stops[-1]], stops[:-1])
            hidden = [self.embeddings[part].sum(axis=0) / max(1, len(part)) for part in parts]
            scores = np.stack([self.outputs @ one for one in hidden])
        return label_probabilities(scores, self.config.loss, self.label_counts)

    # -------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier to one safetensors file, its settings as JSON in the header."""
        facts = storage.Facts(self.config, self.labels, self.label_counts.tolist())
        arrays = {
            "words": self.vocabulary.data,
            "word_stops": self.vocabulary.stops,
            "word_counts": self.vocabulary.counts,
            "buckets": self.met,
            "embeddings": self.embeddings[:-1, : self.config.dim],
            "outputs": self.outputs[:, : self.config.dim],
        }
        storage.write(path, facts, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a classifier that `save` has written. Raises `CheckpointError` for other files."""
        facts, vocabulary, arrays = storage.read(path)
        return cls(
            facts.config, facts.labels, np.array(facts.counts), vocabulary,
            arrays["buckets"], arrays["embeddings"], arrays["outputs"],
        )  # fmt: skip


# --------------------------------------------------------------------------------- compiled


@jit
def _score_texts(found, stops, embeddings, outputs, scores):
    """Average the rows of each text and multiply with the outputs."""
    hidden = np.empty(embeddings.shape[1], embeddings.dtype)
    start = 0
    for text in range(stops.size):
        average(embeddings, found, start, stops[text], hidden)
        for k in range(outputs.shape[0]):
            row, total = outputs[k], hidden.dtype.type(0)
            for d in range(hidden.size):
                total += hidden[d] * row[d]
            scores[text, k] = total
        start = stops[text]


# ---------------------------------------------------------------------------------- parts


def _label_numbers(labels: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, the most frequent first; each text's number (int64); how many texts have each."""
    names, first, numbers, counts = np.unique(
        np.array(labels, object), return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -counts))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return names[order].tolist(), place[numbers], counts[order]


def _blocks(texts: list[str]) -> Iterator[list[str]]:
    """Texts in blocks of about BLOCK characters."""
    start = size = 0
    for i, text in enumerate(texts, 1):
        size += len(text)
        if size >= BLOCK or i == len(texts):
            yield texts[start:i]
            start, size = i, 0


def _check_texts(texts: list[str]) -> None:
    for i, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"text {i} is a {type(text).__name__}; a classifier reads str")


def _check(texts: list[str], labels: list[str], least: int = 2) -> None:
    """Complain of what cannot be learned from (`least` 2) or measured on (1)."""
    if len(texts) != len(labels):
        raise InputError(f"there are {len(texts)} texts and {len(labels)} labels; give each one")
    if not texts:
        raise InputError("there are no labelled texts")
    _check_texts(texts)
    for i, label in enumerate(labels, 1):
        if not isinstance(label, str) or not label:
            raise InputError(f"the label of text {i} is {label!r}; a label is a word")
    if least < 2:
        return
    for i, (text, label) in enumerate(zip(texts, labels, strict=True), 1):
        if not text.strip():
            raise InputError(f"text {i} (label {label!r}) is empty; leave it out")
    if len(set(labels)) < 2:
        raise InputError(
            f"all {len(labels)} texts have the label {labels[0]!r}; there must be at least two"
        )
