"""Attention: each query takes a mean of the values, weighted by how well it fits their keys.

    s_ij = scale * q_i . k_j          how well query i fits key j; scale is usually 1 / sqrt(D)
    p_ij = exp(s_ij - lse_i)          the softmax over the keys that i may see, and 0 elsewhere
    o_i  = sum_j p_ij v_j             lse_i = log sum_j exp(s_ij), kept for the backward pass

Why the causal mask. A language model learns to say token t+1 from tokens 0..t, at all positions of
a text at once. In training the answer to position t stands in the input, at t+1. A query that could
look there would copy the answer instead of predicting it: the loss would go to zero, and the model
would be useless when it writes, for then the next token does not exist yet. So query i sees keys
j <= i only. That makes one forward pass over T tokens equal to T separate predictions from T
prefixes; and since no later token changes an earlier row, keys and values of past tokens can be
cached while writing. Attention in both directions (BERT, an encoder) simply has no such bound.

Which keys. Every mask needed here is one interval of keys per query, first_i <= j <= last_i: the
causal bound, a sliding window, padding on either side, and documents packed into one row. Two
integers per query, and a kernel that works in tiles sees at once which tiles hold nothing.

Heads. H query heads share G key/value heads (grouped-query attention, Ainslie et al. 2023): query
head h reads key/value head h // (H / G). G = H is ordinary multi-head attention, G = 1 multi-query.

Derivative, per query head, with do = dout:

    dv_j  = sum_i p_ij do_i
    dp_ij = do_i . v_j
    ds_ij = p_ij (dp_ij - delta_i)    delta_i = sum_j p_ij dp_ij = do_i . o_i   (softmax.py)
    dq_i  = scale * sum_j ds_ij k_j
    dk_j  = scale * sum_i ds_ij q_i

dk and dv of a shared head are sums over the query heads that read it.

The reference below holds all scores, a (T, S) array. The fast twins hold a few thousand at a time:
attention_tiles.py derives the online softmax that makes this possible, and says why its result is
the same; attention_decode.py is for writing token by token.

With `backend.precision("bfloat16")` the operands of the products are rounded to bfloat16: q, scale
times k, v, do, the weights exp(s) and ds. Scores and all sums stay float32 (attention_tiles.py).

Shapes: q, out, dq (B, H, T, D); k, v, dk, dv (B, G, S, D); first, last (B or 1, T); lse (B, H, T).
Source: Vaswani et al. 2017, "Attention is all you need", equation 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.errors import InputError
from minillm.kernels.attention_tiles import Gradients, backward_fast, forward_fast, in_bfloat16
from minillm.kernels.bfloat16 import computed_in
from minillm.kernels.matmul import rounded

# ----------------------------------------------------------------------------------- masks


def visible_keys(
    T: int,
    S: int,
    causal: bool = True,
    window: int | None = None,
    padding_mask: Array | None = None,
    documents: Array | None = None,
) -> tuple[Array, Array]:
    """The interval of keys that each query may see, as `forward` takes it.

    The T queries are the last T of the S positions, so that with a cache query i stands at position
    S - T + i. `causal` hides later positions. `window` hides positions `window` or more away:
    with `causal`, a query sees itself and the `window - 1` positions before it. `padding_mask`
    (B, S) is true at real tokens, which must be neighbours. `documents` (B, S) numbers the packed
    documents; a query sees the unbroken run of its own number.

    Returns `first`, `last`: int32 (B or 1, T), both inclusive. A query that may see nothing has
    first > last. Raises `InputError` for a mask of the wrong shape or with holes, or a window < 1.

    >>> first, last = visible_keys(4, 4, window=2)
    >>> first.tolist(), last.tolist()
    ([[0, 0, 1, 2]], [[0, 1, 2, 3]])
    """
    position = np.arange(S - T, S)[None]  # (1, T)
    first = np.zeros((1, T), dtype=np.int64)
    last = position if causal else np.full((1, T), S - 1)
    if window is not None:
        if window < 1:
            raise InputError(f"an attention window of {window}; it takes at least 1 position")
        first = np.maximum(first, position - (window - 1))
        last = np.minimum(last, position + (window - 1))
    if padding_mask is not None:
        start, stop = _real_tokens(_rows(padding_mask, S, "padding_mask").astype(bool))
        first, last = np.maximum(first, start), np.minimum(last, stop - 1)
    if documents is not None:
        if T > S:
            raise InputError(f"documents with {T} queries and only {S} keys; give at least {T}")
        start, stop = _runs(_rows(documents, S, "documents"))
        first = np.maximum(first, start[:, S - T :])
        last = np.minimum(last, stop[:, S - T :] - 1)
    first, last = np.broadcast_arrays(first, last)
    return backend.asarray(first, dtype=np.int32), backend.asarray(last, dtype=np.int32)


def _rows(mask: Array, S: int, name: str) -> np.ndarray:
    """`mask` in main memory as (B, S), checked."""
    rows = np.atleast_2d(backend.to_numpy(mask))
    if rows.ndim != 2 or rows.shape[1] != S:
        raise InputError(f"{name} has shape {rows.shape}; it takes (batch, {S}), one entry per key")
    return rows


def _real_tokens(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop (B, 1) of the one run of real tokens in each row; 0, 0 where there is none."""
    S, count = real.shape[1], real.sum(axis=1)
    if S == 0:
        return count[:, None], count[:, None]
    start = np.where(count > 0, real.argmax(axis=1), 0)
    stop = np.where(count > 0, S - real[:, ::-1].argmax(axis=1), 0)
    if (holes := stop - start != count).any():
        raise InputError(
            f"padding_mask has padding between real tokens in row {holes.argmax()}; "
            "padding can stand before or after the tokens of a row, not among them"
        )
    return start[:, None], stop[:, None]


def _runs(documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop (B, S) of the run of equal numbers that each position stands in."""
    B, S = documents.shape
    index = np.broadcast_to(np.arange(S), (B, S))
    new = np.ones((B, S + 1), dtype=bool)  # a run starts here; the end of the row starts one too
    new[:, 1:S] = documents[:, 1:] != documents[:, :-1]
    start = np.maximum.accumulate(np.where(new[:, :S], index, 0), axis=1)
    next_start = np.where(new[:, 1:], index + 1, S)
    stop = np.minimum.accumulate(next_start[:, ::-1], axis=1)[:, ::-1]
    return start, stop


# ------------------------------------------------------------------------------- reference


def forward_reference(
    q: Array, k: Array, v: Array, first: Array, last: Array, scale: float
) -> tuple[Array, Array]:
    """Attention with the whole (T, S) score matrix; see `forward` for arguments and results."""
    xp = backend.array_module(q)
    B, H, T, D = q.shape
    if k.shape[2] == 0:  # no keys at all: nothing to see
        dtype = computed_in(q)
        return xp.zeros(q.shape, dtype), xp.full((B, H, T), -xp.inf, dtype)
    q, k, v, (scale, _), operand = _operands(q, k, v, scale)
    scores, _, v, seen = _scores(q, k, v, first, last, scale)  # (B, G, R, T, S)
    largest = xp.where(seen, scores.max(axis=-1, keepdims=True), 0)
    weights = xp.exp(scores - largest)
    total = xp.where(seen, weights.sum(axis=-1, keepdims=True), 1)
    out = ((operand(weights) @ v) / total).reshape(B, H, T, D)
    out = xp.ascontiguousarray(out.swapaxes(1, 2)).swapaxes(1, 2)  # in memory head beside head
    lse = xp.where(seen, largest + xp.log(total), -xp.inf)  # (B, G, R, T, 1)
    return out, lse.reshape(B, H, T)


def backward_reference(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    first: Array,
    last: Array,
    scale: float,
) -> Gradients:
    """Gradients with the whole (T, S) matrix; see `backward` for arguments and results."""
    xp = backend.array_module(q)
    B, H, T, D = q.shape
    G, S = k.shape[1:3]
    if S == 0:
        return tuple(xp.zeros(x.shape, computed_in(x)) for x in (q, k, v))
    q, k, v, (scale, scale_dk), operand = _operands(q, k, v, scale)
    dout, out = operand(dout), out.astype(q.dtype, copy=False)
    scores, k_shared, v_shared, seen = _scores(q, k, v, first, last, scale)
    grouped = (B, G, H // G, T)
    dout_grouped = dout.reshape(*grouped, D)
    p = xp.exp(scores - xp.where(seen, lse.reshape(*grouped, 1), 0))  # (B, G, R, T, S)
    dp = dout_grouped @ v_shared.swapaxes(-1, -2)
    delta = (dout * out).sum(axis=-1).reshape(*grouped, 1)
    ds = operand(p * (dp - delta) * scale)
    dq = ds @ k_shared
    dk = ds.swapaxes(-1, -2) @ q.reshape(*grouped, D) * scale_dk
    dv = operand(p).swapaxes(-1, -2) @ dout_grouped
    return dq.reshape(B, H, T, D), dk.sum(axis=2), dv.sum(axis=2)


def _operands(
    q: Array, k: Array, v: Array, scale: float
) -> tuple[Array, Array, Array, tuple[float, float], Callable[[Array], Array]]:
    """q, k, v for the products, the scales of scores and dk, and what makes operands of others.

    In bfloat16 the scale is in k, as it is in the fast twin, before that is rounded.
    """
    halved, dtype = in_bfloat16(q, k, v), computed_in(q)
    q, k, v = (x.astype(dtype, copy=False) for x in (q, k, v))
    if halved:
        return rounded(q), rounded(k * scale), rounded(v), (1.0, scale), rounded
    return q, k, v, (scale, 1.0), lambda x: x.astype(dtype, copy=False)


def _scores(
    q: Array, k: Array, v: Array, first: Array, last: Array, scale: float
) -> tuple[Array, Array, Array, Array]:
    """Scores (B, G, R, T, S), -inf where not visible; k, v (B, G, 1, S, D); rows that see a key."""
    xp = backend.array_module(q)
    B, H, T, D = q.shape
    G, S = k.shape[1:3]
    keys = xp.arange(S)
    visible = (first[..., None] <= keys) & (keys <= last[..., None])  # (B or 1, T, S)
    visible = visible[:, None, None]  # (B or 1, 1, 1, T, S)
    k, v = k[:, :, None], v[:, :, None]  # (B, G, 1, S, D)
    scores = (q.reshape(B, G, H // G, T, D) @ k.swapaxes(-1, -2)) * scale
    scores = xp.where(visible, scores, -xp.inf)
    return scores, k, v, visible.any(axis=-1, keepdims=True)


# ---------------------------------------------------------------------------------- public


def forward(
    q: Array, k: Array, v: Array, first: Array, last: Array, scale: float
) -> tuple[Array, Array]:
    """Attention of queries over the keys in their intervals.

    `q`: (B, H, T, D); `k`, `v`: (B, G, S, D) with H a multiple of G; all of one dtype, float32,
    float64 or bfloat16, any strides. `first`, `last`: int32 (B or 1, T) from `visible_keys`.
    `scale`: a plain float, usually D ** -0.5. The results have the dtype of q, or are float32
    where that is bfloat16.

    Returns `out` (B, H, T, D), zeros for a query that sees nothing, and `lse` (B, H, T), the
    logarithm of each query's sum of exponentials (-inf for a query that sees nothing), which
    `backward` needs. Keys and values that nobody sees must still be finite numbers.
    """
    run = forward_fast if backend.fast(q, k, v) else forward_reference
    return run(q, k, v, first, last, scale)


def backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    first: Array,
    last: Array,
    scale: float,
    into: Gradients | None = None,
) -> Gradients:
    """Gradients of `forward`: `dq` (B, H, T, D) and `dk`, `dv` (B, G, S, D).

    `dout` (B, H, T, D) is the gradient of `out`; `out` and `lse` are the forward's results and the
    rest its arguments; `dout` and `out` may be bfloat16 beside float32. The gradient of a key that
    no query sees is exactly zero. `into`: arrays to write dq, dk and dv to, of these shapes, any
    strides but numbers of the last axis side by side.
    """
    if backend.fast(dout, q, k, v):
        return backward_fast(dout, q, k, v, out, lse, first, last, scale, into)
    made = backward_reference(dout, q, k, v, out, lse, first, last, scale)
    if into is None:
        return made
    for place, gradient in zip(into, made, strict=True):
        place[...] = gradient
    return into
