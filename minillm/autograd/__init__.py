"""Reverse-mode automatic differentiation: the tape, the named operations, and their proof."""

from minillm.autograd.checkpoint import checkpoint
from minillm.autograd.joining import concatenate, maximum, stack, where
from minillm.autograd.tensor import Tensor, enable_grad, grad, no_grad

__all__ = [
    "Tensor", "checkpoint", "concatenate", "enable_grad", "grad", "maximum", "no_grad", "stack",
    "where",
]  # fmt: skip
