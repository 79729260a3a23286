"""From scores to a selection: which documents are kept, or how often each is seen.

A filter keeps what scores above a threshold. It is simple, and it makes the kept text as narrow as
the classifier's taste. A *sampling weight* keeps some of what scores low, too: for GPT-3 a document
was kept when a draw from a Pareto distribution (NumPy's, which starts at 0) exceeded 1 - score,
which happens with the chance

    P(X > 1 - score) = (2 - score)^-alpha

1 for the best score, and 2^-alpha for the worst: with alpha 9, one in 512.

Source: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix A.
"""

from __future__ import annotations

import numpy as np

from minillm.errors import InputError

ALPHA = 9.0  # GPT-3's


def keeps(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Which documents a filter keeps (bool): those whose score is `threshold` or more.

    >>> keeps(np.array([0.2, 0.5, 0.9]), 0.5)
    array([False,  True,  True])
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"the threshold is {threshold}; scores lie between 0 and 1")
    return _checked(scores) >= threshold


def keep_chance(scores: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """The chance of each document to be kept, between 2^-alpha and 1, from scores in 0 .. 1.

    `alpha` 0 keeps everything; the larger, the fewer documents of low score.

    >>> keep_chance(np.array([0.0, 1.0]), alpha=3)
    array([0.125, 1.   ])
    """
    if not alpha >= 0:
        raise InputError(f"alpha is {alpha}; it takes 0 or more")
    return (2 - _checked(scores)) ** -alpha


def sampling_weights(scores: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """How often to see each document: `keep_chance`, scaled to be 1 on average.

    >>> sampling_weights(np.array([0.0, 1.0]), alpha=1)
    array([0.66666667, 1.33333333])
    """
    chance = keep_chance(scores, alpha)
    return chance / chance.mean() if chance.size else chance


def _checked(scores: np.ndarray) -> np.ndarray:
    """`scores` as float64, where all of them are probabilities."""
    scores = np.asarray(scores, np.float64)
    wrong = scores[~((scores >= -1e-6) & (scores <= 1 + 1e-6))]
    if wrong.size:
        raise InputError(f"a score is {wrong.flat[0]}; scores lie between 0 and 1")
    return scores
