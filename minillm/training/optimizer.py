"""AdamW: Adam with the weight decay taken out of the gradient (Loshchilov and Hutter 2019).

    m = beta1 m + (1 - beta1) g              mean of the gradient
    v = beta2 v + (1 - beta2) g^2            mean of its square
    weight -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + lr * decay * weight

The divisions by 1 - beta^t undo the pull towards zero of the first steps. The arithmetic is in
`kernels/adamw.py`, which reads and writes each array once; this file keeps the two moments of every
parameter and says which parameters decay: matrices and embeddings do; biases and the gains of
norms, which have one axis, do not, since shrinking them does not make the function simpler.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from minillm import backend
from minillm.autograd import Tensor
from minillm.backend import Array
from minillm.errors import CheckpointError
from minillm.kernels import adamw, sum_squares


class AdamW:
    """The optimizer's state for a set of named parameters, and the update that uses it."""

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        self.parameters = dict(named_parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.steps = 0  # updates made so far
        self.m = {name: _zeros_like(weight) for name, weight in self.parameters.items()}
        self.v = {name: _zeros_like(weight) for name, weight in self.parameters.items()}

    def step(self, lr: float | None = None, grad_scale: float = 1.0) -> None:
        """Update every parameter that has a gradient, in place.

        Args:
            lr: learning rate of this step; the constructor's where it is left out.
            grad_scale: factor on every gradient, such as `clip_scale`'s, at no extra pass.
        """
        self.steps += 1
        lr = self.lr if lr is None else lr
        beta1, beta2 = self.betas
        for name, weight in self.parameters.items():
            if weight.grad is None:
                continue
            weight.check_writable()
            decay = self.weight_decay if weight.ndim >= 2 else 0.0
            adamw.update(
                weight.array, weight.grad, self.m[name], self.v[name],
                lr, beta1, beta2, self.eps, decay, self.steps, grad_scale,
            )  # fmt: skip

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.parameters.values():
            weight.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """The moments, `m.NAME` and `v.NAME`; the count of steps is the caller's to keep."""
        return {
            f"{kind}.{name}": array
            for kind, moments in (("m", self.m), ("v", self.v))
            for name, array in moments.items()
        }

    def load_state_dict(self, state: Mapping[str, Array], steps: int) -> None:
        """Take over the moments of `state_dict` and the number of updates made.

        Nothing changes unless everything fits. Raises `CheckpointError` where one is missing, left
        over, or of another shape.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            odd = min(state.keys() ^ own.keys())
            raise CheckpointError(f"the optimizer's state is of another model: {odd!r} differs")
        for key, array in own.items():
            if state[key].shape != array.shape:
                raise CheckpointError(
                    f"optimizer state {key!r} has shape {state[key].shape}, not {array.shape}"
                )
        for key, array in own.items():
            array[...] = backend.asarray(state[key], dtype=array.dtype)
        self.steps = steps


def _zeros_like(weight: Tensor) -> Array:
    return backend.array_module(weight.array).zeros_like(weight.array)


def global_norm(parameters: Iterable[Tensor]) -> float:
    """The Euclidean norm of all gradients together, summed in float64 in a fixed order."""
    grads = (weight.grad for weight in parameters if weight.grad is not None)
    return math.sqrt(math.fsum(float(sum_squares.forward(grad)) for grad in grads))


def clip_scale(norm: float, most: float) -> float:
    """The factor that brings a gradient of `norm` down to `most` (0: no limit); at most 1."""
    return min(1.0, most / (norm + 1e-6)) if most else 1.0
