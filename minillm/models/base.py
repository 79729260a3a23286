"""What all language models share: checks of settings and ids, the head, the loss, and estimates.

A model's own file holds its forward pass. It calls `place` first, which answers where in the text
the given ids stand and which earlier positions each of them may see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import Tensor
from minillm.autograd import functional as F
from minillm.backend import Array
from minillm.errors import InputError, nearest
from minillm.kernels.attention import visible_keys
from minillm.models.kv_cache import KVCache
from minillm.nn import Dropout, Embedding, Linear, Module

# -------------------------------------------------------------------------------- settings


def check_sizes(config: Any, *names: str) -> None:
    """Raise `InputError` unless each named setting is a whole number of at least 1."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InputError(f"{name}={value!r}; it takes a whole number of at least 1")


def check_divisible(config: Any, name: str, by: str) -> None:
    """Raise `InputError` unless one setting is a multiple of another."""
    value, divisor = getattr(config, name), getattr(config, by)
    if value % divisor:
        raise InputError(f"{name}={value} is not divisible by {by}={divisor}")


def check_flags(config: Any, *names: str) -> None:
    """Raise `InputError` unless each named setting is True or False."""
    for name in names:
        if not isinstance(value := getattr(config, name), (bool, np.bool_)):
            raise InputError(f"{name}={value!r}; it takes True or False")


def check_positive(config: Any, *names: str) -> None:
    """Raise `InputError` unless each named setting is a finite number above 0."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise InputError(f"{name}={value!r}; it takes a finite number above 0")


def check_dropout(p: float) -> None:
    """Raise `InputError` unless 0 <= p < 1."""
    if not isinstance(p, (int, float)) or not 0 <= p < 1:
        raise InputError(f"dropout={p!r}; it takes a probability from 0 up to, but not, 1")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `InputError`, with the nearest choice, unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{name}={value!r}{nearest(str(value), choices)}")


# ---------------------------------------------------------------------- where the ids stand


@dataclass(frozen=True)
class Place:
    """Where the ids of one forward pass stand, and what they may see.

    `ids` (B, T); `positions` (B or 1, T), counted from 0 at each row's first real token (or at
    each document's); `visible`, the interval of keys that each query may see; `cache`, if any.
    """

    ids: Array
    positions: Array
    visible: tuple[Array, Array]
    cache: KVCache | None


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step, by what they are for."""

    weights: int
    gradients: int
    moments: int  # AdamW's two running averages
    activations: int  # what the forward pass leaves for the backward pass

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations


def add_branch(
    x: Tensor, branch: Callable[..., Tensor], inputs: Tensor, dropout: Dropout
) -> Tensor:
    """The residual connection: x plus what `branch` makes of `inputs`, all (B, T, C).

    Where nothing is dropped in between, the last product of the branch adds x on its way.
    """
    if dropout.drops:
        return x + dropout(branch(inputs))
    return branch(inputs, residual=x)


# ----------------------------------------------------------------------------------- model


class LanguageModel(Module):
    """A model that gives every token of a text a score for each possible next token.

    A subclass sets `config`, `dropout` (one layer, shared by all blocks) and `token_embedding`, and
    `head` unless the head shares the embedding's weight; and it defines `hidden`,
    `_activations_per_block` and `_cache_shape`.

    With `recompute` the forward pass of a training step keeps only what enters each block, and the
    backward pass computes the rest again: about a third more arithmetic for a fraction of the
    memory, and the same gradients to the last bit.
    """

    config: Any
    dropout: Dropout
    token_embedding: Embedding
    head: Linear | None = None
    recompute: bool = False

    def hidden(
        self,
        ids: Array,
        cache: KVCache | None = None,
        padding_mask: Array | None = None,
        documents: Array | None = None,
    ) -> Tensor:
        """The vectors behind the scores, (B, T, C); arguments as for `forward`."""
        raise NotImplementedError

    def forward(
        self,
        ids: Array,
        cache: KVCache | None = None,
        padding_mask: Array | None = None,
        documents: Array | None = None,
    ) -> Tensor:
        """Logits (B, T, V): for each position a score for each token that could come next.

        `ids` (B, T) are whole numbers below `vocab_size`. `cache` holds the positions before them
        and takes these in. `padding_mask` (B, T) is true at real tokens. `documents` (B, T) numbers
        the texts packed into a row, which do not see each other. Raises `InputError` for ids that
        are out of range or more than `block_size` positions.
        """
        return self.logits(self.hidden(ids, cache, padding_mask, documents))

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of hidden vectors (..., C)."""
        return F.linear(hidden, self.output_weight)

    def loss(
        self,
        ids: Array,
        targets: Array,
        weights: Array | None = None,
        normalizer: float | None = None,
        documents: Array | None = None,
    ) -> Tensor:
        """Cross-entropy of the next tokens `targets` (B, T), a scalar, without storing the logits.

        The mean over the targets that are not -100, weighted by `weights` (B, T) where given; with
        a `normalizer` the sum divided by that instead, so that parts of a batch add up to it.
        """
        hidden = self.hidden(ids, documents=documents)  # (B, T, C)
        targets = backend.asarray(targets)
        shape = hidden.shape[:2]
        if targets.shape != shape:
            raise InputError(f"targets of shape {targets.shape} for ids of shape {shape}")
        if weights is not None and np.shape(weights) != targets.shape:
            raise InputError(
                f"weights of shape {np.shape(weights)} for targets of shape {targets.shape}"
            )
        return F.linear_cross_entropy(hidden, self.output_weight, targets, weights, normalizer)

    @property
    def output_weight(self) -> Tensor:
        """The head's weight (V, C); the token embedding's where they are tied."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """An empty cache for `batch` rows of up to `capacity` (else `block_size`) positions."""
        n_layer, n_kv_head, d_head = self._cache_shape()
        capacity = self.config.block_size if capacity is None else capacity
        dtype = self.token_embedding.weight.dtype
        return KVCache(n_layer, batch, n_kv_head, capacity, d_head, dtype)

    # ------------------------------------------------------------------ checks

    def place(
        self,
        ids: Array,
        cache: KVCache | None = None,
        padding_mask: Array | None = None,
        documents: Array | None = None,
    ) -> Place:
        """Check the arguments of `forward` and say where the ids stand."""
        ids = backend.asarray(ids)
        self._check_ids(ids)
        B, T = ids.shape
        past = 0 if cache is None else cache.length
        if past + T > self.config.block_size:
            raise InputError(
                f"sequence of length {past + T}, but block_size is {self.config.block_size}"
            )
        if cache is not None and cache.batch != B:
            raise InputError(f"{B} rows of ids for a cache of {cache.batch} rows")
        real = _checked_mask(padding_mask, (B, T))
        if documents is not None and (cache is not None or real is not None):
            raise InputError("packed documents take neither a cache nor a padding mask")
        positions = np.arange(past, past + T)[None]  # (1, T)
        if cache is not None:
            cache.add_padding(T, real)
            if cache.padding.any():  # (B, past + T)
                real = np.arange(past + T) >= cache.padding[:, None]
                positions = np.maximum(positions - cache.padding[:, None], 0)
        elif real is not None:
            positions = np.maximum(positions - real.argmax(axis=1)[:, None], 0)
        elif documents is not None:
            positions = _within_documents(np.asarray(backend.to_numpy(documents)), (B, T))
        visible = visible_keys(T, past + T, padding_mask=real, documents=documents)
        return Place(ids, backend.asarray(positions), visible, cache)

    def _check_ids(self, ids: Array) -> None:
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise InputError(
                f"ids of shape {ids.shape} and type {ids.dtype};"
                " they are whole numbers of shape (batch, time)"
            )
        if not self.token_embedding.weight.is_filled:
            name = type(self).__name__
            raise InputError(
                f"this {name} has no weights yet; give {name}(config, rng) a random generator,"
                " or load_state_dict"
            )
        vocab_size = self.config.vocab_size
        if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
            wrong = ids[(ids < 0) | (ids >= vocab_size)]
            raise InputError(
                f"token id {int(wrong[0])} is out of range; vocab_size is {vocab_size}"
            )

    # ------------------------------------------------------------------ estimates

    def flops_per_token(self, T: int | None = None) -> int:
        """Arithmetic of training on one token of a text of T (else `block_size`) tokens.

        Every weight that is multiplied costs 2 operations forward and 4 backward; attention adds
        12 n_layer d_model T, counted as if without the causal mask, as is usual (Chowdhery et al.
        2022, "PaLM", appendix B). Forward alone is a third of this.
        """
        c = self.config
        T = c.block_size if T is None else T
        tables = [m.weight.size for _, m in self.named_modules() if isinstance(m, Embedding)]
        multiplied = self.num_parameters() - sum(tables)  # rows of a table are only looked up,
        if self.head is None:  # but the head multiplies by the one it shares
            multiplied += self.token_embedding.weight.size
        return 6 * multiplied + 12 * c.n_layer * c.d_model * T

    def memory_estimate(
        self, batch: int, T: int | None = None, activations: str = "float32"
    ) -> MemoryEstimate:
        """Bytes that a training step on `batch` rows of T (else `block_size`) tokens needs.

        Counted are the arrays that stay; the working memory of a kernel comes on top.
        `activations` is the setting of `backend.precision`.
        """
        c = self.config
        T = c.block_size if T is None else T
        itemsize = self.token_embedding.weight.dtype.itemsize
        weights = self.num_parameters() * itemsize
        wide, rounded = self._activations_per_block()
        block = wide * itemsize + rounded * (2 if activations == "bfloat16" else itemsize)
        in_blocks = c.n_layer * block
        if self.recompute:  # what enters each block, and all of the one being computed again
            in_blocks = c.n_layer * c.d_model * itemsize + block
        around = 4 * c.d_model  # embeddings, their sum, the last norm, the gradient of the loss
        left = batch * T * (in_blocks + around * itemsize)
        return MemoryEstimate(weights, weights, 2 * weights, left)

    def _activations_per_block(self) -> tuple[int, int]:
        """Numbers that the forward pass of one block leaves behind for each token.

        Those that are always stored in the model's precision, and those that may be in bfloat16.
        """
        raise NotImplementedError

    def _cache_shape(self) -> tuple[int, int, int]:
        """Layers, key/value heads and head size of a cache."""
        raise NotImplementedError


def _checked_mask(padding_mask: Array | None, shape: tuple[int, int]) -> np.ndarray | None:
    """The mask as booleans in main memory, or None where nothing is padding."""
    if padding_mask is None:
        return None
    real = backend.to_numpy(padding_mask).astype(bool)
    if real.shape != shape:
        raise InputError(f"padding_mask of shape {real.shape} for ids of shape {shape}")
    return None if real.all() else real


def _within_documents(documents: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Positions (B, T) that start again at 0 with each document."""
    if documents.shape != shape:
        raise InputError(f"documents of shape {documents.shape} for ids of shape {shape}")
    index = np.broadcast_to(np.arange(shape[1]), shape)
    begins = np.ones(shape, dtype=bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return index - np.maximum.accumulate(np.where(begins, index, 0), axis=1)
