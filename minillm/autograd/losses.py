"""Losses of a language model: how surprised it is by the next token, and who counts.

The loss of one token is minus the log of the probability that the model gave it. The mean over a
batch is weighted: sum(weights * losses) / sum(weights), with weight 0 for an ignored target (-100).
A batch cut into pieces has the same mean only if every piece is divided by the weights of the whole
batch; that is what `normalizer` is for.
"""

from __future__ import annotations

from typing import Any

from minillm import backend
from minillm.autograd.arrays import (
    are_below,
    check_linear,
    check_numbers,
    check_range,
    integers,
)
from minillm.autograd.engine import graph_is_retained
from minillm.autograd.tensor import Tensor, is_recording, record
from minillm.backend import Array
from minillm.errors import GraphError, InputError
from minillm.kernels import cross_entropy as cross_entropy_kernel
from minillm.kernels import linear_cross_entropy as linear_cross_entropy_kernel
from minillm.kernels.cross_entropy import IGNORED


def cross_entropy(
    logits: Tensor,
    targets: Any,
    weights: Array | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-log of the probability that `logits` (..., V) give to the integers `targets` (...).

    A target of -100 is ignored. `weights` (...) are constants that multiply the losses.
    `reduction`: "mean" is sum(weights * losses) / sum(weights) over targets not ignored, and 0
    where there is none; "sum" leaves the division out; "none" gives each loss, shaped as targets.

    Raises `InputError` for targets of another shape or out of range.
    """
    check_numbers("cross_entropy", logits.array, along_axis=True)
    V, shape = logits.shape[-1], logits.shape[:-1]
    labels = _labels(targets, shape, V)
    rows = logits.array.reshape(labels.size, V)
    losses, lse = cross_entropy_kernel.forward(rows, labels)  # (N,), (N,)
    scale = _loss_scale(losses, labels, shape, weights, None if reduction == "mean" else 1.0)
    if reduction == "none":
        out = (losses * scale).reshape(shape)
    elif reduction in ("mean", "sum"):
        out = (losses * scale).sum()
    else:
        raise InputError(f'reduction is {reduction!r}; it takes "mean", "sum" or "none"')

    def backward(dout: Array) -> tuple[Array]:
        dlosses = dout.reshape(-1) * scale
        dlogits = backend.array_module(rows).empty((*shape, V), rows.dtype)
        cross_entropy_kernel.backward(dlosses, rows, labels, lse, dlogits.reshape(rows.shape))
        return (dlogits,)  # an array of its own, no view

    return record("cross_entropy", out, (logits,), backward, saves="inputs")


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Any,
    weights: Array | None = None,
    normalizer: float | None = None,
) -> Tensor:
    """`cross_entropy(linear(x, weight), targets)` without ever holding all of the logits.

    x (..., C), weight (V, C), targets and weights (...); the result is a scalar, the sum of
    weights * losses divided by `normalizer`, or by the sum of the weights where it is not given.
    Both gradients are made slice by slice in the forward pass, while a slice's logits are there;
    under `no_grad` they are not made. Raises `InputError` as `cross_entropy` does.
    """
    check_numbers("linear_cross_entropy", x.array, weight.array)
    check_linear(x.array, weight.array, op="linear_cross_entropy")
    V, C = weight.shape
    xp, shape = backend.array_module(x.array), x.shape
    labels = _labels(targets, shape[:-1], V)
    rows = x.array.reshape(labels.size, C)
    scale = _loss_scale(rows, labels, shape[:-1], weights, normalizer)
    recording = is_recording()
    wanted = recording and x.requires_grad, recording and weight.requires_grad
    losses, dx, dweight = linear_cross_entropy_kernel.forward(
        rows, weight.array, labels, scale, wanted
    )
    dx = None if dx is None else dx.reshape(shape)

    def backward(dout: Array) -> list[Array | None]:
        made = (dx, dweight)
        if graph_is_retained():  # they are needed again
            return [None if part is None else part * dout for part in made]
        if float(dout) != 1:
            for part in made:
                if part is not None:
                    xp.multiply(part, dout, out=part)
        return list(made)

    out = (losses * scale).sum()
    return record("linear_cross_entropy", out, (x, weight), backward, saves="nothing")


def _labels(targets: Any, shape: tuple[int, ...], vocab_size: int) -> Array:
    """The targets as whole numbers (N,), checked against the shape and width of the logits."""
    labels = integers(targets)
    if labels.shape != shape:
        raise InputError(f"targets of shape {labels.shape} for predictions of shape {shape}")
    if not are_below(labels, vocab_size):
        check_range(labels[labels != IGNORED], vocab_size, "target")
    return labels.reshape(-1)


def _loss_scale(
    like: Array,
    labels: Array,
    shape: tuple[int, ...],
    weights: Array | None,
    normalizer: float | None,
) -> Array:
    """What each of the N losses, of `shape`, is multiplied by: its weight over their sum.

    Ignored targets have weight 0. `normalizer` takes the place of the sum.
    """
    xp = backend.array_module(like)
    counted = labels != IGNORED
    scale = counted.astype(like.dtype)
    if weights is not None:
        if isinstance(weights, Tensor):
            if weights.requires_grad:
                raise GraphError("the weights of a loss are constants; give weights.detach()")
            weights = weights.array
        weights = xp.asarray(weights, dtype=like.dtype)
        if weights.shape != shape:
            raise InputError(f"weights of shape {weights.shape} for losses of shape {shape}")
        scale = xp.where(counted, weights.reshape(-1), 0)
    if normalizer is not None:
        return scale if normalizer == 1 else scale / float(normalizer)  # NumPy's would widen it
    total = float(scale.sum())
    if total == 0 and bool(scale.any()):
        raise InputError("the weights of this loss sum to 0; give the normalizer to divide by")
    return scale / total if total else scale
