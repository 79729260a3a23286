"""Cross-entropy: how surprised a row of scores is by the class that came.

    loss_n = -log softmax(logits_n)[t_n] = lse_n - logits[n, t_n]
    lse_n  = log sum_v exp logits[n, v]

The log of the sum is computed as m + log sum_v exp(logits[n, v] - m) with m the row's largest
score, so that no exponential overflows. A target of -100 is not counted: loss 0, gradient 0.

Derivative. d lse_n / d logits[n, v] = exp(logits[n, v] - lse_n), the softmax, and so

    dlogits[n, v] = dloss_n (softmax(logits_n)[v] - 1[v = t_n])

The probabilities are never kept: backward makes them again from the logits and one number a row.
It may write over the logits (`out=logits`), the largest array of a language model, so that there is
no second one of that size.

Shapes: logits (N, V), targets (N,), losses and lse (N,). Source: Goodfellow, Bengio and Courville
2016, "Deep Learning", section 6.2.2.3.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.bfloat16 import BFLOAT16, put, raw
from minillm.kernels.layout import PART, flat, rows
from minillm.kernels.softmax import LANES, largest
from minillm.kernels.vector_math import exp

IGNORED = -100  # a target that is not counted, as in PyTorch
BLOCK = 2048  # numbers; a small part of the first-level cache

# ------------------------------------------------------------------------------- reference


def forward_reference(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Losses and lse, both (N,)."""
    xp = backend.array_module(logits)
    if logits.size == 0:
        return xp.zeros(len(targets), logits.dtype), xp.zeros(len(targets), logits.dtype)
    top = logits.max(axis=-1)
    lse = top + xp.log(xp.exp(logits - top[:, None]).sum(axis=-1))  # (N,)
    counted = targets != IGNORED
    picked = logits[xp.arange(len(targets)), xp.where(counted, targets, 0)]
    return xp.where(counted, lse - picked, xp.zeros_like(lse)), lse


def backward_reference(
    dlosses: Array, logits: Array, targets: Array, lse: Array, out: Array | None = None
) -> Array:
    """Gradient of the logits, (N, V), written to `out` where it is given."""
    xp = backend.array_module(logits)
    if out is not None and out.dtype == BFLOAT16:
        out[:, : logits.shape[1]] = backward_reference(dlosses, logits, targets, lse)
        return out
    counted = targets != IGNORED
    dlosses = xp.where(counted, dlosses, xp.zeros_like(dlosses))
    dlogits = xp.subtract(logits, lse[:, None], out=out)
    xp.exp(dlogits, out=dlogits)
    dlogits *= dlosses[:, None]
    if logits.size:
        dlogits[xp.arange(len(targets)), xp.where(counted, targets, 0)] -= dlosses
    dlogits[~counted] = 0  # also where a score of an ignored row is not finite
    return dlogits


# ------------------------------------------------------------------------------- fast twin
#
# Rows run in parallel. A row of 50,000 scores stays in the second-level cache, so the forward pass
# reads memory once (largest score, then sum of exponentials) and the backward pass reads and writes
# it once. Each row is summed by one thread, in one order.


def forward_fast(logits: Array, targets: Array) -> tuple[Array, Array]:
    losses, lse = (np.zeros(len(targets), logits.dtype) for _ in range(2))
    if logits.size:
        _forward(rows(logits), flat(targets), losses, lse)
    return losses, lse


def backward_fast(
    dlosses: Array, logits: Array, targets: Array, lse: Array, out: Array | None = None
) -> Array:
    dlogits = np.empty(logits.shape, logits.dtype) if out is None else out
    if logits.size:
        _backward(flat(dlosses), rows(logits), flat(targets), flat(lse), raw(dlogits))
    return dlogits


@jit(parallel=True)
def _forward(logits, targets, losses, lse):
    count = logits.shape[0]
    parts = max(1, min(count, logits.size // PART))
    for part in prange(parts):
        lanes = np.empty(LANES, logits.dtype)
        for n in range(part * count // parts, (part + 1) * count // parts):
            top = largest(logits[n], lanes)
            lse[n] = top + np.log(_sum_of_exp(logits[n], top))
            if targets[n] != IGNORED:
                losses[n] = lse[n] - logits[n, targets[n]]


@jit(forceinline=True)
def _sum_of_exp(x, top):
    total = x.dtype.type(0)
    for j in range(x.shape[0]):
        total += exp(x[j] - top)
    return total


@jit(parallel=True)
def _backward(dlosses, logits, targets, lse, dlogits):
    count = logits.shape[0]
    parts = max(1, min(count, logits.size // PART))
    for part in prange(parts):
        block = np.empty(BLOCK, logits.dtype)
        for n in range(part * count // parts, (part + 1) * count // parts):
            if targets[n] == IGNORED:
                dlogits[n, : logits.shape[1]] = 0
            else:
                row = dlogits[n, : logits.shape[1]]
                _gradient(logits[n], targets[n], lse[n], dlosses[n], row, block)


@jit(forceinline=True)
def _gradient(x, target, lse, scale, y, block):
    """A row's gradient into `y`, which may be `x`: that is why it goes through `block`.

    A loop that reads and writes one array is not vectorised for the case that it is the same.
    """
    for start in range(0, x.size, BLOCK):
        scores, result = x[start : start + BLOCK], y[start : start + BLOCK]
        for j in range(scores.size):
            block[j] = scale * exp(scores[j] - lse)
        if start <= target < start + scores.size:
            block[target - start] -= scale
        for j in range(scores.size):
            put(result, j, block[j])


# ---------------------------------------------------------------------------------- public


def forward(logits: Array, targets: Array) -> tuple[Array, Array]:
    """The loss of each row and the log of its sum of exponentials, which backward needs.

    `logits` (N, V) float32 or float64, `targets` (N,) whole numbers below V, or -100. Returns
    `losses`, `lse`, both (N,) in the dtype of the logits.
    """
    if backend.fast(logits, targets):
        return forward_fast(logits, targets)
    return forward_reference(logits, targets)


def backward(
    dlosses: Array, logits: Array, targets: Array, lse: Array, out: Array | None = None
) -> Array:
    """Gradient (N, V) of the logits from `dlosses` (N,).

    `out` may be `logits` itself. It may also be `logits.view(BFLOAT16)`, where V numbers take the
    first half of each row: number j lies where number j // 2 was, which has been read by then. What
    is returned is `out`.
    """
    if backend.fast(dlosses, logits, targets, lse):
        return backward_fast(dlosses, logits, targets, lse, out)
    return backward_reference(dlosses, logits, targets, lse, out)
