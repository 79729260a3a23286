"""What the laws are checked on: small models made for it, or a model of the user's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.tokenizer import BPETokenizer, Tokenizer

_TEXT = "Laws hold for every model, small or large; a law that one model breaks is none. " * 20


class NotApplicable(Exception):
    """A law says nothing here, and why."""


@dataclass(frozen=True)
class Subject:
    """A model to check the laws on, and its tokenizer where it has one."""

    name: str
    model: LanguageModel
    tokenizer: Tokenizer | None = None

    def ids(self, B: int, T: int) -> np.ndarray:
        """Token ids (B, T), the same each time; T is cut to the model's `block_size`."""
        T = min(T, self.model.config.block_size)
        rng = np.random.default_rng([B, T])
        return rng.integers(0, self.model.config.vocab_size, (B, T))

    def copy(self) -> LanguageModel:
        """A model of the same weights that may be trained and thrown away."""
        twin = registry.build(self.model.config)
        twin.astype(self.model.output_weight.dtype)
        twin.load_state_dict(self.model.state_dict())
        return twin


def small_subjects() -> list[Subject]:
    """A GPT and a Llama of random weights, large enough for attention to be far from uniform."""
    tokenizer = BPETokenizer.train(_TEXT, 300)
    size = {"vocab_size": tokenizer.vocab_size, "dropout": 0.1}
    gpt = registry.build(registry.preset("gpt-tiny", **size), np.random.default_rng(1))
    llama = registry.build(
        registry.preset("llama-tiny", **size, qk_norm=True), np.random.default_rng(2)
    )
    for model in (gpt, llama):
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.data = weight.array * 5
    return [Subject("GPT", gpt, tokenizer), Subject("Llama", llama, tokenizer)]


def difference(ours: Array, expected: Array) -> float:
    """The largest difference of two arrays, as a share of the largest expected number above 1."""
    ours, expected = backend.to_numpy(ours), backend.to_numpy(expected)
    if ours.shape != expected.shape:
        return float("inf")
    if ours.size == 0 or np.array_equal(ours, expected):
        return 0.0
    apart = np.abs(ours.astype(np.float64) - expected).max()
    return float(apart / max(1.0, np.abs(expected).max()))


def largest(differences: Iterable[float]) -> float:
    """The largest of them, NaN if one is NaN, 0 if there are none."""
    return float(np.max([0.0, *differences]))


def gradients(model: LanguageModel) -> dict[str, Array]:
    """Copies of the parameters' gradients, which are then forgotten."""
    weights = model.named_parameters()
    found = {name: weight.grad.copy() for name, weight in weights if weight.grad is not None}
    model.zero_grad()
    return found


def compare(ours: dict[str, Array], expected: dict[str, Array]) -> float:
    """The largest difference between arrays of the same names."""
    return largest(difference(ours[name], array) for name, array in expected.items())
