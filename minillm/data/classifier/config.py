"""The settings of a classifier: what it sees of a text, and how it learns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minillm.errors import InputError

Loss = Literal["softmax", "hierarchical", "negative"]
ClassWeights = Literal["equal", "balanced"]


@dataclass(frozen=True)
class ClassifierConfig:
    """What a classifier sees and how it learns; the comment behind a field is its help text.

    The numbers a user is most likely to know from fastText have its defaults. Raises `InputError`
    for a value that cannot be used, when it is made.
    """

    dim: int = 100  # numbers per embedding
    word_ngrams: int = 1  # longest run of words that is a feature of its own
    min_chars: int = 0  # shortest piece of a word that is a feature; 0 with max_chars 0: none
    max_chars: int = 0  # longest piece of a word that is a feature
    buckets: int = 2_000_000  # different numbers that word runs and pieces are hashed to
    min_count: int = 1  # words seen less often are no feature of their own
    lowercase: bool = False  # read "Free" as "free"
    loss: Loss = "softmax"  # softmax, hierarchical or negative
    negatives: int = 5  # wrong labels drawn per text (loss negative)
    epochs: int = 5  # times that every text is seen
    lr: float = 0.1  # learning rate of the first step; it falls to 0 in a straight line
    class_weights: ClassWeights = "equal"  # equal, or balanced: rare labels weigh more
    seed: int = 0  # of the first embeddings, the order of the texts and the negatives

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            _whole(name, getattr(self, name), least)
        if isinstance(self.lr, bool) or not isinstance(self.lr, int | float):
            raise InputError(f"lr is {self.lr!r}; it takes a number")
        if not (0 < self.lr < math.inf):
            raise InputError(f"lr is {self.lr}; it takes a number above 0")
        if not isinstance(self.lowercase, bool):
            raise InputError(f"lowercase is {self.lowercase!r}; it takes true or false")
        for name, choices in (("loss", get_args(Loss)), ("class_weights", get_args(ClassWeights))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; it takes {_or(choices)}")
        if (self.min_chars == 0) != (self.max_chars == 0) or self.min_chars > self.max_chars:
            raise InputError(
                f"min_chars is {self.min_chars} and max_chars is {self.max_chars}; pieces of words "
                "need 1 <= min_chars <= max_chars, no pieces need 0 and 0"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassifierConfig:
        """The settings in a dictionary, as `dataclasses.asdict` writes them."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"a classifier has no setting {unknown[0]!r}")
        return cls(**values)


LEAST = {  # the least value of each whole number
    "dim": 1, "word_ngrams": 1, "min_chars": 0, "max_chars": 0, "buckets": 1, "min_count": 1,
    "negatives": 1, "epochs": 1, "seed": 0,
}  # fmt: skip
MOST = 2**31 - 1  # rows of the embeddings are numbered in 32 bits


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} is {value!r}; it takes a whole number")
    if not least <= value <= MOST:
        raise InputError(f"{name} is {value}; it takes a number from {least} to {MOST}")


def _or(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
