"""Llama: the Transformer of today.

    x = token_embedding[ids]
    for each block:
        x = x + attention(norm1(x))
        x = x + mlp(norm2(x))
    logits = norm(x) @ head.T

What differs from GPT, and why:

* RMSNorm instead of layer norm: no mean, no bias; as good, and one pass less.
* Rotary positions: queries and keys are rotated by an angle that grows with their position, so
  that the score of two tokens depends on how far apart they are. There is no position table.
* SwiGLU: the MLP multiplies one projection by the SiLU of another (a gate), (silu(g) * u) W.
* Grouped queries: several query heads share a key/value head, which shrinks the cache.
* No biases anywhere.
* Optionally each query and key is normalised before it is rotated (`qk_norm`, as in Qwen3), which
  bounds the scores and keeps training steady at high learning rates.

Initialisation is GPT-2's, with the smaller last weight of each branch (models/gpt.py).

Sources: Touvron et al. 2023, "LLaMA"; Su et al. 2021, "RoFormer"; Shazeer 2020, "GLU Variants
Improve Transformer"; Ainslie et al. 2023, "GQA"; Zhang and Sennrich 2019, "Root Mean Square Layer
Normalization".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minillm.autograd import Tensor
from minillm.autograd import functional as F
from minillm.autograd.checkpoint import checkpoint
from minillm.backend import Array
from minillm.errors import InputError
from minillm.kernels import rotary
from minillm.models.base import (
    LanguageModel,
    Place,
    add_branch,
    check_divisible,
    check_dropout,
    check_flags,
    check_positive,
    check_sizes,
)
from minillm.models.kv_cache import KVCache
from minillm.nn import Dropout, Embedding, Linear, Module, RMSNorm

Rotation = tuple[Array, Array]  # cosines and sines, (B or 1, T, D/2) each


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama. Raises `InputError` where the settings do not fit together."""

    vocab_size: int
    block_size: int  # most tokens it can see at once
    n_layer: int
    n_head: int
    n_kv_head: int  # key/value heads, each shared by n_head / n_kv_head query heads
    d_model: int
    d_ff: int
    rope_theta: float = 10000.0  # the slowest rotation has about this wavelength, times 2 pi
    norm_eps: float = 1e-5
    qk_norm: bool = False
    tie_weights: bool = True  # whether the head is the token embedding
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "block_size", "n_layer", "n_head", "n_kv_head", "d_model")
        check_sizes(self, "d_ff")
        check_divisible(self, "d_model", by="n_head")
        check_divisible(self, "n_head", by="n_kv_head")
        if (d_head := self.d_model // self.n_head) % 2:
            raise InputError(
                f"heads of size d_model / n_head = {d_head}; rotary positions need an even size"
            )
        check_dropout(self.dropout)
        check_flags(self, "qk_norm", "tie_weights")
        check_positive(self, "rope_theta", "norm_eps")


class Llama(LanguageModel):
    """A Llama of the shape `config`, in `dtype`; without an `rng` it is made to be loaded."""

    def __init__(
        self, config: LlamaConfig, rng: np.random.Generator | None = None, dtype: Any = np.float32
    ) -> None:
        c = self.config = config
        self.dropout = Dropout(c.dropout, rng)
        self.token_embedding = Embedding(c.vocab_size, c.d_model, rng)
        self.blocks = [Block(c, rng, self.dropout) for _ in range(c.n_layer)]
        self.norm = RMSNorm(c.d_model, c.norm_eps)
        if not c.tie_weights:
            self.head = Linear(c.d_model, c.vocab_size, bias=False, rng=rng)
        if np.dtype(dtype) != np.float32:
            self.astype(dtype)

    def hidden(
        self,
        ids: Array,
        cache: KVCache | None = None,
        padding_mask: Array | None = None,
        documents: Array | None = None,
    ) -> Tensor:
        """The vectors behind the scores, (B, T, C); arguments as for `forward`."""
        c = self.config
        place = self.place(ids, cache, padding_mask, documents)
        x = self.dropout(self.token_embedding(place.ids))  # (B, T, C)
        d_head = c.d_model // c.n_head
        rotation = rotary.tables(place.positions, d_head, c.rope_theta, x.dtype)  # (B or 1, T, D/2)
        for layer, block in enumerate(self.blocks):
            if self.recompute and self.training:
                x = checkpoint(partial(block, layer=layer, place=place, rotation=rotation), x)
            else:
                x = block(x, layer, place, rotation)
        if cache is not None:
            cache.advance(place.ids.shape[1])
        return self.norm(x)

    def _activations_per_block(self) -> tuple[int, int]:
        c = self.config
        kv = c.d_model * c.n_kv_head // c.n_head
        queries = (3 if c.qk_norm else 2) * (c.d_model + kv) + kv  # made, normed, rotated; values
        wide = 1 + 2 + (4 if c.dropout else 0)  # heads, 2 sums
        return queries + wide * c.d_model + 3 * c.d_ff, 2 * c.d_model  # and 2 norms

    def _cache_shape(self) -> tuple[int, int, int]:
        c = self.config
        return c.n_layer, c.n_kv_head, c.d_model // c.n_head


class Block(Module):
    """Attention, then an MLP, each added to what came in."""

    def __init__(
        self, config: LlamaConfig, rng: np.random.Generator | None, dropout: Dropout
    ) -> None:
        c = config
        self.norm1 = RMSNorm(c.d_model, c.norm_eps)
        self.attention = Attention(c, rng)
        self.norm2 = RMSNorm(c.d_model, c.norm_eps)
        self.mlp = MLP(c, rng)
        self.dropout = dropout

    def forward(self, x: Tensor, layer: int, place: Place, rotation: Rotation) -> Tensor:
        attention = partial(self.attention, layer=layer, place=place, rotation=rotation)
        x = add_branch(x, attention, self.norm1(x, for_products=True), self.dropout)  # (B, T, C)
        return add_branch(x, self.mlp, self.norm2(x, for_products=True), self.dropout)


class Attention(Module):
    """Causal self-attention: H query heads over G key/value heads, rotated by position."""

    def __init__(self, config: LlamaConfig, rng: np.random.Generator | None) -> None:
        c = config
        d_head = c.d_model // c.n_head
        d_kv = c.n_kv_head * d_head
        self.n_head, self.n_kv_head, self.d_head = c.n_head, c.n_kv_head, d_head
        self.query = Linear(c.d_model, c.d_model, False, rng)
        self.key = Linear(c.d_model, d_kv, False, rng)
        self.value = Linear(c.d_model, d_kv, False, rng)
        self.out = Linear(c.d_model, c.d_model, False, rng, std=0.02 / math.sqrt(2 * c.n_layer))
        self.query_norm = RMSNorm(d_head, c.norm_eps) if c.qk_norm else None
        self.key_norm = RMSNorm(d_head, c.norm_eps) if c.qk_norm else None

    def forward(
        self,
        x: Tensor,
        layer: int,
        place: Place,
        rotation: Rotation,
        residual: Tensor | None = None,
    ) -> Tensor:
        B, T, C = x.shape
        q = self.query(x).reshape(B, T, self.n_head, self.d_head)  # (B, T, H, D)
        k = self.key(x).reshape(B, T, self.n_kv_head, self.d_head)  # (B, T, G, D)
        v = self.value(x).reshape(B, T, self.n_kv_head, self.d_head)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        q = F.rotary(q.swapaxes(1, 2), *rotation)  # (B, H, T, D)
        k = F.rotary(k.swapaxes(1, 2), *rotation)  # (B, G, T, D)
        v = v.swapaxes(1, 2)
        if place.cache is not None:
            k, v = place.cache.update(layer, k, v)  # (B, G, S, D)
        y = F.attention(q, k, v, visible=place.visible)  # (B, H, T, D)
        return self.out(y.swapaxes(1, 2).reshape(B, T, C), residual)


class MLP(Module):
    """SwiGLU: a projection, gated by the SiLU of another, and back."""

    def __init__(self, config: LlamaConfig, rng: np.random.Generator | None) -> None:
        c = config
        self.gate = Linear(c.d_model, c.d_ff, False, rng)
        self.up = Linear(c.d_model, c.d_ff, False, rng)
        self.down = Linear(c.d_ff, c.d_model, False, rng, std=0.02 / math.sqrt(2 * c.n_layer))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.down(F.swiglu(self.gate(x), self.up(x)), residual)  # (B, T, F) -> (B, T, C)
