"""The layers that models are made of: a parameter or two, and the named operation that uses them.

Weights start as normal numbers with standard deviation `std`, 0.02 as in GPT-2 (Radford et al.
2019, section 2.3), biases at zero and norms at one. They come from the `rng` that is passed in.
Without one a layer is made to be loaded: its weights stay unfilled until `load_state_dict`.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.autograd import Tensor
from minillm.autograd import functional as F
from minillm.backend import Array
from minillm.errors import InputError
from minillm.nn.module import Module, Parameter


def normal(shape: tuple[int, ...], std: float, rng: np.random.Generator | None) -> Parameter:
    """A float32 parameter of normal numbers with mean 0; unfilled without an `rng`."""
    if rng is None:
        return Parameter.unfilled(shape)
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(std)
    return Parameter(backend.asarray(values))


def constant(d: int, value: float) -> Parameter:
    """A float32 parameter of shape (d,) whose elements all start at `value`."""
    return Parameter(backend.module().full(d, value, dtype=np.float32))


class Linear(Module):
    """y = x Wᵀ + b, from (..., d_in) to (..., d_out); `weight` is (d_out, d_in).

    With a `residual` (..., d_out) that is added too, on the way.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        bias: bool = True,
        rng: np.random.Generator | None = None,
        std: float = 0.02,
    ) -> None:
        self.weight = normal((d_out, d_in), std, rng)
        self.bias = constant(d_out, 0.0) if bias else None

    def forward(
        self, x: Tensor, residual: Tensor | None = None, for_products: bool = False
    ) -> Tensor:
        return F.linear(x, self.weight, self.bias, residual, for_products)


class Embedding(Module):
    """A table of n vectors of length d; integer ids of any shape pick rows: ids.shape + (d,)."""

    def __init__(
        self, n: int, d: int, rng: np.random.Generator | None = None, std: float = 0.02
    ) -> None:
        self.weight = normal((n, d), std, rng)

    def forward(self, ids: Array) -> Tensor:
        return F.embedding(self.weight, ids)


class LayerNorm(Module):
    """Each vector minus its mean, over its standard deviation, times `weight`, plus `bias`."""

    def __init__(self, d: int, bias: bool = True, eps: float = 1e-5) -> None:
        self.weight = constant(d, 1.0)
        self.bias = constant(d, 0.0) if bias else None
        self.eps = eps

    def forward(self, x: Tensor, for_products: bool = False) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, self.eps, for_products)


class RMSNorm(Module):
    """Each vector over its root mean square, times `weight`."""

    def __init__(self, d: int, eps: float = 1e-6) -> None:
        self.weight = constant(d, 1.0)
        self.eps = eps

    def forward(self, x: Tensor, for_products: bool = False) -> Tensor:
        return F.rms_norm(x, self.weight, self.eps, for_products)


class Dropout(Module):
    """While training, zero each element with probability p and scale the others by 1 / (1 - p).

    The masks come from `rng`, which may be exchanged: a training loop that sets a generator made of
    its seed and its step needs no generator state in its checkpoints.
    """

    def __init__(self, p: float, rng: np.random.Generator | None = None) -> None:
        self.p = p
        self.rng = rng

    @property
    def drops(self) -> bool:
        """Whether anything is dropped at the moment."""
        return self.training and self.p > 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.drops:
            return x
        if self.rng is None:
            raise InputError(f"dropout of {self.p} has no random generator; set the layer's `rng`")
        return F.dropout(x, self.p, self.rng)
