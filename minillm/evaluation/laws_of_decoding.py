"""Laws of reading and writing text: however the model comes to read it, it says the same."""

from __future__ import annotations

import numpy as np

from minillm.autograd import grad, no_grad
from minillm.backend import Array
from minillm.evaluation.subjects import NotApplicable, Subject, difference, largest
from minillm.models.base import LanguageModel

_TOKENS = 24  # in a text; fewer where the context is shorter


def _read(model: LanguageModel, *arguments: Array) -> Array:
    """The logits (B, T, V), without gradients and dropout."""
    model.eval()
    with no_grad():
        return model(*arguments).array


def cached_is_uncached(subject: Subject) -> float:
    """Reading token by token, the past in the cache, gives the logits of reading all at once."""
    model, ids = subject.model, subject.ids(2, _TOKENS)
    whole = _read(model, ids)
    cache = model.new_cache(len(ids))
    steps = [_read(model, ids[:, t : t + 1], cache) for t in range(ids.shape[1])]
    return difference(np.concatenate(steps, axis=1), whole)


def split_is_whole(subject: Subject) -> float:
    """A prompt may be read in two parts, cut anywhere."""
    model, ids = subject.model, subject.ids(1, _TOKENS)
    whole = _read(model, ids)
    found = []
    for cut in range(1, ids.shape[1]):
        cache = model.new_cache(1)
        parts = [_read(model, part, cache) for part in (ids[:, :cut], ids[:, cut:])]
        found.append(difference(np.concatenate(parts, axis=1), whole))
    return largest(found)


def padded_is_single(subject: Subject) -> float:
    """A row says the same alone as in a batch where it is padded to a longer row's length."""
    model, ids = subject.model, subject.ids(4, _TOKENS)
    B, T = ids.shape
    lengths = np.linspace(1, T, B).astype(int)  # the shortest has one token, the longest none spare
    real = np.arange(T) >= T - lengths[:, None]  # (B, T), on the right
    cache = model.new_cache(B)
    together = _read(model, ids, cache, real)
    found = []
    for row, length in enumerate(lengths):
        alone = _read(model, ids[row : row + 1, T - length :])
        found.append(difference(together[row : row + 1, T - length :], alone))
    if T < model.config.block_size:  # and so does the next token, which has no mask of its own
        following = _read(model, ids[:, :1], cache)
        for row, length in enumerate(lengths):
            text = np.append(ids[row, T - length :], ids[row, 0])[None]
            found.append(difference(following[row, -1], _read(model, text)[0, -1]))
    return largest(found)


def future_is_unseen(subject: Subject) -> float:
    """The gradient of a logit with respect to a later token's vector is exactly zero.

    Every token of the text is another one, so each has a row of the embedding to itself. Where the
    head shares the embedding, a logit's own row has a gradient of another origin: the logit looked
    at is that of the first token.
    """
    model = subject.model
    T = min(_TOKENS, model.config.block_size, model.config.vocab_size)
    if T < 2:
        raise NotApplicable("there is no later token in a context of 1")
    ids = np.random.default_rng(0).permutation(model.config.vocab_size)[:T]
    model.eval()
    logits, weight = model(ids[None]), model.token_embedding.weight
    found = []
    for t in range(T - 1):
        (dweight,) = grad(logits[0, t, int(ids[0])], [weight], retain_graph=True)
        size = np.abs(dweight).max(axis=1)  # (V,)
        found.append(largest(size[ids[t + 1 :]]))
        if not size[ids[t]] > 0:  # no gradient at all would prove nothing
            return float("inf")
    return largest(found)
