"""The table of fast kernels, second part: what works row by row or number by number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from fuzz_draw import Draw, entry
from fuzz_products import gelu_both
from hypothesis import strategies as st
from running_error import Real

from minillm.jit import jit
from minillm.kernels import (
    adamw,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    layer_norm,
    linear_cross_entropy,
    log_softmax,
    relu,
    rms_norm,
    rotary,
    silu,
    softmax,
    sum_squares,
    swiglu,
)
from minillm.kernels.vector_math import exp, sigmoid

# -------------------------------------------------------------------------- softmax and losses


@entry
def softmax_both(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan -inf")
    y, dout = draw.given(softmax.forward_reference(x.astype(np.float64))), draw.floats(*x.shape)

    def exact() -> Any:
        X, Y, D = draw.real(x, y, dout)
        weights = (X - X.max()).exp() if x.size else X
        return [weights / weights.sum(keepdims=True), Y * (D - (D * Y).sum(keepdims=True))]

    return lambda: [softmax.forward_fast(x), softmax.backward_fast(dout, y)], exact


@entry
def log_softmax_both(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan -inf")
    y, dout = draw.given(log_softmax.forward_reference(x.astype(np.float64))), draw.floats(*x.shape)

    def exact() -> Any:
        X, Y, D = draw.real(x, y, dout)
        moved = X - X.max() if x.size else X
        return [moved - moved.exp().sum(keepdims=True).log(), D - Y.exp() * D.sum(keepdims=True)]

    return lambda: [log_softmax.forward_fast(x), log_softmax.backward_fast(dout, y)], exact


def targets_of(draw: Draw, count: int, vocab_size: int) -> np.ndarray:
    targets = draw.rng().integers(0, vocab_size, count)
    return np.where(draw.rng().random(count) < 0.2, cross_entropy.IGNORED, targets)


def surprise(logits: Real, targets: np.ndarray) -> tuple[Real, Real]:
    """The losses and lse of rows of logits (N, V)."""
    top, counted = logits.max(), targets != cross_entropy.IGNORED
    lse = (top + (logits - top).exp().sum(keepdims=True).log()).map(lambda x: x[:, 0])
    at = np.arange(len(targets)), np.where(counted, targets, 0)
    return (lse - logits.map(lambda x: x[at])).where(counted), lse


def dsurprise(logits: Real, targets: np.ndarray, lse: Real, dlosses: Real) -> Real:
    """The gradient of the logits."""
    counted, column = (targets != cross_entropy.IGNORED)[:, None], np.arange(logits.value.shape[1])
    one = (targets[:, None] == column).astype(float)
    p = (logits - lse.map(lambda x: x[:, None])).exp()
    dlosses = dlosses.map(lambda x: x[:, None])
    return (dlosses * p - dlosses * one).where(counted)


@entry
def cross_entropy_both(draw: Draw) -> Any:
    small = [(draw.size(), draw.size(least=1)) for _ in range(5)]
    n, V = draw.choice([(1, 20_011), (0, 3), *small])
    x, targets = draw.floats(n, V, takes="nan -inf"), targets_of(draw, n, V)
    lse = draw.given(surprise(Real(x, draw.dtype), targets)[1])
    dlosses, over = draw.floats(n, takes="nan"), draw.choice([False, True])

    def fast() -> Any:
        logits = x.copy()
        out = logits if over else None
        return [*cross_entropy.forward_fast(x, targets),
                cross_entropy.backward_fast(dlosses, logits, targets, lse, out)]  # fmt: skip

    def exact() -> Any:
        X, L, D = draw.real(x, lse, dlosses)
        return [*surprise(X, targets), dsurprise(X, targets, L, D)]

    return fast, exact


@entry
def linear_cross_entropy_both(draw: Draw) -> Any:
    n, C, V = draw.size(), draw.size(65), draw.size(least=1)
    x, weight = draw.floats(n, C, takes="nan"), draw.floats(V, C, takes="nan")
    targets, scale = targets_of(draw, n, V), draw.floats(n, low=0)

    def exact() -> Any:
        X, W, D = draw.real(x, weight, scale)
        logits = X @ W.map(np.transpose)
        losses, lse = surprise(logits, targets)
        d = dsurprise(logits, targets, lse, D)
        return [losses, d @ W, d.map(np.transpose) @ X]

    return lambda: linear_cross_entropy.forward(x, weight, targets, scale), exact


# ------------------------------------------------------------------------------------- norms


def normed(x: Real, eps: float, centred: bool) -> tuple[Real, Real, Real]:
    """(x - mean) rstd, mean and rstd; without the mean where not `centred`."""
    C = max(1, x.value.shape[-1])
    mean = x.sum(keepdims=True) / C if centred else x.sum(keepdims=True) * 0.0
    moved = x - mean if centred else x
    rstd = (((moved * moved).sum(keepdims=True) / C + eps).sqrt().map(lambda v: v))
    one = Real(np.ones_like(rstd.value), np.float64)
    rstd = rstd.__class__.__truediv__(rstd._other(one), rstd)
    return moved * rstd, mean, rstd


def dnormed(n: Real, rstd: Real, d: Real, centred: bool) -> Real:
    """The gradient of a norm's input from d, that of the normalized numbers n."""
    C = max(1, n.value.shape[-1])
    rest = d - n * ((d * n).sum(keepdims=True) / C)
    return rstd * (rest - d.sum(keepdims=True) / C if centred else rest)


@entry
def layer_norm_both(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan inf")
    w, b = (draw.floats(x.shape[-1], takes="nan") for _ in range(2))
    dout, eps = draw.floats(*x.shape, takes="nan"), draw.choice([1e-5, 1e-3])
    _, mean, rstd = normed(Real(x, draw.dtype), eps, True)
    mean, rstd = (draw.given(v.map(lambda a: a[..., 0])) for v in (mean, rstd))

    def fast() -> Any:
        out = layer_norm.forward_fast(x, w, b, eps)
        return [*out, *layer_norm.backward_fast(dout, x, w, mean, rstd)]

    def exact() -> Any:
        X, W, B, D, M, F = draw.real(x, w, b, dout, mean[..., None], rstd[..., None])
        n, *kept = normed(X, eps, True)
        lead = tuple(range(x.ndim - 1))
        seen = (X - M) * F
        dx = dnormed(seen, F, D * W, True)
        kept = [v.map(lambda a: a[..., 0]) for v in kept]
        return [n * W + B, *kept, dx, (D * seen).sum(axis=lead), D.sum(axis=lead)]

    return fast, exact


@entry
def rms_norm_both(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan inf")
    w, dout = draw.floats(x.shape[-1], takes="nan"), draw.floats(*x.shape, takes="nan")
    rstd = draw.given(normed(Real(x, draw.dtype), 1e-6, False)[2].map(lambda a: a[..., 0]))

    def fast() -> Any:
        return [*rms_norm.forward_fast(x, w, 1e-6), *rms_norm.backward_fast(dout, x, w, rstd)]

    def exact() -> Any:
        X, W, D, F = draw.real(x, w, dout, rstd[..., None])
        n, _, factor = normed(X, 1e-6, False)
        seen = X * F
        dweight = (D * seen).sum(axis=tuple(range(x.ndim - 1)))
        return [n * W, factor.map(lambda a: a[..., 0]), dnormed(seen, F, D * W, False), dweight]

    return fast, exact


# ------------------------------------------------------------------------- element by element


@entry
def gelu_both_directions(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan inf -inf")
    dout, how = draw.floats(*x.shape, takes="nan"), draw.choice(["none", "tanh"])

    def exact() -> Any:
        value, slope = gelu_both(Real(x, draw.dtype), how)
        return [value, Real(dout, draw.dtype) * slope]

    return lambda: [gelu.forward_fast(x, how), gelu.backward_fast(dout, x, how)], exact


@entry
def relu_both(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan inf -inf")
    dout = draw.floats(*x.shape, takes="nan")

    def exact() -> Any:  # no rounding at all; the slope of NaN is NaN
        X, D = draw.real(x, dout)
        return [X.where(~(x <= 0)), D.where(x > 0).where(~np.isnan(x), np.nan)]

    return lambda: [relu.forward_fast(x), relu.backward_fast(dout, x)], exact


def silu_slope(x: Real) -> Real:
    s = x.sigmoid()
    return s * (x.clip(silu.CLIP) * (-s + 1) + 1)


@entry
def silu_both(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan inf -inf")
    dout = draw.floats(*x.shape, takes="nan")

    def exact() -> Any:
        X, D = draw.real(x, dout)
        return [X * X.sigmoid(), D * silu_slope(X)]

    return lambda: [silu.forward_fast(x), silu.backward_fast(dout, x)], exact


@entry
def swiglu_both(draw: Draw) -> Any:
    gate = draw.floats(*draw.shape(), takes="nan inf")
    up, dout = draw.floats(*gate.shape, takes="nan"), draw.floats(*gate.shape, takes="nan")

    def exact() -> Any:
        G, U, D = draw.real(gate, up, dout)
        value = G * G.sigmoid()
        return [value * U, D * U * silu_slope(G), D * value]

    return lambda: [swiglu.forward_fast(gate, up), *swiglu.backward_fast(dout, gate, up)], exact


@entry
def dropout_forward(draw: Draw) -> Any:
    x, p = draw.floats(*draw.shape(), takes="nan inf"), draw.choice([0.0, 0.1, 0.5, 0.999])
    seed = np.uint64(draw.one(st.integers(0, 2**64 - 1)))

    def exact() -> Any:
        kept = dropout.keep_mask(x, p, seed)
        return [(Real(x, draw.dtype) * (1 / (1 - p))).where(kept)]

    return lambda: [dropout.forward_fast(x, p, seed)], exact


@jit
def _exp_and_sigmoid(x, exps, sigmoids):
    for i in range(x.size):
        exps[i] = exp(x[i])
        sigmoids[i] = sigmoid(x[i])


# -------------------------------------------------------------------------- places and updates


@entry
def embedding_both(draw: Draw) -> Any:
    V, C, ids_shape = draw.size(least=1), draw.size(), draw.shape(draw.size())
    ids = draw.rng().integers(0, V, ids_shape)
    weight, dout = draw.floats(V, C, takes="nan inf"), draw.floats(*ids_shape, C, takes="nan")

    def exact() -> Any:
        one_hot = (ids.reshape(-1)[:, None] == np.arange(V)).astype(float).T
        flat = Real(dout, draw.dtype).map(lambda x: x.reshape(ids.size, C))
        rows = [flat.map(lambda x, hot=hot: x[hot > 0]).sum(axis=0) for hot in one_hot]
        dweight = Real(np.stack([row.value for row in rows]), draw.dtype)
        dweight.error = np.stack([row.error for row in rows])
        return [Real(weight, draw.dtype).map(lambda x: x[ids]), dweight]

    def fast() -> Any:
        dweight = np.zeros((V, C), draw.dtype)
        embedding.backward_fast(dout, ids, dweight)
        return [embedding.forward_fast(weight, ids), dweight]

    return fast, exact


@entry
def rotary_both(draw: Draw) -> Any:
    B, H, T, half = (draw.choice([0, 1, 2, 3, 17]) for _ in range(4))
    x = draw.floats(B, H, T, 2 * half, takes="nan inf")
    cos, sin = (draw.floats(draw.choice([1, max(1, B)]), T, half) for _ in range(2))
    sin = sin[:1] if len(cos) == 1 else np.broadcast_to(sin[:1], cos.shape)

    def turned(direction: int) -> Real:
        X, c, s = draw.real(x, cos[:, None], direction * sin[:, None])
        one, other = (X.map(lambda v, at=at: v[..., at : at + half]) for at in (0, half))
        low, high = one * c - other * s, other * c + one * s
        both = low.map(lambda v: np.concatenate([v, v], axis=-1))
        both.value = np.concatenate([low.value, high.value], axis=-1)
        both.error = np.concatenate([low.error, high.error], axis=-1)
        return both

    return (
        lambda: [rotary.forward_fast(x, cos, sin), rotary.backward_fast(x, cos, sin)],
        lambda: [turned(1), turned(-1)],
    )


@entry
def adamw_update(draw: Draw) -> Any:
    shape = draw.shape()
    w, g, m = (draw.floats(*shape, takes="nan") for _ in range(3))
    v, scale = draw.floats(*shape, low=0, takes="nan"), draw.choice([1.0, 0.1])
    lr, decay, step = draw.choice([0.0, 1e-3]), draw.choice([0.0, 0.1]), draw.choice([1, 7, 1000])

    def fast() -> Any:
        new = [np.array(x, order="C") for x in (w, m, v)]
        adamw.update_fast(new[0], g, new[1], new[2], lr, 0.9, 0.95, 1e-8, decay, step, scale)
        return new

    def exact() -> Any:
        W, G, M, V = draw.real(w, g, m, v)
        G = G * scale
        M, V = M * 0.9 + G * (1 - 0.9), V * 0.95 + G * G * (1 - 0.95)
        root = V.sqrt() * (1 / math.sqrt(1 - 0.95**step)) + 1e-8
        return [W * (1 - lr * decay) - M * (lr / (1 - 0.9**step)) / root, M, V]

    return fast, exact


@entry
def sum_of_squares(draw: Draw) -> Any:
    x = draw.floats(*draw.shape(), takes="nan inf")

    def exact() -> Any:  # added in float64 whatever the dtype
        X = Real(x.reshape(-1), np.float64)
        return [(X * X).sum()]

    return lambda: [np.float64(sum_squares.forward_fast(x))], exact


@entry
def exp_and_sigmoid(draw: Draw) -> Any:
    x = draw.floats(draw.size(), takes="nan inf -inf")

    def fast() -> Any:
        results = [np.empty(x.shape, x.dtype) for _ in range(2)]
        _exp_and_sigmoid(np.ascontiguousarray(x), *results)
        return results

    def exact() -> Any:
        X = Real(x, draw.dtype)
        return [X.exp(), X.sigmoid()]

    return fast, exact
