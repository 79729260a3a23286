"""The table of fast kernels, first part: products of matrices, and attention."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
from fuzz_draw import Draw, entry, laid_out
from running_error import Real

from minillm import backend
from minillm.kernels import (
    attention,
    attention_tiles,
    epilogue,
    feed_forward,
    gelu,
    linear,
    matmul,
)

# --------------------------------------------------------------------------- matrix products


def product_bits(draw: Draw, *arrays: np.ndarray) -> list[Real]:
    """What a product rounded to bfloat16 is computed from: exactly the rounded numbers."""
    return [Real(matmul.rounded(x).astype(np.float64), np.float32) for x in arrays]


@entry
def product(draw: Draw) -> Any:
    """float32, float64 and bfloat16 operands; `out`, accumulated or not; broadcast batches."""
    lead = draw.choice([(), (), (2,), (3, 1)])
    M, K, N = (draw.size() for _ in range(3))
    kind = draw.choice(["own", "bfloat16", "rounded"]) if draw.dtype == np.float32 else "own"
    stored = ml_dtypes.bfloat16 if kind == "bfloat16" else None
    a = draw.floats(*lead, M, K, takes="nan inf -inf", dtype=stored)
    b = draw.floats(*draw.choice([lead, ()]), K, N, takes="nan", dtype=stored)
    accumulate, start = draw.choice([False, True]), draw.floats(*lead, M, N)
    into = draw.choice([None, "plain", "transposed", "strided"])

    def fast() -> Any:
        out = None if into is None else laid_out(start.copy(), into)
        return [matmul.product(a, b, out, accumulate and into is not None, kind == "rounded")]

    def exact() -> Any:
        x, y = draw.real(a, b) if kind == "own" else product_bits(draw, a, b)
        result = x @ y
        return [result + start.astype(np.float64) if accumulate and into else result]

    return fast, exact


def gelu_both(x: Real, approximate: str) -> tuple[Real, Real]:
    """GELU and its derivative."""
    held = x.clip(gelu.CLIP[approximate])
    if approximate == "none":
        return x * x.normal(), x.normal() + held * (held.bell() * gelu.PEAK)
    s = (x * (x * x * gelu.B + 1) * (2 * gelu.A)).sigmoid()
    density = s * (-s + 1) * ((held * held * (3 * gelu.B) + 1) * (2 * gelu.A))
    return x * s, s + held * density


@entry
def product_with_epilogue(draw: Draw) -> Any:
    M, K, N = (draw.size() for _ in range(3))
    a, b = draw.floats(M, K, takes="nan"), draw.floats(K, N)
    bias, beside = draw.floats(N, takes="nan"), draw.floats(M, N, takes="nan")
    kind = draw.choice([0, epilogue.ADD, epilogue.GELU, epilogue.GELU_BACK])
    tanh = draw.choice([0, 1])
    kind += tanh if kind >= epilogue.GELU else 0

    def fast() -> Any:
        end = epilogue.epilogue(bias, kind, beside.copy() if kind else None)
        out = matmul.product(a, b, end=end)
        return [out, end.beside] if kind >= epilogue.GELU else [out]

    def exact() -> Any:
        x, y, shift, other = draw.real(a, b, bias, beside)
        total, how = x @ y + shift, epilogue.name_of(kind)
        if kind < epilogue.GELU:
            return [total + other if kind else total]
        if kind < epilogue.GELU_BACK:
            return [gelu_both(total, how)[0], total]
        value, slope = gelu_both(other, how)
        return [total * slope, value]

    return fast, exact


@entry
def linear_layer(draw: Draw) -> Any:
    K, N = draw.size(), draw.size()
    lead = draw.shape(1)[:-1]
    x, weight = draw.floats(*lead, K, takes="nan"), draw.floats(N, K, takes="nan")
    bias, residual, dout = draw.floats(N), draw.floats(*lead, N), draw.floats(*lead, N, takes="nan")
    rounded = draw.dtype == np.float32 and draw.choice([False, True])
    rows = math.prod(lead)

    def fast() -> Any:
        with backend.precision("bfloat16" if rounded else "float32"):
            out = linear.forward_fast(x, weight, bias, residual)
            return [out, *linear.backward_fast(dout, x, weight, True)]

    def exact() -> Any:
        a, w, d = product_bits(draw, x, weight, dout) if rounded else draw.real(x, weight, dout)
        b, r, full = draw.real(bias, residual, dout)
        a, d, full = (m.map(lambda v: v.reshape(rows, v.shape[-1])) for m in (a, d, full))
        out = (a @ w.map(np.transpose)).map(lambda v: v.reshape(*lead, N)) + b + r
        dx = (d @ w).map(lambda v: v.reshape(*lead, K))
        return [out, dx, d.map(np.transpose) @ a, full.sum(axis=0)]

    return fast, exact


@entry
def feed_forward_layer(draw: Draw) -> Any:
    n, C, F = draw.size(), draw.size(65), draw.size()
    x, dout, residual = (draw.floats(n, C, takes="nan") for _ in range(3))
    up, down, u = draw.floats(F, C), draw.floats(C, F), draw.floats(n, F)
    up_bias, down_bias = draw.floats(F), draw.floats(C)
    how = draw.choice(["none", "tanh"])

    def fast() -> Any:
        made = feed_forward.forward_fast(x, up, up_bias, down, down_bias, residual, how)
        return [*made, *feed_forward.backward_fast(dout, x, u, up, down, True, how)]

    def exact() -> Any:
        X, W, Wb, V, Vb, R, D, U = draw.real(x, up, up_bias, down, down_bias, residual, dout, u)
        before = X @ W.map(np.transpose) + Wb
        out = gelu_both(before, how)[0] @ V.map(np.transpose) + Vb + R
        value, slope = gelu_both(U, how)
        du = D @ V * slope
        dup, ddown = du.map(np.transpose) @ X, D.map(np.transpose) @ value
        return [out, before, du @ W, dup, du.sum(axis=0), ddown, D.sum(axis=0)]

    return fast, exact


# --------------------------------------------------------------------------------- attention


def visible(draw: Draw, B: int, T: int, S: int) -> tuple[np.ndarray, np.ndarray]:
    """Which keys each query sees: causal or not, windows, padding, packed documents."""
    padding = documents = None
    if draw.choice([False, False, True]):
        start, stop = np.sort(draw.rng().integers(0, S + 1, (2, B)), axis=0)[..., None]
        padding = (start <= np.arange(S)) & (np.arange(S) < stop)
    if T <= S and draw.choice([False, False, True]):
        documents = np.sort(draw.rng().integers(0, 4, (B, S)), axis=1)
    window = draw.choice([None, None, 1, 5, 64])
    causal = draw.choice([True, True, False])
    return attention.visible_keys(T, S, causal, window, padding, documents)


def heads(draw: Draw, queries: list[int]) -> tuple[Any, ...]:
    B, G, R = draw.choice([0, 1, 2]), draw.choice([1, 2, 3]), draw.choice([1, 1, 2, 4])
    T, D = draw.choice(queries), draw.choice([1, 2, 8, 16, 20, 33])
    draw.spreads = True
    S = draw.choice([T, T, T + 1, T + 70, 1, 0])
    q = draw.floats(B, G * R, T, D, takes="nan")
    k, v = draw.floats(B, G, S, D, takes="nan"), draw.floats(B, G, S, D, takes="nan")
    return q, k, v, *visible(draw, B, T, S), D**-0.5


def precision(draw: Draw) -> str:
    """What the products of attention are computed in."""
    return draw.choice(backend.PRECISIONS) if draw.dtype == np.float32 else "float32"


def halved(how: str, q: Any, k: Any, v: Any) -> bool:
    with backend.precision(how):
        return attention_tiles.in_bfloat16(q, k, v)


def attention_weights(
    draw: Draw, how: str, q: Any, k: Any, v: Any, first: Any, last: Any, scale: float
) -> tuple[Real, Real, Real, Real, np.ndarray]:
    """q, scale k, v with a head for every query head; the scores; and which of them are seen."""
    if halved(how, q, k, v):
        Q, K, V = product_bits(draw, q, k * np.float32(scale), v)
    else:
        Q, K, V = draw.real(q, k, v)
        K = K * scale
    share = q.shape[1] // max(1, k.shape[1])
    K, V = (x.map(lambda a: np.repeat(a, share, axis=1)) for x in (K, V))
    keys = np.arange(k.shape[2])
    seen = (first[..., None] <= keys) & (keys <= last[..., None])
    seen = np.broadcast_to(seen[:, None], (*q.shape[:3], k.shape[2]))
    return Q, K, V, Q @ K.map(lambda a: a.swapaxes(-1, -2)), seen


def through(weights: Real, X: Real, seen: np.ndarray) -> Real:
    """weights @ X, to which a NaN in what is not seen adds nothing, as its weight is 0."""
    bad = np.isnan(X.value)
    reached = seen.astype(np.float64) @ bad > 0
    return (weights @ X.where(~bad)).where(~reached, np.nan)


def attended(scores: Real, V: Real, seen: np.ndarray, rounded: bool) -> tuple[Real, Real]:
    """The output and lse."""
    if not seen.shape[-1]:
        none = scores.sum(axis=-1)
        return scores @ V, none.where(np.zeros(none.value.shape, bool), -np.inf)
    some = seen.any(axis=-1, keepdims=True)
    top = scores.where(seen, -np.inf).max().where(some)
    weights = (scores - top).where(seen, -np.inf).exp().where(seen)
    total = weights.sum(keepdims=True).where(some, 1.0)
    lse = (top + total.log()).where(some, -np.inf)
    operand = weights.to_bfloat16() if rounded else weights
    return through(operand, V, seen) / total, lse.map(lambda x: x[..., 0])


@entry
def attention_forward(draw: Draw) -> Any:
    return forward_of(draw, heads(draw, [0, 1, 5, 17, 64, 65, 130]))


@entry
def attention_decode(draw: Draw) -> Any:
    return forward_of(draw, heads(draw, [1, 1, 2]))


def forward_of(draw: Draw, arguments: tuple[Any, ...]) -> Any:
    how = precision(draw)

    def fast() -> Any:
        with backend.precision(how):
            return attention_tiles.forward_fast(*arguments)

    def exact() -> Any:
        _, _, V, scores, seen = attention_weights(draw, how, *arguments)
        return attended(scores, V, seen, halved(how, *arguments[:3]))

    return fast, exact


@entry
def attention_backward(draw: Draw) -> Any:
    q, k, v, first, last, scale = arguments = heads(draw, [0, 1, 5, 17, 64, 65, 130])
    dout, how = draw.floats(*q.shape, takes="nan"), precision(draw)
    rounded = halved(how, q, k, v)
    _, _, V, scores, seen = attention_weights(draw, how, *arguments)
    out, lse = (draw.given(x) for x in attended(scores, V, seen, rounded))

    def fast() -> Any:
        with backend.precision(how):
            return attention_tiles.backward_fast(dout, q, k, v, out, lse, first, last, scale)

    def exact() -> Any:
        Q, K, V, scores, seen = attention_weights(draw, how, *arguments)
        O, L = draw.real(out, lse)
        (D,) = product_bits(draw, dout) if rounded else draw.real(dout)
        L = L.map(lambda x: x[..., None]).where(seen.any(axis=-1, keepdims=True))
        p = (scores - L).where(seen, -np.inf).exp().where(seen)
        delta = (D * O).sum(keepdims=True)
        ds = (p * (D @ V.map(lambda a: a.swapaxes(-1, -2)) - delta)).where(seen)
        p, ds = (p.to_bfloat16(), ds.to_bfloat16()) if rounded else (p, ds)
        turned, weights = (x.map(lambda a: a.swapaxes(-1, -2)) for x in (ds, p))
        by = seen.swapaxes(-1, -2)
        (B, _, _, d), G = q.shape, k.shape[1]
        shared = (B, G, q.shape[1] // G, k.shape[2], d)
        parts = through(turned, Q, by), through(weights, D, by)
        dk, dv = (x.map(lambda a: a.reshape(shared)).sum(axis=2) for x in parts)
        return [through(ds, K, seen), dk * scale, dv]

    return fast, exact
