"""Losses of a language model: how surprised it is by the next token, and who counts.

The loss of one token is minus the log of the probability that the model gave it. The mean over a
batch is weighted: sum(weights * losses) / sum(weights), where an ignored target (-100) has weight 0.
A batch cut into pieces has the same mean only if every piece is divided by the weights of the whole
batch; that is what `normalizer` is for.
"""

from __future__ import annotations

from typing import Any

from minillm import backend
from minillm.autograd.arrays import integers
from minillm.autograd.tensor import Tensor, is_recording, record
from minillm.backend import Array
from minillm.errors import InputError
from minillm.kernels import cross_entropy as cross_entropy_kernel
from minillm.kernels import linear_cross_entropy as linear_cross_entropy_kernel


def cross_entropy(
    logits: Tensor, targets: Any, weights: Array | None = None, reduction: str = "mean"
) -> Tensor:
    """-log of the probability that `logits` (..., V) give to the integers `targets` (...).

    A target of -100 is ignored. `weights` (...) are constants that multiply the losses.
    `reduction`: "mean" is sum(weights * losses) / sum(weights) over targets not ignored, and 0
    where there is none; "sum" leaves the division out; "none" gives every loss, shaped as `targets`.
    """
    V, shape = logits.shape[-1], logits.shape[:-1]
    rows, labels = logits.array.reshape(-1, V), integers(targets).reshape(-1)
    losses, lse = cross_entropy_kernel.forward(rows, labels)  # (N,), (N,)
    scale = _loss_scale(losses, labels, weights, None if reduction == "mean" else 1.0)
    if reduction == "none":
        out = (losses * scale).reshape(shape)
    elif reduction in ("mean", "sum"):
        out = backend.array_module(losses).asarray((losses * scale).sum())
    else:
        raise InputError(f'reduction is {reduction!r}; it takes "mean", "sum" or "none"')

    def backward(dout: Array) -> tuple[Array]:
        dlogits = cross_entropy_kernel.backward(dout.reshape(-1) * scale, rows, labels, lse)
        return (dlogits.reshape(*shape, V),)

    return record("cross_entropy", out, (logits,), backward)


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
    Both gradients are made slice by slice in the forward pass, while a slice's logits are there.
    """
    C = weight.shape[1]
    rows, labels = x.array.reshape(-1, C), integers(targets).reshape(-1)
    scale = _loss_scale(rows, labels, weights, normalizer)
    with_grad = is_recording() and (x.requires_grad or weight.requires_grad)
    losses, dx, dweight = linear_cross_entropy_kernel.forward(
        rows, weight.array, labels, scale, with_grad
    )
    out, shape = backend.array_module(losses).asarray((losses * scale).sum()), x.shape

    def backward(dout: Array) -> tuple[Array, Array]:
        return dout * dx.reshape(shape), dout * dweight

    return record("linear_cross_entropy", out, (x, weight), backward, saves="nothing")


def _loss_scale(
    like: Array, labels: Array, weights: Array | None, normalizer: float | None
) -> Array:
    """What each of the N losses is multiplied by: its weight over the sum of the weights.

    Ignored targets have weight 0. `normalizer` takes the place of the sum.
    """
    xp = backend.array_module(like)
    counted = (labels != -100).astype(like.dtype)
    scale = counted
    if weights is not None:
        weights = weights.array if isinstance(weights, Tensor) else weights
        scale = counted * xp.asarray(weights, dtype=like.dtype).reshape(-1)
    if normalizer is not None:
        return scale if normalizer == 1 else scale / normalizer
    total = float(scale.sum())
    if total == 0 and bool(scale.any()):
        raise InputError("the weights of this loss sum to 0; give the normalizer to divide by")
    return scale / total if total else scale
