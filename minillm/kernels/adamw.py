"""The AdamW update of one array: weight, gradient and both moments in a single pass.

    g = grad_scale * grad                          (the clipping coefficient, so it costs no pass)
    m = beta1 m + (1 - beta1) g
    v = beta2 v + (1 - beta2) g^2
    weight = (1 - lr decay) weight - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

t counts updates from 1. The division by 1 - beta^t makes m and v averages: without it they would
start near 0, where they begin. Source: Loshchilov and Hutter 2019, "Decoupled weight decay
regularization", algorithm 2, with the schedule's factor inside lr, as in PyTorch.

Nothing is differentiated here, so there is no backward. Everything changes in place. All arrays
have one shape and dtype.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, flat

# ------------------------------------------------------------------------------- reference


def update_reference(
    weight: Array, grad: Array, m: Array, v: Array, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, step: int, grad_scale: float = 1.0,
) -> None:  # fmt: skip
    """See `update`."""
    xp = backend.array_module(weight)
    g = grad * weight.dtype.type(grad_scale)
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    root = xp.sqrt(v) / math.sqrt(1 - beta2**step) + eps
    weight *= 1 - lr * weight_decay
    weight -= lr / (1 - beta1**step) * m / root


# ------------------------------------------------------------------------------- fast twin
#
# The update does a dozen operations for 28 bytes (four arrays read, three written), so memory is
# the limit and each array has to pass through the processor once. The reference reads and writes
# whole arrays at every operator, some thirty passes. Parts of equal size run in parallel; one
# element never depends on another, so the result cannot depend on the threads.


def update_fast(
    weight: Array, grad: Array, m: Array, v: Array, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, step: int, grad_scale: float = 1.0,
) -> None:  # fmt: skip
    scalars = _scalars(weight.dtype, lr, beta1, beta2, eps, weight_decay, step, grad_scale)
    update_parts(weight.reshape(-1), flat(grad), m.reshape(-1), v.reshape(-1), scalars)


@functools.lru_cache(maxsize=8)  # one step has the same ones for every matrix, and every vector
def _scalars(
    dtype: np.dtype, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    step: int, grad_scale: float,
) -> Array:  # fmt: skip
    """What the loop needs, in the dtype of the arrays."""
    rate, root_scale = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    keep = 1 - lr * weight_decay
    return np.array(
        [grad_scale, beta1, 1 - beta1, beta2, 1 - beta2, keep, rate, root_scale, eps], dtype
    )


@jit(parallel=True)
def update_parts(weight, grad, m, v, scalars):
    if weight.size < 2 * PART:
        _update_part(weight, grad, m, v, scalars)
    else:
        for part in prange((weight.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, weight.size)
            _update_part(weight[i:j], grad[i:j], m[i:j], v[i:j], scalars)


@jit(forceinline=True)
def _update_part(weight, grad, m, v, scalars):
    scale, beta1, rest1, beta2, rest2, keep, rate, root_scale, eps = (
        scalars[0], scalars[1], scalars[2], scalars[3], scalars[4],
        scalars[5], scalars[6], scalars[7], scalars[8],
    )  # fmt: skip
    for i in range(weight.size):
        g = scale * grad[i]
        m[i] = beta1 * m[i] + rest1 * g
        v[i] = beta2 * v[i] + rest2 * (g * g)
        weight[i] = keep * weight[i] - rate * m[i] / (np.sqrt(v[i]) * root_scale + eps)


# ---------------------------------------------------------------------------------- public


def update(
    weight: Array, grad: Array, m: Array, v: Array, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, step: int, grad_scale: float = 1.0,
) -> None:  # fmt: skip
    """Change `weight` and its moments `m` and `v` in place by one AdamW step.

    All arrays have one shape and dtype, float32 or float64, and any strides; the fast twin serves
    those whose rows lie one behind the other. `step` counts from 1; `grad_scale` multiplies the
    gradient first.
    """
    in_order = all(array.flags.c_contiguous for array in (weight, m, v))
    change = update_fast if in_order and backend.fast(weight, grad, m, v) else update_reference
    change(weight, grad, m, v, lr, beta1, beta2, eps, weight_decay, step, grad_scale)
