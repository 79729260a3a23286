"""What a run measures of itself, and the file that keeps it.

loss            mean cross-entropy in nats per token
perplexity      exp(loss): among how many equally likely tokens the model is choosing
bits_per_byte   bits to write the text down, per byte of UTF-8. Unlike the two above it can be
                compared between tokenizers: it does not depend on how long their tokens are
mfu             model FLOP utilisation (Chowdhery et al. 2022, PaLM, appendix B): the arithmetic
                in the model's formulas over what this machine's best matrix product does in
                the same time (`peak.py`). Work that is done twice does not count twice
"""

from __future__ import annotations

import functools
import json
import math
import operator
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minillm import backend, files
from minillm.autograd import no_grad
from minillm.autograd.arrays import integers
from minillm.kernels import linear_cross_entropy
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer

EVALUATED_AT_ONCE = 4096  # tokens in one batch of an evaluation


@dataclass(frozen=True)
class TextLoss:
    """How surprised a model is by a text: the sum over its tokens, and what it is a sum over."""

    nats: float
    tokens: int
    bytes: int | None = None  # of UTF-8, where the tokenizer is known

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / max(1, self.tokens)

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that is beyond float64."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """nats / (ln 2 * bytes)."""
        return self.nats / (math.log(2) * self.bytes) if self.bytes else None

    def __str__(self) -> str:
        per_byte = "" if self.bits_per_byte is None else f"  bits/byte {self.bits_per_byte:.3f}"
        return (
            f"loss {self.loss:.4f}  perplexity {self.perplexity:.2f}{per_byte}"
            f"  ({self.tokens:,} tokens)"
        )

    def __add__(self, other: TextLoss) -> TextLoss:
        both = None if self.bytes is None or other.bytes is None else self.bytes + other.bytes
        return TextLoss(self.nats + other.nats, self.tokens + other.tokens, both)


def token_lengths(tokenizer: Tokenizer | None) -> np.ndarray | None:
    """Bytes that each token adds to a text, int64 (vocab_size,); special tokens add none.

    None, which all that takes lengths understands, where there is no tokenizer.
    """
    if tokenizer is None:
        return None
    special = set(tokenizer.special_tokens.values())
    return np.array(
        [0 if i in special else len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)]
    )


def text_loss(
    model: LanguageModel, ids: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None = None
) -> TextLoss:
    """The loss of `targets` (B, T) after `ids` (B, T), without gradients; target -100 is left out.

    The losses of the tokens are added in float64, so that it hardly matters how a text is cut into
    batches. `lengths` are those of `token_lengths`.
    """
    with no_grad():
        hidden = model.hidden(ids).array  # (B, T, C)
    flat = integers(targets).reshape(-1)
    ones = backend.array_module(hidden).ones(len(flat), hidden.dtype)
    losses, _, _ = linear_cross_entropy.forward(
        hidden.reshape(len(flat), -1), model.output_weight.array, flat, ones, wanted=(False, False)
    )
    counted = targets[targets >= 0]
    size = None if lengths is None else int(lengths[counted].sum())
    return TextLoss(math.fsum(backend.to_numpy(losses).tolist()), counted.size, size)


class Tokens(Protocol):
    """A text in tokens: a `TokenDataset`, or anything with its length and its `read`."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens `start` to `stop`, an integer array."""


def split_losses(
    model: LanguageModel,
    dataset: Tokens,
    block_size: int,
    lengths: np.ndarray | None = None,
    rows: int | None = None,
) -> Iterator[TextLoss]:
    """The losses of a whole split, batch by batch, in windows of `block_size` that do not overlap.

    Every token but the very first is predicted once, from those before it in its window; the last
    window may be shorter. The model is left in the mode it was in. `rows` windows are computed
    together, which changes nothing but speed and memory.
    """
    for ids, targets in _windows(dataset, block_size, rows):
        with model.evaluating():
            loss = text_loss(model, ids, targets, lengths)
        yield loss


def total(losses: Iterable[TextLoss]) -> TextLoss:
    """The loss of all these texts together."""
    return functools.reduce(operator.add, losses, TextLoss(0.0, 0, 0))


def _windows(dataset: Tokens, T: int, rows: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches (ids, targets) that cover the dataset in order."""
    rows = rows or max(1, EVALUATED_AT_ONCE // T)
    whole = (len(dataset) - 1) // T
    for first in range(0, whole, rows):
        count = min(rows, whole - first)
        tokens = dataset.read(first * T, (first + count) * T + 1)
        yield tokens[:-1].reshape(count, T), tokens[1:].reshape(count, T)
    rest = dataset.read(whole * T, len(dataset))
    if len(rest) > 1:
        yield rest[None, :-1], rest[None, 1:]


# ---------------------------------------------------------------------------------- the file


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line and step, written out as the step ends."""

    def __init__(self, path: str | os.PathLike[str], last_step: int = 0) -> None:
        """Go on after `last_step`: lines of later steps, and one that was cut off, are dropped."""
        kept = [line for line in read_metrics(path) if line["step"] <= last_step]
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - `close` closes it

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first; a line that is damaged is left out."""
    lines = []
    if Path(path).exists():
        for text in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines
