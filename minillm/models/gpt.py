"""GPT: the decoder-only Transformer, as GPT-2 has it, with the original Transformer as settings.

    x = token_embedding[ids] + position_embedding[positions]
    for each block:
        x = x + attention(norm1(x))        each token gathers from the tokens before it
        x = x + mlp(norm2(x))              each token works on what it has gathered
    logits = norm(x) @ token_embedding.T   the head shares the embedding's weight

That is the pre-norm block: x runs straight through the model, so that gradients do too. The block
of the original Transformer (`norm="post"`) normalises behind each sum, x = norm(x + f(x)), and
needs no norm at the end.

GPT-2's initialisation: weights normal with standard deviation 0.02, biases zero; and since
2 n_layer branches are summed into x, the last weight of each starts smaller, by
1 / sqrt(2 n_layer).

Dropout stands behind the embeddings and at the end of each branch. Attention weights are not
dropped: the fused kernel never stores them.

Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3;
Vaswani et al. 2017, "Attention is all you need", sections 3.1 to 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import Tensor
from minillm.autograd import functional as F
from minillm.autograd.checkpoint import checkpoint
from minillm.backend import Array
from minillm.models.base import (
    LanguageModel,
    Place,
    add_branch,
    check_choice,
    check_divisible,
    check_dropout,
    check_flags,
    check_sizes,
)
from minillm.models.kv_cache import KVCache
from minillm.nn import Dropout, Embedding, LayerNorm, Linear, Module

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
APPROXIMATE = {"gelu": "none", "gelu_tanh": "tanh"}  # those that F.feed_forward has


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. Raises `InputError` where the settings do not fit together."""

    vocab_size: int
    block_size: int  # most tokens it can see at once
    n_layer: int
    n_head: int
    d_model: int
    d_ff: int | None = None  # width inside the MLP; None means 4 * d_model
    dropout: float = 0.0
    bias: bool = True  # in linear layers and layer norms
    activation: str = "gelu"  # "gelu" (exact), "gelu_tanh" (GPT-2's approximation) or "relu"
    norm: str = "pre"  # "pre", or "post" as in the original Transformer
    positions: str = "learned"  # or "sinusoidal" as in the original Transformer
    tie_weights: bool = True  # whether the head is the token embedding

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "block_size", "n_layer", "n_head", "d_model")
        check_divisible(self, "d_model", by="n_head")
        if self.d_ff is not None:
            check_sizes(self, "d_ff")
        check_dropout(self.dropout)
        check_flags(self, "bias", "tie_weights")
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_choice("norm", self.norm, ("pre", "post"))
        check_choice("positions", self.positions, ("learned", "sinusoidal"))

    @property
    def mlp_width(self) -> int:
        """Width inside the MLP."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff


class GPT(LanguageModel):
    """A GPT of the shape `config`, in `dtype`; without an `rng` it is made to be loaded."""

    def __init__(
        self, config: GPTConfig, rng: np.random.Generator | None = None, dtype: Any = np.float32
    ) -> None:
        c = self.config = config
        self.dropout = Dropout(c.dropout, rng)
        self.token_embedding = Embedding(c.vocab_size, c.d_model, rng)
        if c.positions == "learned":
            self.position_embedding = Embedding(c.block_size, c.d_model, rng)
        else:
            self.sinusoids = sinusoids(c.block_size, c.d_model)
        self.blocks = [Block(c, rng, self.dropout) for _ in range(c.n_layer)]
        self.norm = LayerNorm(c.d_model, c.bias) if c.norm == "pre" else None
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
        place = self.place(ids, cache, padding_mask, documents)
        x = self.dropout(self._embed(place))  # (B, T, C)
        for layer, block in enumerate(self.blocks):
            if self.recompute and self.training:
                x = checkpoint(partial(block, layer=layer, place=place), x)
            else:
                x = block(x, layer, place)
        if cache is not None:
            cache.advance(place.ids.shape[1])
        return x if self.norm is None else self.norm(x)

    def _embed(self, place: Place) -> Tensor:
        """Each token's vector plus its position's: (B, T, C)."""
        x = self.token_embedding(place.ids)
        if self.config.positions == "learned":
            return x + self.position_embedding(place.positions)
        return x * math.sqrt(self.config.d_model) + self.sinusoids[place.positions]

    def _activations_per_block(self) -> tuple[int, int]:
        c = self.config
        wide = (1 + 2 + (4 if c.dropout else 0)) * c.d_model  # heads, 2 sums
        qkv, norms = 3 * c.d_model, 2 * c.d_model
        wide, rounded = (wide, qkv + norms) if c.norm == "pre" else (wide + norms, qkv)
        if c.activation in APPROXIMATE:
            return wide, rounded + c.mlp_width
        return wide + 2 * c.mlp_width, rounded

    def _cache_shape(self) -> tuple[int, int, int]:
        c = self.config
        return c.n_layer, c.n_head, c.d_model // c.n_head


class Block(Module):
    """Attention, then an MLP, each added to what came in."""

    def __init__(
        self, config: GPTConfig, rng: np.random.Generator | None, dropout: Dropout
    ) -> None:
        c = config
        self.post_norm = c.norm == "post"
        self.norm1 = LayerNorm(c.d_model, c.bias)
        self.attention = Attention(c, rng)
        self.norm2 = LayerNorm(c.d_model, c.bias)
        self.mlp = MLP(c, rng)
        self.dropout = dropout

    def forward(self, x: Tensor, layer: int, place: Place) -> Tensor:
        attention = partial(self.attention, layer=layer, place=place)
        if self.post_norm:
            x = self.norm1(add_branch(x, attention, x, self.dropout))  # (B, T, C)
            return self.norm2(add_branch(x, self.mlp, x, self.dropout))
        x = add_branch(x, attention, self.norm1(x, for_products=True), self.dropout)  # (B, T, C)
        return add_branch(x, self.mlp, self.norm2(x, for_products=True), self.dropout)


class Attention(Module):
    """Causal self-attention with n_head heads; queries, keys and values come from one product."""

    def __init__(self, config: GPTConfig, rng: np.random.Generator | None) -> None:
        c = config
        self.n_head = c.n_head
        self.qkv = Linear(c.d_model, 3 * c.d_model, c.bias, rng)
        self.out = Linear(c.d_model, c.d_model, c.bias, rng, std=0.02 / math.sqrt(2 * c.n_layer))

    def forward(
        self, x: Tensor, layer: int, place: Place, residual: Tensor | None = None
    ) -> Tensor:
        B, T, C = x.shape
        if place.cache is None:  # all keys are here: one operation reads q, k, v where they lie
            qkv = self.qkv(x, for_products=True)  # (B, T, 3C)
            return self.out(F.self_attention(qkv, self.n_head, place.visible), residual)
        heads = self.qkv(x).reshape(B, T, 3, self.n_head, C // self.n_head).transpose(2, 0, 3, 1, 4)
        q, k, v = heads[0], heads[1], heads[2]  # (B, H, T, D) each
        k, v = place.cache.update(layer, k, v)  # (B, H, S, D)
        y = F.attention(q, k, v, visible=place.visible)  # (B, H, T, D)
        return self.out(y.swapaxes(1, 2).reshape(B, T, C), residual)  # (B, T, C)


class MLP(Module):
    """Two linear layers with an activation between them, at each position by itself."""

    def __init__(self, config: GPTConfig, rng: np.random.Generator | None) -> None:
        c = config
        self.up = Linear(c.d_model, c.mlp_width, c.bias, rng)
        self.down = Linear(c.mlp_width, c.d_model, c.bias, rng, std=0.02 / math.sqrt(2 * c.n_layer))
        self.activation = c.activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        up, down = self.up, self.down
        if self.activation in APPROXIMATE and type(up) is type(down) is Linear:
            return F.feed_forward(
                x, up.weight, up.bias, down.weight, down.bias, residual,
                APPROXIMATE[self.activation],
            )  # fmt: skip
        wide = ACTIVATIONS[self.activation](up(x))  # (B, T, F)
        return down(wide, residual)  # (B, T, C)


def sinusoids(block_size: int, d_model: int) -> Tensor:
    """The original Transformer's positions (block_size, d_model): waves of growing length.

    Channels 2i and 2i+1 are the sine and cosine of position / 10000^(2i / d_model), so that a shift
    in position is a rotation of each pair, the same at every position.
    """
    position = np.arange(block_size)[:, None]
    pair = np.arange(d_model) // 2
    angle = position / 10000.0 ** (2 * pair / d_model)  # (block_size, d_model)
    table = np.where(np.arange(d_model) % 2 == 0, np.sin(angle), np.cos(angle))
    return Tensor(backend.asarray(table, dtype=np.float32))
