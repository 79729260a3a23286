"""Layers with parameters, over the named operations of `minillm.autograd.functional`."""

from minillm.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm
from minillm.nn.module import Module, Parameter

__all__ = ["Dropout", "Embedding", "LayerNorm", "Linear", "Module", "Parameter", "RMSNorm"]
