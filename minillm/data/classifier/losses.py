"""The three losses of a classifier, each with its gradient.

Every one starts from the mean h (D,) of the text's embeddings and a matrix of outputs O with D
columns, and gives scores s = O h. The gradient of the loss with respect to the scores, ds, decides
everything else:

    dh = O^T ds,        dO = ds h^T

**softmax**: one row of O per label. p = softmax(s), and for the label t

    loss = -log p_t,        ds = p - [k = t]

Each text touches every label, which is exact and, with many labels, slow.

**decisions**: some rows r_1 .. r_n of O, each with the answer a_i = 1 or -1 that it should give.
With sigma(x) = 1 / (1 + exp(-x)),

    loss = -sum_i log sigma(a_i s_{r_i}),        ds_{r_i} = -a_i sigma(-a_i s_{r_i})

Two losses are made of it:

*hierarchical softmax*: the rows are the nodes on the label's way down a Huffman tree and the
answers are its turns (huffman.py). p_t = prod_i sigma(a_i s_{r_i}) sums to 1 over the labels, for
at each node both answers together have probability 1. A text touches log2 K rows.

*negative sampling*: the rows are the label itself, with answer 1, and a few labels that are wrong,
drawn in proportion to the square root of their counts, with answer -1. It trains quickly but the
scores are no log-probabilities: a label's probability is taken to be sigma(s_k), divided by the sum
over all labels.

A row may be drawn twice; its gradient then counts twice. A text may have a weight, which multiplies
its loss. Sources: Joulin et al. 2017; Morin and Bengio 2005 (hierarchical softmax); Mikolov et al.
2013, "Distributed Representations of Words and Phrases" (negative sampling).
"""

from __future__ import annotations

import numpy as np

from minillm.data.classifier.huffman import huffman_paths
from minillm.jit import jit
from minillm.kernels import softmax
from minillm.kernels.vector_math import exp


def label_probabilities(scores: np.ndarray, loss: str, counts: np.ndarray) -> np.ndarray:
    """The probabilities of K labels (N, K) from scores (N, K), or (N, K - 1) of the tree's nodes.

    The formulas are those above; the tree is the one of the labels' `counts` (K,).
    """
    if loss == "softmax":
        return softmax.forward(scores)
    with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf is the right 0
        if loss == "negative":
            found = 1 / (1 + np.exp(-scores))
            found = np.maximum(found, np.finfo(scores.dtype).tiny)
            return found / found.sum(axis=1, keepdims=True)
        nodes, turns = huffman_paths(counts.tolist())
        found = np.ones((len(scores), len(counts)), scores.dtype)
        for step in range(nodes.shape[1]):
            on = np.flatnonzero(turns[:, step])
            found[:, on] /= 1 + np.exp(-turns[on, step] * scores[:, nodes[on, step]])
    return found


# ------------------------------------------------------------------------------- reference


def softmax_reference(
    hidden: np.ndarray, outputs: np.ndarray, label: int, weight: float = 1.0
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, dh (D,) and dO (K, D) of softmax, from h (D,) and O (K, D)."""
    scores = outputs @ hidden
    powers = np.exp(scores - scores.max())
    probabilities = powers / powers.sum()
    loss = -weight * np.log(probabilities[label])
    probabilities[label] -= 1
    dscores = weight * probabilities
    return float(loss), outputs.T @ dscores, np.outer(dscores, hidden)


def decisions_reference(
    hidden: np.ndarray,
    outputs: np.ndarray,
    rows: np.ndarray,
    answers: np.ndarray,
    weight: float = 1.0,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, dh (D,) and dO like O, from h (D,), O and rows and answers (n,); answer 0: no row."""
    rows, answers = rows[answers != 0], answers[answers != 0].astype(hidden.dtype)
    right = answers * (outputs[rows] @ hidden)
    loss = weight * np.logaddexp(0, -right).sum()  # -log sigma(x) = log(1 + exp(-x))
    dscores = -weight * answers / (1 + np.exp(right))
    doutputs = np.zeros_like(outputs)
    np.add.at(doutputs, rows, np.outer(dscores, hidden))
    return float(loss), outputs[rows].T @ dscores, doutputs


# ------------------------------------------------------------------------------- fast twin
#
# The gradient of the outputs is never stored: it is taken off them in the same walk that collects
# dh. All scores are known before the first row changes, so that the result is the reference's.


@jit
def softmax_step(hidden, outputs, label, weight, rate, scores, dhidden):
    """Take `rate` times dO off `outputs`, put dh into `dhidden`; returns the loss.

    `scores` is scratch, with room for K numbers.
    """
    count = outputs.shape[0]
    for k in range(count):
        scores[k] = _score(hidden, outputs[k])
    top = scores[:count].max()
    target = scores[label] - top
    total = hidden.dtype.type(0)
    for k in range(count):
        scores[k] = exp(scores[k] - top)
        total += scores[k]
    share = weight / total
    dhidden[:] = 0
    for k in range(count):
        dscore = scores[k] * share
        if k == label:
            dscore -= weight
        _apply(hidden, outputs[k], dscore, rate * dscore, dhidden)
    return weight * (np.log(total) - target)


@jit
def decisions_step(hidden, outputs, rows, answers, weight, rate, scores, dhidden):
    """As `softmax_step`, for decisions. `scores` has room for as many numbers as there are rows."""
    loss = weight * hidden.dtype.type(0)
    for i in range(rows.size):
        if answers[i] != 0:
            right = answers[i] * _score(hidden, outputs[rows[i]])
            wrong = exp(-abs(right))  # log(1 + exp(-x)) without overflow
            loss += weight * (np.log1p(wrong) + max(-right, hidden.dtype.type(0)))
            share = wrong if right >= 0 else hidden.dtype.type(1)
            scores[i] = -answers[i] * weight * share / (hidden.dtype.type(1) + wrong)
    dhidden[:] = 0
    for i in range(rows.size):
        if answers[i] != 0:
            _collect(outputs[rows[i]], scores[i], dhidden)
    for i in range(rows.size):
        if answers[i] != 0:
            _collect(hidden, -rate * scores[i], outputs[rows[i]])
    return loss


@jit
def _score(hidden, row):
    total = hidden.dtype.type(0)
    for d in range(hidden.size):
        total += hidden[d] * row[d]
    return total


@jit
def _collect(row, factor, total):
    """total <- total + factor * row."""
    for d in range(row.size):
        total[d] += factor * row[d]


@jit
def _apply(hidden, row, dscore, step, dhidden):
    """Add the row's part to dh, and take a step down its own gradient."""
    for d in range(hidden.size):
        dhidden[d] += dscore * row[d]
        row[d] -= step * hidden[d]
