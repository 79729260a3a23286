"""Learning: one text at a time, a step down the gradient of its loss.

    h = mean of the embeddings E[f] of the text's features f     (F of them)
    loss, dh, dO = ...                                           (losses.py)
    O    <- O    - rate dO
    E[f] <- E[f] - rate dh / F       for every feature, as often as it occurs

The learning rate falls in a straight line from `lr` to 0 over all steps. The texts come in a new
order each epoch. Embeddings start uniform in (-1/D, 1/D), outputs at 0, as in fastText.

fastText lets threads write to one matrix without locks, so that no two runs agree. Here the steps
are taken one after another, by one thread: the same seed gives the same bits on any machine's
number of threads. It is quicker all the same, because what takes the time elsewhere is done once
and not every epoch (reading and hashing words), and because an embedding row that no text ever uses
is neither stored nor drawn: of two million buckets, a small task meets a few thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from minillm import backend
from minillm.data.classifier.config import ClassifierConfig
from minillm.data.classifier.features import Features
from minillm.data.classifier.huffman import huffman_paths
from minillm.data.classifier.losses import (
    decisions_reference,
    decisions_step,
    softmax_reference,
    softmax_step,
)
from minillm.data.classifier.rows import add_to_rows, aligned, average, gather
from minillm.errors import InputError
from minillm.jit import jit

Progress = Callable[[int, int, float], None]  # called with (texts seen, to be seen, mean loss)
CHUNK = 1 << 20  # features between two looks at the loss, about
Item = TypeVar("Item")


@dataclass
class Steps:
    """What a chunk of steps needs, one entry per step; `choices` are the labels, or, for decisions,
    rows and answers."""

    found: np.ndarray
    stops: np.ndarray
    choices: tuple[np.ndarray, ...]
    weights: np.ndarray
    rates: np.ndarray


def fit(
    features: Features,
    labels: np.ndarray,
    counts: np.ndarray,
    rows: int,
    config: ClassifierConfig,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Learn embeddings and outputs.

    `labels` (int64, one per text) are 0 .. K-1 and occur `counts` times; features are 0 .. rows-1.
    Returns the embeddings (rows, dim) and the outputs (K, dim), of hierarchical softmax
    (K - 1, dim), float32, with columns of zeros up to a whole number of memory's lines. Raises
    `InputError` where the loss leaves the numbers.
    """
    rng = np.random.default_rng(config.seed)
    embeddings = first_embeddings(rows, config.dim, rng)
    outputs = aligned(len(counts) - (config.loss == "hierarchical"), config.dim)
    learn = learn_softmax if config.loss == "softmax" else learn_decisions
    total, done = config.epochs * len(labels), 0
    for steps in _one_ahead(_steps(features, labels, counts, config, rng)):
        with np.errstate(all="ignore"):  # the loss tells
            loss = learn(steps, embeddings, outputs)
        done += len(steps.rates)
        if not np.isfinite(loss):
            raise InputError(
                f"the loss is {loss} after {done:,} texts; lower lr (it is {config.lr})"
            )
        if progress is not None:
            progress(done, total, loss / len(steps.rates))
    return embeddings, outputs


def first_embeddings(rows: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Rows drawn uniformly from (-1/dim, 1/dim), some at a time to save memory."""
    embeddings = aligned(rows, dim)
    for start in range(0, rows, 4096):
        block = embeddings[start : start + 4096, :dim]
        block[:] = (rng.random(block.shape, np.float32) - np.float32(0.5)) * np.float32(2 / dim)
    return embeddings


def _steps(
    features: Features,
    labels: np.ndarray,
    counts: np.ndarray,
    config: ClassifierConfig,
    rng: np.random.Generator,
) -> Iterator[Steps]:
    """All steps of all epochs, in chunks."""
    weights = class_weights(counts, config)
    nodes, turns = huffman_paths(counts.tolist())
    sizes = features.sizes()
    total, done = config.epochs * len(labels), 0
    for _ in range(config.epochs):
        order = rng.permutation(len(labels))
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes[order]) // CHUNK)) + 1
        for texts in np.split(order, cuts):
            targets = labels[texts]
            if config.loss == "softmax":
                choices: tuple[np.ndarray, ...] = (targets,)
            elif config.loss == "hierarchical":
                choices = nodes[targets], turns[targets]
            else:
                choices = draw_negatives(targets, counts, config.negatives, rng)
            rates = config.lr * (1 - np.arange(done, done + len(texts)) / total)
            found, stops = gather(features, texts, sizes)
            yield Steps(found, stops, choices, weights[targets], rates.astype(np.float32))
            done += len(texts)


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; while one is used, a second thread prepares the next."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def class_weights(counts: np.ndarray, config: ClassifierConfig) -> np.ndarray:
    """The weight of each label's texts (float32), 1 on average over all texts.

    "balanced" gives every label the same weight in all: n / (K n_k) each for n texts, n_k of it.
    """
    if config.class_weights == "equal":
        return np.ones(len(counts), np.float32)
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


def draw_negatives(
    labels: np.ndarray, counts: np.ndarray, negatives: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and answers (texts, 1 + negatives): the label with 1, then wrong ones with -1.

    A wrong label is drawn in proportion to the square root of its count; the right one is drawn
    over, by leaving its share out of the line that the lot falls on.
    """
    share = np.sqrt(counts)
    ends = np.cumsum(share)
    lots = rng.random((len(labels), negatives)) * (ends[-1] - share[labels])[:, None]
    lots += np.where(lots >= (ends - share)[labels][:, None], share[labels][:, None], 0)
    wrong = np.minimum(np.searchsorted(ends, lots, side="right"), len(counts) - 1)
    rows = np.concatenate([labels[:, None], wrong], axis=1).astype(np.int32)
    answers = np.full(rows.shape, -1, np.int8)
    answers[:, 0] = 1
    return rows, answers


# ------------------------------------------------------------------------------- reference


def learn_reference(
    loss_and_gradients: Callable[..., tuple[float, np.ndarray, np.ndarray]],
    steps: Steps,
    embeddings: np.ndarray,
    outputs: np.ndarray,
) -> float:
    """Take the steps one by one, with one of the references of losses.py; returns the summed loss.

    Changes both matrices in place.
    """
    total, start = 0.0, 0
    for i, stop in enumerate(steps.stops):
        found = steps.found[start:stop]
        count = max(1, len(found))
        hidden = embeddings[found].sum(axis=0) / count
        choice = [choices[i] for choices in steps.choices]
        loss, dhidden, doutputs = loss_and_gradients(hidden, outputs, *choice, steps.weights[i])
        outputs -= steps.rates[i] * doutputs
        np.subtract.at(embeddings, found, steps.rates[i] * dhidden / count)
        total, start = total + loss, stop
    return total


# ------------------------------------------------------------------------------- fast twin
#
# A step reads the rows of the text's features once and writes them once, while they are still in
# cache. The loops over `dim` are vectors.


@jit
def _learn_softmax(found, stops, labels, weights, rates, embeddings, outputs):
    hidden = np.empty(embeddings.shape[1], embeddings.dtype)
    change, scores = np.empty_like(hidden), np.empty(outputs.shape[0], embeddings.dtype)
    loss, start = 0.0, 0
    for i in range(stops.size):
        average(embeddings, found, start, stops[i], hidden)
        loss += softmax_step(hidden, outputs, labels[i], weights[i], rates[i], scores, change)
        change *= -rates[i] / hidden.dtype.type(max(1, stops[i] - start))
        add_to_rows(embeddings, found, start, stops[i], change)
        start = stops[i]
    return loss


@jit
def _learn_decisions(found, stops, rows, answers, weights, rates, embeddings, outputs):
    hidden = np.empty(embeddings.shape[1], embeddings.dtype)
    change, scores = np.empty_like(hidden), np.empty(rows.shape[1], embeddings.dtype)
    loss, start = 0.0, 0
    for i in range(stops.size):
        average(embeddings, found, start, stops[i], hidden)
        loss += decisions_step(
            hidden, outputs, rows[i], answers[i], weights[i], rates[i], scores, change
        )
        change *= -rates[i] / hidden.dtype.type(max(1, stops[i] - start))
        add_to_rows(embeddings, found, start, stops[i], change)
        start = stops[i]
    return loss


# ---------------------------------------------------------------------------------- public


def learn_softmax(steps: Steps, embeddings: np.ndarray, outputs: np.ndarray) -> float:
    """Take the steps down the softmax loss, changing both matrices; returns the summed loss."""
    if not backend.fast(embeddings, outputs):
        return learn_reference(softmax_reference, steps, embeddings, outputs)
    return _learn_softmax(
        steps.found, steps.stops, *steps.choices, steps.weights, steps.rates, embeddings, outputs
    )


def learn_decisions(steps: Steps, embeddings: np.ndarray, outputs: np.ndarray) -> float:
    """Take the steps down the loss of decisions, changing both matrices; returns their sum."""
    if not backend.fast(embeddings, outputs):
        return learn_reference(decisions_reference, steps, embeddings, outputs)
    return _learn_decisions(
        steps.found, steps.stops, *steps.choices, steps.weights, steps.rates, embeddings, outputs
    )
