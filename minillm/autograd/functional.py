"""The named operations of a language model: each one a kernel pair, recorded on the tape.

Every function here has the same three steps. It unwraps its tensors to arrays and calls the
kernel's forward; it defines a local `backward(dout)`, a breakpoint away from `loss.backward()`,
which closes over the arrays it needs; it records the result with that function. The mathematics
stands in the kernel's file of the same name. Tensors are float32 or float64, all of one dtype (what
may be stored in bfloat16 beside float32 says so): functions with a kernel of their name raise
`InputError` for others, and for shapes that do not fit. The rest follow NumPy.

Usually imported as `import minillm.autograd.functional as F`. Shapes: B batch, T time, S keys,
C channels, H query heads, G key/value heads, D head size, V vocabulary, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import arrays, seeds
from minillm.autograd.engine import graph_is_retained
from minillm.autograd.joining import concatenate, maximum, stack, where
from minillm.autograd.losses import cross_entropy, linear_cross_entropy
from minillm.autograd.tensor import Tensor, record
from minillm.backend import Array
from minillm.errors import InputError
from minillm.kernels import attention as attention_kernel
from minillm.kernels import dropout as dropout_kernel
from minillm.kernels import embedding as embedding_kernel
from minillm.kernels import feed_forward as feed_forward_kernel
from minillm.kernels import gelu as gelu_kernel
from minillm.kernels import layer_norm as layer_norm_kernel
from minillm.kernels import linear as linear_kernel
from minillm.kernels import log_softmax as log_softmax_kernel
from minillm.kernels import relu as relu_kernel
from minillm.kernels import rms_norm as rms_norm_kernel
from minillm.kernels import rotary as rotary_kernel
from minillm.kernels import silu as silu_kernel
from minillm.kernels import softmax as softmax_kernel
from minillm.kernels import swiglu as swiglu_kernel
from minillm.kernels.bfloat16 import BFLOAT16, to_bfloat16

__all__ = [
    "attention", "concatenate", "cross_entropy", "dropout", "embedding", "feed_forward", "gelu",
    "layer_norm", "linear", "linear_cross_entropy", "log_softmax", "matmul", "maximum", "relu",
    "rms_norm", "rotary", "self_attention", "silu", "softmax", "stack", "swiglu", "where",
]  # fmt: skip

# ------------------------------------------------------------------------------ matrix products


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (..., M, K) @ b (..., K, N) = (..., M, N); leading axes broadcast."""
    return a @ b


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    for_products: bool = False,
) -> Tensor:
    """x (..., K) @ weight (N, K)^T + bias (N,) + residual (..., N) = (..., N).

    x and weight may be stored in bfloat16.
    `for_products`: nothing but products reads the result, such as attention's, so that with
    bfloat16 activations (`backend.precision`) it is stored in that type.
    """
    a, w = x.array, weight.array
    b, r = (None if tensor is None else tensor.array for tensor in (bias, residual))
    arrays.check_linear(a, w, b, r)
    out = linear_kernel.forward(a, w, b, r)
    if _stored(out, for_products):
        out = to_bfloat16(out)
    with_bias, with_residual = bias is not None, residual is not None
    wanted = x.requires_grad, weight.requires_grad

    def backward(dout: Array) -> list[Array | None]:
        dx, dweight, dbias = linear_kernel.backward(dout, a, w, with_bias, wanted)
        return [dx, dweight, *[dbias] * with_bias, *[dout] * with_residual]

    parents = tuple(tensor for tensor in (x, weight, bias, residual) if tensor is not None)
    return record("linear", out, parents, backward, saves="inputs")


def feed_forward(
    x: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    residual: Tensor | None = None,
    approximate: str = "none",
) -> Tensor:
    """linear(gelu(linear(x, up, up_bias)), down, down_bias, residual), keeping less of it.

    x (..., C), up (F, C), down (C, F), residual and the result (..., C); both biases or neither. x
    may be stored in bfloat16.
    """
    optional = (up_bias, down_bias, residual)
    b1, b2, r = (None if tensor is None else tensor.array for tensor in optional)
    a, w1, w2 = x.array, up.array, down.array
    arrays.check_feed_forward(a, w1, b1, w2, b2, r)
    with_bias, with_residual = b1 is not None, r is not None
    out, u = feed_forward_kernel.forward(a, w1, b1, w2, b2, r, approximate)
    wanted = x.requires_grad, up.requires_grad, down.requires_grad

    def backward(dout: Array) -> list[Array | None]:
        spend = not graph_is_retained()
        dx, dup, dup_bias, ddown, ddown_bias = feed_forward_kernel.backward(
            dout, a, u, w1, w2, with_bias, approximate, wanted, spend
        )
        biases = [dup_bias, ddown_bias] if with_bias else []
        return [dx, dup, ddown, *biases, *[dout] * with_residual]

    parents = (x, up, down, *(tensor for tensor in optional if tensor is not None))
    return record("feed_forward", out, parents, backward, saves="inputs")


def embedding(weight: Tensor, ids: Any) -> Tensor:
    """The rows of `weight` (V, C) that the integers `ids` (...) name: (..., C).

    Raises `InputError` for an id that is not one of 0 ... V - 1.
    """
    rows = arrays.integers(ids)
    if weight.ndim != 2:
        raise InputError(f"embedding takes a weight (V, C), but it is {weight.shape}")
    arrays.check_numbers("embedding", weight.array)
    arrays.check_range(rows, weight.shape[0], "token")

    def backward(dout: Array) -> tuple[Callable[[Array], None]]:
        return (partial(embedding_kernel.backward, dout, rows),)  # most of it is 0: not an array

    out = embedding_kernel.forward(weight.array, rows)
    return record("embedding", out, (weight,), backward, saves="nothing")


# ------------------------------------------------------------------------------------ attention


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) over `axis`."""
    arrays.check_numbers("softmax", x.array, along_axis=True)
    if axis not in (-1, x.ndim - 1):
        return softmax(x.swapaxes(axis, -1)).swapaxes(axis, -1)
    y = softmax_kernel.forward(x.array)

    def backward(dout: Array) -> tuple[Array]:
        return (softmax_kernel.backward(dout, y),)

    return record("softmax", y, (x,), backward, saves="output")


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """x - log(sum(exp(x))) over `axis`."""
    arrays.check_numbers("log_softmax", x.array, along_axis=True)
    if axis not in (-1, x.ndim - 1):
        return log_softmax(x.swapaxes(axis, -1)).swapaxes(axis, -1)
    y = log_softmax_kernel.forward(x.array)

    def backward(dout: Array) -> tuple[Array]:
        return (log_softmax_kernel.backward(dout, y),)

    return record("log_softmax", y, (x,), backward, saves="output")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    padding_mask: Array | None = None,
    documents: Array | None = None,
    visible: tuple[Array, Array] | None = None,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention: q (B, H, T, D) over k, v (B, G, S, D), result (B, H, T, D).

    The T queries are the last T of the S positions; all three may be stored in bfloat16. `causal`,
    `window`, `padding_mask` (B, S) and `documents` (B, S) say which keys each query sees; see
    `kernels.attention.visible_keys`.
    Who has called that already, for many layers at once, gives its result as `visible` instead.
    `scale` multiplies the scores; D ** -0.5 where it is not given.
    """
    queries, keys, values = q.array, k.array, v.array
    _check_heads(queries, keys, values)
    T, S, D = queries.shape[-2], keys.shape[-2], queries.shape[-1]
    factor = D**-0.5 if scale is None else scale
    if visible is None:
        visible = attention_kernel.visible_keys(T, S, causal, window, padding_mask, documents)
    first, last = visible
    _check_visible(first, last, len(queries), T)
    out, lse = attention_kernel.forward(queries, keys, values, first, last, factor)

    def backward(dout: Array) -> tuple[Array, Array, Array]:
        return attention_kernel.backward(dout, queries, keys, values, out, lse, first, last, factor)

    return record("attention", out, (q, k, v), backward)


def _check_heads(q: Array, k: Array, v: Array) -> None:
    """Raise `InputError` for shapes that are no queries, keys and values of one attention."""
    arrays.check_numbers("attention", q, k, v, stored=True)
    fits = q.ndim == k.ndim == 4 and k.shape == v.shape
    fits = fits and q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3]
    fits = fits and q.dtype == k.dtype == v.dtype and k.shape[1] > 0 and q.shape[3] > 0
    if not fits or q.shape[1] % k.shape[1]:
        kinds = ", ".join(f"{x.dtype} {x.shape}" for x in (q, k, v))
        raise InputError(
            "attention takes q (B, H, T, D) and k, v (B, G, S, D) of one dtype, H a multiple of G,"
            f" G and D above 0; these are {kinds}"
        )


def _check_visible(first: Array, last: Array, B: int, T: int) -> None:
    """Raise `InputError` unless the bounds are those of T queries of each of B texts, or of all."""
    if first.shape != last.shape or first.shape not in ((1, T), (B, T)):
        raise InputError(
            f"attention of {B} texts of {T} queries takes the first and last visible keys as"
            f" {(B, T)} or {(1, T)}, but they are {first.shape} and {last.shape}"
        )


def self_attention(qkv: Tensor, n_head: int, visible: tuple[Array, Array]) -> Tensor:
    """Attention of a text over itself: queries, keys and values side by side in qkv (B, T, 3C).

    The result is (B, T, C), head beside head. The kernel reads and the gradient fills the one array
    where it lies, without the copies that slicing and joining would make. `visible` is made by
    `kernels.attention.visible_keys`.
    """
    xp = backend.array_module(qkv.array)
    arrays.check_numbers("self_attention", qkv.array, stored=True)
    if n_head < 1 or qkv.ndim != 3 or qkv.shape[2] % (3 * n_head) or not qkv.shape[2]:
        raise InputError(
            f"self_attention of {n_head} heads takes qkv (B, T, 3C), C a multiple of {n_head},"
            f" but it is {qkv.shape}"
        )
    B, T, width = qkv.shape
    D, (first, last) = width // (3 * n_head), visible
    _check_visible(first, last, B, T)
    q, k, v = qkv.array.reshape(B, T, 3, n_head, D).transpose(2, 0, 3, 1, 4)  # (B, H, T, D) each
    by_head, lse = attention_kernel.forward(q, k, v, first, last, D**-0.5)  # (B, H, T, D)
    out = by_head.swapaxes(1, 2).reshape(B, T, n_head * D)

    def backward(dout: Array) -> tuple[Array]:
        heads = [x.reshape(B, T, n_head, D).swapaxes(1, 2) for x in (dout, out)]  # (B, H, T, D)
        dqkv = xp.empty((B, T, width), out.dtype)
        parts = dqkv.reshape(B, T, 3, n_head, D).transpose(2, 0, 3, 1, 4)  # views: dq, dk, dv
        attention_kernel.backward(
            heads[0], q, k, v, heads[1], lse, first, last, D**-0.5, tuple(parts)
        )
        return (dqkv,)

    return record("self_attention", out, (qkv,), backward)


def rotary(x: Tensor, cos: Array, sin: Array) -> Tensor:
    """Turn each pair of channels of x (B, H, T, D) by its position's angle.

    `cos`, `sin` (B or 1, T, D / 2) are `kernels.rotary.tables(positions, D, theta)`.
    """
    arrays.check_numbers("rotary", x.array)
    fitting = []
    if x.ndim == 4 and x.shape[3] % 2 == 0:
        fitting = [(rows, x.shape[2], x.shape[3] // 2) for rows in (1, x.shape[0])]
    for table in (cos, sin):
        if table.shape not in fitting:
            raise InputError(
                "rotary of x (B, H, T, D), D even, takes tables (B or 1, T, D / 2),"
                f" but x is {x.shape} and a table {table.shape}"
            )

    def backward(dout: Array) -> tuple[Array]:
        return (rotary_kernel.backward(dout, cos, sin),)

    out = rotary_kernel.forward(x.array, cos, sin)
    return record("rotary", out, (x,), backward, saves="nothing")


# ---------------------------------------------------------------------------------------- norms


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    for_products: bool = False,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis of x (..., C).

    `for_products`: nothing but linear layers reads the result, so that with bfloat16 activations
    (`backend.precision`) it is stored as their products round it.
    """
    a, w, b = x.array, *(None if tensor is None else tensor.array for tensor in (weight, bias))
    arrays.check_norm("layer_norm", a, weight=w, bias=b)
    out, mean, rstd = layer_norm_kernel.forward(a, w, b, eps, _stored(a, for_products))
    given = (True, weight is not None, bias is not None)

    def backward(dout: Array) -> list[Array]:
        gradients = layer_norm_kernel.backward(dout, a, w, mean, rstd)
        return [gradient for gradient, wanted in zip(gradients, given, strict=True) if wanted]

    parents = tuple(tensor for tensor in (x, weight, bias) if tensor is not None)
    return record("layer_norm", out, parents, backward, saves="inputs")


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6, for_products: bool = False) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis of x (..., C).

    `for_products` as for `layer_norm`.
    """
    a, w = x.array, weight.array
    arrays.check_norm("rms_norm", a, weight=w)
    out, rstd = rms_norm_kernel.forward(a, w, eps, _stored(a, for_products))

    def backward(dout: Array) -> tuple[Array, Array]:
        return rms_norm_kernel.backward(dout, a, w, rstd)

    return record("rms_norm", out, (x, weight), backward, saves="inputs")


def _stored(x: Array, for_products: bool) -> np.dtype | None:
    """The dtype to store a result in, where that is not the dtype of x."""
    return BFLOAT16 if for_products and backend.bfloat16_activations(x) else None


# ---------------------------------------------------------------------------------- activations


def relu(x: Tensor) -> Tensor:
    """max(x, 0) of each element."""
    a = x.array
    arrays.check_numbers("relu", a)

    def backward(dout: Array) -> tuple[Array]:
        return (relu_kernel.backward(dout, a),)

    return record("relu", relu_kernel.forward(a), (x,), backward, saves="inputs")


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x; `approximate` "none" (erf) or "tanh"."""
    a = x.array
    arrays.check_numbers("gelu", a)

    def backward(dout: Array) -> tuple[Array]:
        return (gelu_kernel.backward(dout, a, approximate),)

    return record("gelu", gelu_kernel.forward(a, approximate), (x,), backward, saves="inputs")


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) of each element."""
    a = x.array
    arrays.check_numbers("silu", a)

    def backward(dout: Array) -> tuple[Array]:
        return (silu_kernel.backward(dout, a),)

    return record("silu", silu_kernel.forward(a), (x,), backward, saves="inputs")


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up of each element, both of one shape."""
    a, b = gate.array, up.array
    arrays.check_same("swiglu", gate=a, up=b)

    def backward(dout: Array) -> tuple[Array, Array]:
        return swiglu_kernel.backward(dout, a, b)

    return record("swiglu", swiglu_kernel.forward(a, b), (gate, up), backward, saves="inputs")


def dropout(x: Tensor, p: float, rng: np.random.Generator) -> Tensor:
    """Each element is 0 with probability `p`, else x / (1 - p), so that the mean stays the same.

    One seed is drawn from `rng`; the mask is a pure function of it and of the element's position.
    """
    if not 0 <= p < 1:
        raise InputError(f"dropout with p = {p}; it takes a number from 0 up to, but not, 1")
    arrays.check_numbers("dropout", x.array)
    if p == 0:
        return x
    seed = seeds.draw(rng)

    def backward(dout: Array) -> tuple[Array]:
        return (dropout_kernel.backward(dout, p, seed),)

    out = dropout_kernel.forward(x.array, p, seed)
    return record("dropout", out, (x,), backward, saves="nothing")
