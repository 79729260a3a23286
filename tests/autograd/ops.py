"""The table of operations: what each is called with, what it must equal in PyTorch.

Every proof about single operations runs over `OPS`. An entry draws its own arguments with
Hypothesis: arrays of any size, also 0 and 1, broadcasting where the operation does, in any memory
layout; and the constants that go with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from hypothesis import strategies as st

import minillm.autograd.functional as F
from minillm.autograd import Tensor
from minillm.kernels import attention as attention_kernel
from minillm.kernels import rotary as rotary_kernel

SIZES = st.sampled_from([0, 1, 1, 2, 3, 4])
SOME = st.sampled_from([1, 1, 2, 3, 4])


@dataclass
class Case:
    """One call: `operation(*arrays, **constants)`. The arrays are float64."""

    arrays: list[np.ndarray]
    constants: dict[str, Any]


@dataclass
class Op:
    """`ours` on tensors, `torch` the same in PyTorch, `draw(draw)` a case of arguments."""

    name: str
    ours: Callable[..., Tensor]
    torch: Callable[..., torch.Tensor]
    draw: Callable[[Any], Case]

    def cases(self) -> st.SearchStrategy[Case]:
        return st.composite(lambda draw: self.draw(draw))()


OPS: list[Op] = []


def op(name: str, ours: Callable, theirs: Callable, draw: Callable[[Any], Case]) -> None:
    OPS.append(Op(name, ours, theirs, draw))


# ------------------------------------------------------------------------- drawing arguments


def shape(draw: Any, low: int = 0, high: int = 3, sizes: Any = SIZES) -> tuple[int, ...]:
    return tuple(draw(st.lists(sizes, min_size=low, max_size=high)))


def generator(draw: Any) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def floats(draw: Any, shape: tuple[int, ...], kind: str = "any") -> np.ndarray:
    """Random numbers without zeros and ties, in one of the memory layouts that a view can have."""
    rng, layout = generator(draw), draw(st.sampled_from(["C", "F", "strided", "reversed"]))
    values = np.asarray(rng.standard_normal(shape))
    values = values + np.copysign(0.1, values)  # away from the kinks at 0
    values = np.asarray(np.abs(values) + 0.2 if kind == "positive" else values)
    if layout == "F" and shape:
        return np.asfortranarray(values)
    if layout == "strided" and shape:
        room = np.zeros((*shape[:-1], 2 * shape[-1]))
        room[..., ::2] = values
        return room[..., ::2]
    if layout == "reversed" and shape:
        return np.ascontiguousarray(values[::-1])[::-1]
    return values


def one(kind: str = "any", low: int = 0) -> Callable[[Any], Case]:
    return lambda draw: Case([floats(draw, shape(draw, low), kind)], {})


def broadcast(count: int, kind: str = "any") -> Callable[[Any], Case]:
    """Arrays whose shapes broadcast: leading axes missing, or lengths of one."""

    def draw_case(draw: Any) -> Case:
        full = shape(draw)
        arrays = []
        for _ in range(count):
            own = full[draw(st.integers(0, len(full))) :]
            own = tuple(1 if draw(st.booleans()) else length for length in own)
            arrays.append(floats(draw, own, kind))
        return Case(arrays, {})

    return draw_case


def ids(draw: Any, shape: tuple[int, ...], vocab_size: int) -> np.ndarray:
    return generator(draw).integers(0, vocab_size, shape).astype(np.int32)


# ---------------------------------------------------------------------------------- arithmetic

op("add", lambda a, b: a + b, lambda a, b: a + b, broadcast(2))
op("sub", lambda a, b: a - b, lambda a, b: a - b, broadcast(2))
op("mul", lambda a, b: a * b, lambda a, b: a * b, broadcast(2))
op("div", lambda a, b: a / b, lambda a, b: a / b, broadcast(2))
op("pow", lambda a, b: a**b, lambda a, b: a**b, broadcast(2, "positive"))
op("neg", lambda a: -a, lambda a: -a, one())
op("number_sub", lambda a: 3.0 - a, lambda a: 3.0 - a, one())
op("number_div", lambda a: 2.0 / a, lambda a: 2.0 / a, one())
op("number_pow", lambda a: 1.5**a, lambda a: 1.5**a, one())
for exponent in (3, 2, 1, 0, -1, 0.5):
    op(
        f"pow_{exponent}",
        lambda a, n=exponent: a**n,
        lambda a, n=exponent: a**n,
        one("positive" if exponent == 0.5 else "any"),
    )
op("exp", lambda a: a.exp(), torch.exp, one())
op("log", lambda a: a.log(), torch.log, one("positive"))
op("sqrt", lambda a: a.sqrt(), torch.sqrt, one("positive"))
op("tanh", lambda a: a.tanh(), torch.tanh, one())
op("used_twice", lambda a: a * a + a, lambda a: a * a + a, one())
op("both_sides", lambda a: F.concatenate([a, a]), lambda a: torch.cat([a, a]), one(low=1))
op("maximum", F.maximum, torch.maximum, broadcast(2))


def matrices(draw: Any) -> Case:
    M, K, N = (draw(SIZES) for _ in range(3))
    if draw(st.integers(0, 3)) == 0:  # vectors
        left, right = draw(st.sampled_from([((K,), (K, N)), ((M, K), (K,)), ((K,), (K,))]))
        return Case([floats(draw, left), floats(draw, right)], {})
    batch = shape(draw, 0, 2)
    leads = [batch[draw(st.integers(0, len(batch))) :] for _ in range(2)]
    leads = [tuple(1 if draw(st.booleans()) else n for n in lead) for lead in leads]
    return Case([floats(draw, (*leads[0], M, K)), floats(draw, (*leads[1], K, N))], {})


op("matmul", lambda a, b: a @ b, torch.matmul, matrices)


def choices(draw: Any) -> Case:
    case = broadcast(3)(draw)
    condition = case.arrays.pop(0) > 0
    return Case(case.arrays, {"condition": condition})


op(
    "where",
    lambda a, b, condition: F.where(condition, a, b),
    lambda a, b, condition: torch.where(torch.tensor(condition), a, b),
    choices,
)

# ------------------------------------------------------------------------ reductions and shapes


def reductions(sizes: Any = SIZES) -> Callable[[Any], Case]:
    def draw_case(draw: Any) -> Case:
        own = shape(draw, 1, 3, sizes)
        axes = st.integers(-len(own), len(own) - 1)
        pairs = st.sampled_from([(0, -1), (0, 1)]) if len(own) > 1 else st.none()
        axis = draw(st.one_of(st.none(), axes, pairs))
        return Case([floats(draw, own)], {"axis": axis, "keepdims": draw(st.booleans())})

    return draw_case


def _in_torch(name: str) -> Callable[..., torch.Tensor]:
    def reduce(a: torch.Tensor, axis: Any, keepdims: bool) -> torch.Tensor:
        axes = tuple(range(a.ndim)) if axis is None else axis
        return getattr(torch, name)(a, dim=axes, keepdim=keepdims)

    return reduce


op("sum", lambda a, **how: a.sum(**how), _in_torch("sum"), reductions())
op("mean", lambda a, **how: a.mean(**how), _in_torch("mean"), reductions(SOME))
op("max", lambda a, **how: a.max(**how), _in_torch("amax"), reductions(SOME))
op("reshape", lambda a: a.reshape(-1, 1), lambda a: a.reshape(a.numel(), 1), one())
op("transpose", lambda a: a.T, lambda a: a.permute(tuple(range(a.ndim))[::-1]), one())


def orders(draw: Any) -> Case:
    array = floats(draw, shape(draw, 1))
    return Case([array], {"axes": draw(st.permutations(range(array.ndim)))})


op(
    "transpose_axes",
    lambda a, axes: a.transpose(*axes),
    lambda a, axes: a.permute(*axes),
    orders,
)
op("swapaxes", lambda a: a.swapaxes(0, -1), lambda a: a.swapaxes(0, -1), one(low=1))

INDICES: list[Any] = [
    0,
    -1,
    (1, 0),
    slice(1, None),
    (slice(None), 1),
    (Ellipsis, 0),
    (None, slice(0, 2)),
    (slice(None, None, 2), slice(1, 3)),
    np.array([2, 0, 2, 1]),
    [0, 0],
    (slice(None), np.array([[1, 1], [0, 1]])),
    (np.array([0, 2, 0]), np.array([1, 1, 1])),
    np.array([True, False, True]),
    np.array([[True, False], [False, True], [True, True]]),
    slice(0, 0),
    np.int64(1),
]
op(
    "getitem",
    lambda a, index: a[index],
    lambda a, index: a[_torch_index(index)],
    lambda draw: Case([floats(draw, (3, 2, 4))], {"index": draw(st.sampled_from(INDICES))}),
)


def _torch_index(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(
        torch.tensor(part) if isinstance(part, (np.ndarray, list)) else part for part in parts
    )


def several(same: bool) -> Callable[[Any], Case]:
    def draw_case(draw: Any) -> Case:
        own, axis = shape(draw, 1), 0
        axis = draw(st.integers(0, len(own) - 1))
        lengths = [own[axis] if same else draw(SIZES) for _ in range(draw(st.integers(1, 3)))]
        shapes = [(*own[:axis], length, *own[axis + 1 :]) for length in lengths]
        return Case([floats(draw, s) for s in shapes], {"axis": axis})

    return draw_case


op(
    "concatenate",
    lambda *arrays, axis: F.concatenate(arrays, axis),
    lambda *arrays, axis: torch.cat(arrays, axis),
    several(same=False),
)
op(
    "stack",
    lambda *arrays, axis: F.stack(arrays, axis),
    lambda *arrays, axis: torch.stack(arrays, axis),
    several(same=True),
)

# ------------------------------------------------------------------------------ layers

op("relu", F.relu, TF.relu, one())
op("silu", F.silu, TF.silu, one())
op("gelu", F.gelu, TF.gelu, one())
op("gelu_tanh", lambda a: F.gelu(a, "tanh"), lambda a: TF.gelu(a, approximate="tanh"), one())


def gates(draw: Any) -> Case:
    own = shape(draw)
    return Case([floats(draw, own), floats(draw, own)], {})


op("swiglu", F.swiglu, lambda gate, up: TF.silu(gate) * up, gates)


def rows_and(*names: str, least: int = 0) -> Callable[[Any], Case]:
    """x (..., C) and a vector (C,) for each name; where `names` end in "?", perhaps None."""

    def draw_case(draw: Any) -> Case:
        own = (*shape(draw, 0, 2), draw(SOME if least else SIZES))
        present = [not name.endswith("?") or draw(st.booleans()) for name in names]
        vectors = [floats(draw, own[-1:]) for here in present if here]
        return Case([floats(draw, own), *vectors], {"present": present})

    return draw_case


def _given(vectors: tuple, present: list[bool]) -> list:
    left = iter(vectors)
    return [next(left) if here else None for here in present]


op(
    "layer_norm",
    lambda x, *v, present: F.layer_norm(x, *_given(v, present)),
    lambda x, *v, present: TF.layer_norm(x, x.shape[-1:], *_given(v, present)),
    rows_and("weight?", "bias?", least=1),
)
op(
    "rms_norm",
    lambda x, weight, present: F.rms_norm(x, weight),
    lambda x, weight, present: TF.rms_norm(x, x.shape[-1:], weight, eps=1e-6),
    rows_and("weight", least=1),
)


def linears(draw: Any) -> Case:
    K, N = draw(SIZES), draw(SIZES)
    bias = [floats(draw, (N,))] if draw(st.booleans()) else []
    return Case([floats(draw, (*shape(draw, 0, 2), K)), floats(draw, (N, K)), *bias], {})


def _linear(x: torch.Tensor, weight: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    bias, residual = (rest + (None, None))[:2]
    out = TF.linear(x, weight, bias)
    return out if residual is None else out + residual


def residual_linears(draw: Any) -> Case:
    x, weight, *_ = linears(draw).arrays
    N, lead = len(weight), x.shape[:-1]
    return Case([x, weight, floats(draw, (N,)), floats(draw, (*lead, N))], {})


op("linear", F.linear, _linear, linears)
op("linear_with_residual", F.linear, _linear, residual_linears)


def feed_forwards(draw: Any) -> Case:
    C, N, lead = draw(SIZES), draw(SIZES), shape(draw, 0, 2)
    biases, residual = draw(st.booleans()), draw(st.booleans())
    shapes = [(*lead, C), (N, C), (C, N)] + [(N,), (C,)] * biases + [(*lead, C)] * residual
    how = {"biases": biases, "approximate": draw(st.sampled_from(["none", "tanh"]))}
    return Case([floats(draw, s) for s in shapes], how)


def _given_to_feed_forward(x: Any, up: Any, down: Any, *rest: Any, biases: bool) -> tuple:
    up_bias, down_bias = rest[:2] if biases else (None, None)
    residual = rest[2 * biases] if len(rest) > 2 * biases else None
    return x, up, up_bias, down, down_bias, residual


def _fed_forward(*given: torch.Tensor, biases: bool, approximate: str) -> torch.Tensor:
    x, up, up_bias, down, down_bias, residual = _given_to_feed_forward(*given, biases=biases)
    g = TF.gelu(TF.linear(x, up, up_bias), approximate=approximate)
    out = TF.linear(g, down, down_bias)
    return out if residual is None else out + residual


op(
    "feed_forward",
    lambda *given, biases, approximate: F.feed_forward(
        *_given_to_feed_forward(*given, biases=biases), approximate=approximate
    ),
    _fed_forward,
    feed_forwards,
)


def softmaxes(draw: Any) -> Case:
    own = shape(draw, 1)
    return Case([floats(draw, own)], {"axis": draw(st.integers(-len(own), len(own) - 1))})


op("softmax", F.softmax, lambda a, axis: torch.softmax(a, axis), softmaxes)
op("log_softmax", F.log_softmax, lambda a, axis: torch.log_softmax(a, axis), softmaxes)


def lookups(draw: Any) -> Case:
    V, C = draw(SOME), draw(SIZES)
    return Case([floats(draw, (V, C))], {"ids": ids(draw, shape(draw), V)})


op(
    "embedding",
    F.embedding,
    lambda weight, ids: TF.embedding(torch.tensor(ids).long(), weight),
    lookups,
)


def turns(draw: Any) -> Case:
    B, H, T, D = draw(SIZES), draw(SIZES), draw(SIZES), 2 * draw(SOME)
    start = draw(st.integers(0, 5))
    cos, sin = rotary_kernel.tables(np.arange(start, start + T)[None], D, 100.0)
    return Case([floats(draw, (B, H, T, D))], {"cos": cos, "sin": sin})


def _turned(x: torch.Tensor, cos: np.ndarray, sin: np.ndarray) -> torch.Tensor:
    cos, sin = (torch.tensor(table).to(x.dtype)[:, None] for table in (cos, sin))
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


op("rotary", F.rotary, _turned, turns)


def drops(draw: Any) -> Case:
    p = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9]))
    return Case([floats(draw, shape(draw))], {"p": p, "seed": draw(st.integers(0, 99))})


def _masked(a: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """The mask itself is ours: it is the operation's value at ones."""
    ones = Tensor(np.ones(tuple(a.shape)))
    return a * torch.tensor(F.dropout(ones, p, np.random.default_rng(seed)).array).to(a.dtype)


op("dropout", lambda a, p, seed: F.dropout(a, p, np.random.default_rng(seed)), _masked, drops)

# --------------------------------------------------------------------------------- attention


def attentions(draw: Any) -> Case:
    B, G, R, T, D = (draw(SOME) for _ in range(5))
    S = T + draw(st.sampled_from([0, 0, 1, 3]))
    how: dict[str, Any] = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        how["window"] = draw(st.integers(1, 4))
    if draw(st.booleans()):
        real = (
            np.arange(S)
            >= np.array(draw(st.lists(st.integers(0, S), min_size=B, max_size=B)))[:, None]
        )  # padding on the left, perhaps of a whole row
        how["padding_mask"] = real
    if draw(st.booleans()):
        how["documents"] = np.sort(generator(draw).integers(0, 3, (B, S)), axis=1)
    if draw(st.booleans()):
        how["scale"] = 0.7
    shapes = [(B, G * R, T, D), (B, G, S, D), (B, G, S, D)]
    return Case([floats(draw, s) for s in shapes], how)


def _attended(q: Any, k: Any, v: Any, **how: Any) -> torch.Tensor:
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    i, j = torch.arange(S - T, S)[:, None], torch.arange(S)[None]
    seen = torch.ones(q.shape[0], T, S, dtype=bool)
    if how["causal"]:
        seen &= j <= i
    if "window" in how:
        seen &= (i - j).abs() < how["window"]
    if "padding_mask" in how:
        seen &= torch.tensor(how["padding_mask"])[:, None]
    if "documents" in how:
        documents = torch.tensor(how["documents"])
        seen &= documents[:, S - T :, None] == documents[:, None]
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.swapaxes(-1, -2) * how.get("scale", D**-0.5)
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    blind = ~seen.any(-1)[:, None, :, None]  # such a query gets zeros
    return torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0) @ v


op("attention", F.attention, _attended, attentions)


def self_attentions(draw: Any) -> Case:
    B, H, T, D = (draw(SOME) for _ in range(4))
    return Case([floats(draw, (B, T, 3 * H * D))], {"n_head": H})


def _self_attended(qkv: torch.Tensor, n_head: int) -> torch.Tensor:
    B, T, width = qkv.shape
    q, k, v = (x.reshape(B, T, n_head, -1).swapaxes(1, 2) for x in qkv.chunk(3, -1))
    out = TF.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.swapaxes(1, 2).reshape(B, T, width // 3)


op(
    "self_attention",
    lambda qkv, n_head: F.self_attention(
        qkv, n_head, attention_kernel.visible_keys(qkv.shape[1], qkv.shape[1])
    ),
    _self_attended,
    self_attentions,
)

# ------------------------------------------------------------------------------------ losses


def losses(draw: Any) -> Case:
    V, lead = draw(SOME), shape(draw, 0, 2)
    targets = ids(draw, lead, V)
    targets[generator(draw).random(lead) < 0.3] = -100
    how = {"targets": targets, "reduction": draw(st.sampled_from(["mean", "sum", "none"]))}
    if draw(st.booleans()):
        how["weights"] = generator(draw).random(lead) + 0.1
    return Case([floats(draw, (*lead, V))], how)


def _surprise(
    logits: torch.Tensor,
    targets: np.ndarray,
    reduction: str = "mean",
    weights: np.ndarray | None = None,
    normalizer: float | None = None,
) -> torch.Tensor:
    labels = torch.tensor(targets).long().reshape(-1)
    each = TF.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels, reduction="none")
    counted = (labels != -100).to(each.dtype)
    if weights is not None:
        counted = counted * torch.tensor(weights).to(each.dtype).reshape(-1)
    each = each * counted
    if reduction == "none":
        return each.reshape(targets.shape)
    total = 1.0 if reduction == "sum" else normalizer or float(counted.sum()) or 1.0
    return each.sum() / total


op("cross_entropy", F.cross_entropy, _surprise, losses)


def head_losses(draw: Any) -> Case:
    case = losses(draw)
    C, (V,) = draw(SIZES), case.arrays[0].shape[-1:]
    how = {"targets": case.constants["targets"]}
    if "weights" in case.constants:
        how["weights"] = case.constants["weights"]
    if draw(st.booleans()):
        how["normalizer"] = 2.5
    return Case([floats(draw, (*case.arrays[0].shape[:-1], C)), floats(draw, (V, C))], how)


op(
    "linear_cross_entropy",
    F.linear_cross_entropy,
    lambda x, weight, **how: _surprise(x @ weight.T, **how),
    head_losses,
)
