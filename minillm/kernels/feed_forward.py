"""The feed-forward layer of a Transformer: up to many channels, GELU, and back down.

    u   = x @ up^T + up_bias                            (..., F)
    out = gelu(u) @ down^T + down_bias + residual       (..., C)

Derivative: those of its parts (linear.py, gelu.py), from the last to the first,

    dg = dout @ down,         ddown = dout^T @ gelu(u),     ddown_bias = sum of the rows of dout
    du = dg gelu'(u),         dup   = du^T @ x,             dup_bias   = sum of the rows of du
    dx = du @ up,             dresidual = dout

Why it is one operation. It holds the widest arrays of a model, four times as wide as its input, and
two of them: u and gelu(u). Of these only u is kept; gelu(u) costs a few operations a number and
is made again on the way back, while the product dout @ down, which turns dg into du, is in cache
(epilogue.py). A backward pass that comes only once writes gelu(u) over u.

With bfloat16 activations (`backend.precision`) u is stored in that type. Then gelu(u) on the way
back is that of the rounded u, which moves it about as far as the rounding of its product does.

Shapes: x (..., C), up (F, C), up_bias (F,), down (C, F), down_bias (C,), residual and out (..., C);
both biases or neither, residual or None. Source: Vaswani et al. 2017, "Attention is all you need",
section 3.3; with GELU, Radford et al. 2018, "Improving language understanding by generative
pre-training", section 4.1.
"""

from __future__ import annotations

import math

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.kernels import gelu, linear
from minillm.kernels.bfloat16 import BFLOAT16
from minillm.kernels.epilogue import ADD, GELU, GELU_BACK, TANH, epilogue
from minillm.kernels.matmul import product

Wanted = tuple[bool, bool, bool]  # whether the gradients of x, up and down are
Gradients = tuple[Array | None, Array | None, Array | None, Array | None, Array | None]

# ------------------------------------------------------------------------------- reference


def forward_reference(
    x: Array,
    up: Array,
    up_bias: Array | None,
    down: Array,
    down_bias: Array | None,
    residual: Array | None = None,
    approximate: str = "none",
) -> tuple[Array, Array]:
    """The layer's output and u."""
    u = linear.forward_reference(x, up, up_bias)  # (..., F)
    g = gelu.forward_reference(u, approximate)
    out = linear.forward_reference(g, down, down_bias, residual)
    return out, u.astype(BFLOAT16) if backend.bfloat16_activations(x, up, down) else u


def backward_reference(
    dout: Array,
    x: Array,
    u: Array,
    up: Array,
    down: Array,
    with_bias: bool,
    approximate: str = "none",
    wanted: Wanted = (True, True, True),
    spend: bool = False,
) -> Gradients:
    """Gradients of x, up, up_bias, down and down_bias."""
    u = u.astype(dout.dtype, copy=False)
    g = gelu.forward_reference(u, approximate)
    dg, ddown, ddown_bias = linear.backward_reference(dout, g, down, with_bias, (True, wanted[2]))
    du = gelu.backward_reference(dg, u, approximate)
    dx, dup, dup_bias = linear.backward_reference(du, x, up, with_bias, wanted[:2])
    return dx, dup, dup_bias, ddown, ddown_bias


# ------------------------------------------------------------------------------- fast twin
#
# Four passes over the wide arrays are gone: GELU and its derivative happen at the end of the
# products, while a few rows of them lie in cache.


def forward_fast(
    x: Array,
    up: Array,
    up_bias: Array | None,
    down: Array,
    down_bias: Array | None,
    residual: Array | None = None,
    approximate: str = "none",
) -> tuple[Array, Array]:
    halved = backend.bfloat16_products(x, up, down)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    stored = BFLOAT16 if backend.bfloat16_activations(x, up, down) else np.result_type(x, up)
    u = np.empty((*x.shape[:-1], len(up)), stored)
    after = epilogue(up_bias, GELU + TANH * (approximate == "tanh"), u)
    g = product(rows, up.T, bfloat16=halved, end=after)
    after = epilogue(down_bias) if residual is None else epilogue(down_bias, ADD, residual)
    out = product(g, down.T, bfloat16=halved, end=after)
    return out.reshape(*x.shape[:-1], len(down)), u


def backward_fast(
    dout: Array,
    x: Array,
    u: Array,
    up: Array,
    down: Array,
    with_bias: bool,
    approximate: str = "none",
    wanted: Wanted = (True, True, True),
    spend: bool = False,
) -> Gradients:
    halved = backend.bfloat16_products(dout, x, up, down)
    douts, xs = (a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in (dout, x))
    g = (u if spend else u.copy()).reshape(len(douts), len(up))  # still u until the next product
    after = epilogue(None, GELU_BACK + TANH * (approximate == "tanh"), g)
    du = product(douts, down, bfloat16=halved, end=after)
    ddown = product(douts.T, g, bfloat16=halved) if wanted[2] else None
    del g
    dup = product(du.T, xs, bfloat16=halved) if wanted[1] else None
    dx = product(du, up, bfloat16=halved).reshape(x.shape) if wanted[0] else None
    if not with_bias:
        return dx, dup, None, ddown, None
    return dx, dup, linear.sum_of_rows(du), ddown, linear.sum_of_rows(douts)


# ---------------------------------------------------------------------------------- public


def forward(
    x: Array,
    up: Array,
    up_bias: Array | None,
    down: Array,
    down_bias: Array | None,
    residual: Array | None = None,
    approximate: str = "none",
) -> tuple[Array, Array]:
    """The layer's output (..., C), and u (..., F), which `backward` needs.

    float32 or float64, all of one dtype; x may be bfloat16 beside float32 weights, and u is with
    bfloat16 activations. `approximate` is GELU's, "none" or "tanh"; `InputError` for any other.
    """
    gelu.check_name(approximate)
    run = forward_fast if backend.fast(x, up, down) else forward_reference
    return run(x, up, up_bias, down, down_bias, residual, approximate)


def backward(
    dout: Array,
    x: Array,
    u: Array,
    up: Array,
    down: Array,
    with_bias: bool,
    approximate: str = "none",
    wanted: Wanted = (True, True, True),
    spend: bool = False,
) -> Gradients:
    """Gradients (dx, dup, dup_bias, ddown, ddown_bias), None for what is not there or not wanted.

    `wanted`: whether somebody needs dx, dup and ddown. `spend`: u is not needed again and may be
    overwritten.
    """
    run = backward_fast if backend.fast(dout, x, u, up, down) else backward_reference
    return run(dout, x, u, up, down, with_bias, approximate, wanted, spend)
