"""Reverse-mode automatic differentiation: the tape, the named operations, and their proof."""

from minillm.autograd.checkpoint import checkpoint
from minillm.autograd.gradcheck import GradientError, gradcheck
from minillm.autograd.joining import concatenate, maximum, stack, where
from minillm.autograd.tensor import Tensor, enable_grad, grad, no_grad

__all__ = [
    "GradientError", "Tensor", "checkpoint", "concatenate", "enable_grad", "grad", "gradcheck",
    "maximum", "no_grad", "stack", "where",
]  # fmt: skip
