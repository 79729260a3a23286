"""A linear layer and the cross-entropy of its output, without ever holding that output.

    logits = x @ weight.T            (N, V), the largest array of a language model by far
    loss_n = cross_entropy(logits_n, t_n)

For GPT-2 at 1,024 tokens the logits are 206 MB and their gradient as much again. But a row's loss
and gradient depend on that row alone. So the rows are taken in slices, and while the logits of a
slice are there, all that will be needed is made from them:

    dlogits  = scale_n (softmax(logits_n) - onehot(t_n))     written over the slice's logits
    dx       = dlogits @ weight                              rows of this slice, complete
    dweight += dlogits.T @ x                                 summed over the slices, in order

These are the gradients of sum_n scale_n loss_n. The scales (one over the number of tokens, say) are
known before the loss is; what comes from above is one number, and the operation's backward only
multiplies by it. Making the gradients in the forward pass also saves the product that a backward
pass of its own would need to get the logits back.

Shapes: x and dx (N, C), weight and dweight (V, C), targets, scale and losses (N,). Source: the
derivatives are those of matmul.py and cross_entropy.py; the idea of fusing them is from Hsu et al.
2024, "Liger Kernel", section 3.2.

There is one version for all backends: its parts are kernels that each have a reference and a twin.
"""

from __future__ import annotations

from minillm import backend
from minillm.backend import Array
from minillm.kernels import cross_entropy, matmul
from minillm.kernels.bfloat16 import BFLOAT16

SLICE = 1 << 25  # most logits at a time: 128 MB in float32, enough rows to keep the products fast


def forward(
    x: Array,
    weight: Array,
    targets: Array,
    scale: Array,
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Array, Array | None, Array | None]:
    """The losses (N,), and the gradients of sum(scale * losses) for `x` and `weight`.

    `x` (N, C), `weight` (V, C), `targets` (N,) whole numbers below V or -100, `scale` (N,). The
    losses are not scaled. A gradient that, as `wanted` says, nobody needs is not made: None.
    """
    xp, halved = backend.array_module(x), backend.bfloat16_products(x, weight)
    losses = xp.zeros(len(x), x.dtype)
    dx = xp.empty(x.shape, x.dtype) if wanted[0] else None
    made = xp.empty if len(x) else xp.zeros  # the first slice writes all of dweight
    dweight = made(weight.shape, weight.dtype) if wanted[1] else None
    logits = xp.empty((slice_rows(len(x), len(weight)), len(weight)), x.dtype)
    for start in range(0, len(x), len(logits)):
        part = slice(start, min(start + len(logits), len(x)))
        scores = matmul.product(x[part], weight.T, logits[: part.stop - start], bfloat16=halved)
        losses[part], lse = cross_entropy.forward(scores, targets[part])
        if any(wanted):
            # The products would round it anyway: in bfloat16 they have half as much to read.
            into = scores.view(BFLOAT16) if halved and backend.fast(scores) else scores
            cross_entropy.backward(scale[part], scores, targets[part], lse, out=into)
            dscores = into[:, : len(weight)]
        if dx is not None:
            matmul.product(dscores, weight, out=dx[part], bfloat16=halved)
        if dweight is not None:
            matmul.product(dscores.T, x[part], dweight, accumulate=start > 0, bfloat16=halved)
    return losses, dx, dweight


def slice_rows(rows: int, vocab_size: int) -> int:
    """Rows per slice: as many as SLICE allows, spread evenly; it depends on the shapes alone."""
    slices = max(1, -(-rows * vocab_size // SLICE))
    return max(1, -(-rows // slices))
