"""Reverse-mode automatic differentiation: the tape, the named operations, and their proof."""

from minillm.autograd.tensor import Tensor, enable_grad, grad, no_grad

__all__ = ["Tensor", "enable_grad", "grad", "no_grad"]
