"""SwiGLU: one half of a feed-forward layer opens and closes the other.

    out = silu(gate) up,        silu(g) = g s,   s = sigmoid(g)

Derivative. The product rule, with silu.py's derivative:

    dup   = dout silu(gate)
    dgate = dout up s (1 + gate (1 - s))

Shapes: all (...). Source: Shazeer 2020, "GLU variants improve Transformer", equation 6.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels import silu
from minillm.kernels.layout import PART, flat
from minillm.kernels.silu import slope
from minillm.kernels.vector_math import sigmoid

# ------------------------------------------------------------------------------- reference


def forward_reference(gate: Array, up: Array) -> Array:
    """silu(gate) * up, all (...)."""
    return silu.forward_reference(gate) * up


def backward_reference(dout: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    """Gradients of `gate` and `up`, all (...)."""
    return silu.backward_reference(dout * up, gate), dout * silu.forward_reference(gate)


# ------------------------------------------------------------------------------- fast twin
#
# One pass over memory, in parts that run in parallel; nothing between the operands and the result
# is stored, and backward makes both gradients from one sigmoid.


def forward_fast(gate: Array, up: Array) -> Array:
    out = np.empty(gate.shape, gate.dtype)
    _forward(flat(gate), flat(up), out.reshape(-1))
    return out


def backward_fast(dout: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    dgate, dup = np.empty(gate.shape, gate.dtype), np.empty(gate.shape, gate.dtype)
    _backward(flat(dout), flat(gate), flat(up), dgate.reshape(-1), dup.reshape(-1))
    return dgate, dup


@jit(forceinline=True)
def _forward_part(gate, up, out):
    for i in range(gate.size):
        out[i] = gate[i] * sigmoid(gate[i]) * up[i]


@jit(parallel=True)
def _forward(gate, up, out):
    if gate.size < 2 * PART:
        _forward_part(gate, up, out)
    else:
        for part in prange((gate.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, gate.size)
            _forward_part(gate[i:j], up[i:j], out[i:j])


@jit(forceinline=True)
def _backward_part(dout, gate, up, dgate, dup):
    for i in range(gate.size):
        s = sigmoid(gate[i])
        dgate[i] = dout[i] * up[i] * slope(gate[i], s)
        dup[i] = dout[i] * (gate[i] * s)


@jit(parallel=True)
def _backward(dout, gate, up, dgate, dup):
    if gate.size < 2 * PART:
        _backward_part(dout, gate, up, dgate, dup)
    else:
        for part in prange((gate.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, gate.size)
            _backward_part(dout[i:j], gate[i:j], up[i:j], dgate[i:j], dup[i:j])


# ---------------------------------------------------------------------------------- public


def forward(gate: Array, up: Array) -> Array:
    """silu(gate) * up; both (...), float32 or float64, and so is the result."""
    return forward_fast(gate, up) if backend.fast(gate, up) else forward_reference(gate, up)


def backward(dout: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    """Gradients (dgate, dup) of `forward`'s inputs, all (...)."""
    if backend.fast(dout, gate, up):
        return backward_fast(dout, gate, up)
    return backward_reference(dout, gate, up)
