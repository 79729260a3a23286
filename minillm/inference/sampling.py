"""Choosing the next token from a model's logits.

The settings act in this order, as elsewhere in the field, each on what the one before has left:

    repetition penalty   logits of tokens seen before: divided by it where > 0, else multiplied
    temperature          logits / temperature: below 1 sharper, above 1 flatter
    top_k                only the k highest logits
    top_p                only the likeliest tokens, up to where their probabilities sum to p
    min_p                only tokens at least p times as likely as the likeliest

What is ruled out has the logit -inf. One uniform number then picks from the rest: the token at
which the running sum of the probabilities passes it.

Sources: Keskar et al. 2019, "CTRL" (repetition penalty); Fan et al. 2018 (top-k); Holtzman et al.
2019, "The Curious Case of Neural Text Degeneration" (top-p); Nguyen et al. 2024 (min-p).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minillm.errors import InputError


@dataclass(frozen=True)
class SamplingConfig:
    """How to choose; the defaults draw from the model's own distribution.

    Raises `InputError` for a value outside its range.
    """

    temperature: float = 1.0  # 0 means greedy
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0  # above 1 makes tokens of the prompt and the text rarer
    greedy: bool = False  # always the likeliest token

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise InputError(f"temperature={self.temperature}; it takes a number from 0 on")
        k = self.top_k
        if k is not None and (not isinstance(k, (int, np.integer)) or k < 1):
            raise InputError(f"top_k={self.top_k}; it takes a whole number of at least 1")
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise InputError(f"{name}={share}; it takes a probability above 0, up to 1")
        if not 0 < self.repetition_penalty < np.inf:
            raise InputError(
                f"repetition_penalty={self.repetition_penalty}; it takes a number above 0"
            )


def sample(
    logits: np.ndarray,
    config: SamplingConfig,
    rng: np.random.Generator,
    history: Sequence[int] = (),
) -> int:
    """The id of the next token, from its logits (V,).

    `history` are the tokens of the row so far, for the repetition penalty. Greedy choice takes no
    number from `rng`, and the lower id where two tie. Raises `InputError` for logits with NaN or
    plus infinity, or without any finite number, also after the penalty.
    """
    logits = _checked(logits)
    if config.repetition_penalty != 1:
        logits = penalize(logits, history, config.repetition_penalty)
    if config.greedy or config.temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # what is too low for float64 is ruled out
        logits = (logits - logits.max()) / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = keep_min_p(logits, config.min_p)
    running = np.cumsum(softmax(logits))
    return int(np.searchsorted(running, rng.random() * running[-1], side="right"))


def penalize(logits: np.ndarray, history: Sequence[int], penalty: float) -> np.ndarray:
    """Make the tokens in `history` less likely, each once however often it occurred.

    Raises `InputError` for a penalty that leaves the highest logit infinite.
    """
    seen = np.unique(np.asarray(history, dtype=np.int64))
    logits = logits.copy()
    scores = logits[seen]
    with np.errstate(over="ignore"):
        logits[seen] = np.where(scores > 0, scores / penalty, scores * penalty)
    if not np.isfinite(logits.max()):
        raise InputError(
            f"repetition_penalty={penalty} takes the logits beyond float64; choose one nearer to 1"
        )
    return logits


def keep_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Rule out all but the k highest; tokens that tie with the last of them stay."""
    if k >= len(logits):
        return logits
    smallest = np.partition(logits, -k)[-k]
    return np.where(logits < smallest, -np.inf, logits)


def keep_top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Keep a token where those likelier than it sum to less than p; so always the likeliest.

    The V tokens below (1 - p) / V together have less than 1 - p, so none of them is kept, and only
    the few others need sorting. The bound is 1% lower than that, for rounding.
    """
    if p == 1:
        return logits
    probabilities = softmax(logits)
    hopeful = np.flatnonzero(probabilities * len(logits) >= 0.99 * (1 - p))
    order = hopeful[np.argsort(-probabilities[hopeful], kind="stable")]
    before = np.cumsum(probabilities[order]) - probabilities[order]
    chosen = order[before < p]
    kept = np.full_like(logits, -np.inf)
    kept[chosen] = logits[chosen]
    return kept


def keep_min_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Rule out tokens whose probability is below p times the highest."""
    return np.where(logits < logits.max() + np.log(p), -np.inf, logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (V,) of logits (V,)."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _checked(logits: np.ndarray) -> np.ndarray:
    """The logits in float64, where they are fit to choose from."""
    logits = np.asarray(logits, dtype=np.float64)
    if np.isfinite(logits.max()):  # a maximum of anything and NaN is NaN
        return logits
    wrong = np.flatnonzero(~(logits < np.inf))
    found = f"{logits[wrong[0]]} for token {wrong[0]}" if wrong.size else "-inf for every token"
    raise InputError(
        f"the model's logits are {found}; its weights are damaged, or its training diverged"
    )
