"""How a run is trained: the settings of the optimizer, the schedule and the loop.

Every class checks itself when it is made, so a mistake is known before any work is done. The
comment behind a field is its help text on the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from minillm.errors import InputError, nearest
from minillm.tokenizer import patterns


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from."""

    path: str = ""  # a text file, a folder of them, or a folder of token shards
    validation: float = 0.1  # share of the text held out
    packing: bool = False  # rows of whole documents that do not see each other, not windows

    def __post_init__(self) -> None:
        _number(self, "data", "validation", "between 0 and 1", lambda x: 0 < x < 1)


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer a run trains, or reads from a file."""

    kind: Literal["char", "word", "bpe"] = "bpe"  # char, word or bpe
    vocab_size: int = 4096  # of bpe and word; at least 256 for bpe, one entry per byte
    pattern: str = "gpt4"  # how bpe splits text before merging: gpt2 or gpt4
    path: str = ""  # a saved tokenizer to use instead of training one

    def __post_init__(self) -> None:
        _choice(self, "tokenizer", "kind", ("char", "word", "bpe"))
        _whole(self, "tokenizer", "vocab_size", least=1)
        if self.kind == "bpe":
            if self.vocab_size < 256:
                raise InputError(
                    f"tokenizer.vocab_size is {self.vocab_size}, but byte-level BPE starts from the"
                    " 256 bytes; choose 256 or more, or tokenizer.kind = 'char'"
                )
            patterns.compiled(self.pattern)  # raises for what is no pattern


@dataclass(frozen=True)
class TrainConfig:
    """How the weights are learned. One step is one update of the weights."""

    steps: int = 1000  # updates in all
    batch_size: int = 16  # sequences per update
    micro_batch_size: int = 0  # sequences in memory at once; 0: the whole batch
    precision: Literal["float32", "bfloat16"] = "float32"  # of products of matrices
    activations: Literal["float32", "bfloat16"] = "float32"  # kept for the backward pass
    recompute: bool = False  # keep little of the forward pass, compute it again in the backward
    lr: float = 1e-3  # learning rate after warmup
    min_lr: float = 1e-4  # learning rate at the end of the schedule
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"  # the way down from lr
    warmup: int = 100  # steps of linear warmup
    decay_steps: int = 0  # step at which min_lr is reached; 0: the last one
    stable: float = 0.8  # wsd: share of decay_steps before the descent begins
    beta1: float = 0.9  # AdamW: memory of the gradient's mean
    beta2: float = 0.95  # AdamW: memory of its square
    eps: float = 1e-8  # AdamW: added to the root of the square
    weight_decay: float = 0.1  # on matrices only
    clip: float = 1.0  # largest global norm of the gradient; 0: no clipping
    seed: int = 0  # of the weights, the order of the data and dropout
    eval_every: int = 250  # steps between evaluations of the validation split; 0: only at the end
    save_every: int = 250  # steps between checkpoints; 0: only at the end
    keep: int = 2  # checkpoints kept beside the best one
    sample_tokens: int = 100  # length of the sample printed after an evaluation; 0: none

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "keep"):
            _whole(self, "train", name, least=1)
        for name in ("micro_batch_size", "warmup", "decay_steps", "seed", "eval_every",
                     "save_every", "sample_tokens"):  # fmt: skip
            _whole(self, "train", name, least=0)
        for name in ("lr", "eps"):
            _number(self, "train", name, "above 0", lambda x: x > 0)
        for name in ("min_lr", "weight_decay", "clip"):
            _number(self, "train", name, "of at least 0", lambda x: x >= 0)
        for name in ("beta1", "beta2"):
            _number(self, "train", name, "from 0 up to, but not, 1", lambda x: 0 <= x < 1)
        _number(self, "train", "stable", "from 0 to 1", lambda x: 0 <= x <= 1)
        for name in ("precision", "activations"):
            _choice(self, "train", name, ("float32", "bfloat16"))
        if self.activations == "bfloat16" and self.precision != "bfloat16":
            raise InputError("train.activations in bfloat16 need train.precision bfloat16 too")
        _choice(self, "train", "schedule", ("cosine", "linear", "constant", "wsd"))
        if not isinstance(self.recompute, bool):
            raise InputError(f"train.recompute is {self.recompute!r}; it takes true or false")
        if self.min_lr > self.lr and self.schedule != "constant":
            raise InputError(f"train.min_lr is {self.min_lr}, above train.lr, which is {self.lr}")


# Each raises `InputError`, with the setting's name as users write it, unless its value fits.


def _whole(config: Any, section: str, name: str, least: int) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"{section}.{name} is {value!r}; it takes a whole number of at least {least}"
        )


def _number(
    config: Any, section: str, name: str, wanted: str, fits: Callable[[float], bool]
) -> None:
    value = getattr(config, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not fits(value):
        raise InputError(f"{section}.{name} is {value!r}; it takes a finite number {wanted}")


def _choice(config: Any, section: str, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise InputError(f"{section}.{name} is {value!r}{nearest(str(value), choices)}")
