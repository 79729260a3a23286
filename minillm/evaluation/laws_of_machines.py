"""Laws of what computes: threads, compilers and other people's libraries do not change a result."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from minillm import backend
from minillm.autograd import Tensor
from minillm.autograd import functional as F
from minillm.autograd.losses import cross_entropy
from minillm.backend import Array
from minillm.evaluation.laws_of_training import batch_of
from minillm.evaluation.subjects import (
    NotApplicable,
    Subject,
    compare,
    difference,
    gradients,
    largest,
)
from minillm.kernels.cross_entropy import IGNORED
from minillm.training.optimizer import AdamW


def one_thread_is_many(subject: Subject) -> float:
    """One thread and all of them give the same bits: logits, loss and every gradient."""
    threads = backend.threads()
    if backend.cores() < 2:
        raise NotApplicable("this machine has one core")
    if not backend.fast():
        raise NotApplicable(f"the backend in use is {backend.name()}")
    try:
        found = []
        for count in (1, max(2, threads)):
            backend.set_threads(count)
            found.append(_everything(subject, 16, 64))
    finally:
        backend.set_threads(threads)
    return compare(found[1], found[0])


def numba_is_numpy(subject: Subject) -> float:
    """The compiled kernels compute what the plain references say."""
    if not backend.fast():
        raise NotApplicable(f"the backend in use is {backend.name()}")
    ours = _everything(subject, 2, 24)
    with backend.use("numpy"):
        return compare(ours, _everything(subject, 2, 24))


def _everything(subject: Subject, B: int, T: int) -> dict[str, Array]:
    """Logits, loss and gradients of a batch."""
    model, batch = subject.model, batch_of(subject, B, T)
    model.eval()
    model.zero_grad()
    logits = model(batch[0]).array
    loss = model.loss(*batch)
    loss.backward()
    return {"logits": logits, "loss": np.array(loss.item()), **gradients(model)}


def decoded_is_encoded(subject: Subject) -> float:
    """Text comes back from its ids as it was: here, the number of texts that do not.

    Byte-level vocabularies are given random bytes as well; the others can only write what they have
    tokens for.
    """
    tokenizer = subject.tokenizer
    if tokenizer is None:
        raise NotApplicable("the run came without a tokenizer")
    rng = np.random.default_rng(0)
    ordinary = sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.special_tokens.values()))
    texts = [tokenizer.decode_bytes(rng.choice(ordinary, length)) for length in range(0, 200, 10)]
    if tokenizer.kind == "bpe":
        texts += [rng.bytes(length) for length in (1, 2, 3, 10, 100, 1000)]
        texts += [
            text.encode() for text in ("", " \n\t ", "naïve café 😀", "<|endoftext|>", "a" * 500)
        ]
    return float(sum(tokenizer.decode_bytes(tokenizer.encode(text)) != text for text in texts))


# ---------------------------------------------------------------------------------- PyTorch


def ours_is_torch(subject: Subject) -> float:
    """Every named operation and its gradients, and AdamW, agree with PyTorch where it is installed.

    It is a judge, and nothing of ours runs on it. The operations are the same for every model, so
    `subject` does not matter.
    """
    if importlib.util.find_spec("torch") is None:
        raise NotApplicable("PyTorch is not installed")
    torch = importlib.import_module("torch")
    found = [_compare(torch, *case) for case in _operations(torch)]
    return largest([*found, _adamw(torch)])


def _operations(torch: Any) -> list[tuple[Callable[..., Any], Callable[..., Any], list[Array]]]:
    """Ours, PyTorch's, and what to call both with."""
    T = torch.nn.functional
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    rows, ids = draw(3, 7, 16), rng.integers(0, 11, (3, 7))
    targets = np.where(rng.random(21) < 0.2, IGNORED, rng.integers(0, 16, 21))
    labels, looked_up = torch.from_numpy(targets), torch.from_numpy(ids)
    gain, shift = draw(16), draw(16)
    q, k, v = draw(2, 4, 7, 8), draw(2, 2, 7, 8), draw(2, 2, 7, 8)
    return [
        (F.matmul, torch.matmul, [draw(2, 3, 5), draw(5, 4)]),
        (F.linear, T.linear, [rows, draw(9, 16), draw(9)]),
        (F.softmax, lambda x: T.softmax(x, -1), [rows]),
        (F.log_softmax, lambda x: T.log_softmax(x, -1), [rows]),
        (F.relu, T.relu, [rows]),
        (F.gelu, T.gelu, [rows]),
        (lambda x: F.gelu(x, "tanh"), lambda x: T.gelu(x, approximate="tanh"), [rows]),
        (F.silu, T.silu, [rows]),
        (F.swiglu, lambda gate, up: T.silu(gate) * up, [rows, draw(3, 7, 16)]),
        (F.layer_norm, lambda x, w, b: T.layer_norm(x, (16,), w, b), [rows, gain, shift]),
        (F.rms_norm, lambda x, w: T.rms_norm(x, (16,), w, 1e-6), [rows, gain]),
        (lambda w: F.embedding(w, ids), lambda w: T.embedding(looked_up, w), [draw(11, 16)]),
        (
            F.attention,
            lambda q, k, v: T.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True
            ),
            [q, k, v],
        ),
        (
            lambda x: cross_entropy(x.reshape(21, 16), targets),
            lambda x: T.cross_entropy(x.reshape(21, 16), labels),
            [rows],
        ),
    ]


def _compare(
    torch: Any, ours: Callable[..., Any], theirs: Callable[..., Any], arrays: list[Array]
) -> float:
    """The largest difference of the results and all gradients, for one random upstream gradient."""
    mine = [Tensor(array, requires_grad=True) for array in arrays]
    peers = [torch.tensor(array, requires_grad=True) for array in arrays]
    out, expected = ours(*mine), theirs(*peers)
    dout = np.random.default_rng(1).standard_normal(out.shape).astype(np.float32)
    out.backward(dout)
    expected.backward(torch.from_numpy(dout))
    pairs = [
        (out.array, expected.detach()),
        *((m.grad, p.grad) for m, p in zip(mine, peers, strict=True)),
    ]
    return largest(difference(backend.to_numpy(m), p.numpy()) for m, p in pairs)


def _adamw(torch: Any) -> float:
    """Three updates of one weight by both."""
    rng = np.random.default_rng(2)
    start = rng.standard_normal((6, 5)).astype(np.float32)
    mine, theirs = Tensor(backend.asarray(start.copy()), requires_grad=True), torch.tensor(start)
    settings: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    ours, peer = AdamW([("w", mine)], **settings), torch.optim.AdamW([theirs], **settings)
    for _ in range(3):
        gradient = rng.standard_normal((6, 5)).astype(np.float32)
        mine.grad, theirs.grad = backend.asarray(gradient), torch.from_numpy(gradient)
        ours.step()
        peer.step()
    return difference(mine.array, theirs.numpy())
