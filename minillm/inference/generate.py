"""Writing text: the model's last word becomes its next input.

    prefill    read the prompts in one pass, left-padded to one length, and fill the cache
    sample     choose a token from the logits at the last position
    decode     read that one token, with everything before it in the cache

Each prompt is a row with a random generator of its own, so what is written for it does not depend
on what else is in the batch. A row that ends leaves the batch.

A text may grow past the model's `block_size`. A row whose context is full goes on with the newest
half of it: those tokens are read again as if they were the beginning, and the rest is forgotten.
(Dropping one token at a time would mean a full pass for each new token, because every position
changes.) A prompt longer than `block_size` is an error: cutting it is for the caller to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minillm import backend
from minillm.autograd import no_grad
from minillm.errors import InputError
from minillm.inference.sampling import SamplingConfig, sample
from minillm.inference.stopping import TextOut
from minillm.models.base import LanguageModel
from minillm.models.kv_cache import KVCache
from minillm.tokenizer import Tokenizer

Seed = int | Sequence[int] | np.random.Generator


@dataclass(frozen=True)
class Token:
    """One token of one row, as `stream` yields it.

    `text` is what may be shown now: whole characters, and nothing that could be the beginning of a
    stop string. `reason` stands on a row's last token: "stop" or "length".
    """

    row: int
    id: int
    text: str
    reason: str | None


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: SamplingConfig | None = None,
    seed: Seed = 0,
    *,
    stop_ids: Sequence[int] = (),
    stop: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
) -> list[list[int]]:
    """The new ids of each prompt, without the stop id that ended it.

    Arguments and errors are those of `stream`. Where a stop string ended a row, the ids go up to
    the token that completed the string.
    """
    written: list[list[int]] = [[] for _ in prompts]
    steps = stream(model, prompts, max_tokens, sampling, seed,
                   stop_ids=stop_ids, stop=stop, tokenizer=tokenizer)  # fmt: skip
    for token in steps:
        if token.id not in stop_ids:
            written[token.row].append(token.id)
    return written


def stream(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: SamplingConfig | None = None,
    seed: Seed = 0,
    *,
    stop_ids: Sequence[int] = (),
    stop: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
) -> Iterator[Token]:
    """Write up to `max_tokens` tokens after each prompt, and yield each token as it is made.

    Args:
        model: any language model; dropout is off while it reads, and as it was in between.
        prompts: token ids of each row, at least one and at most `block_size`.
        sampling: how to choose; by default from the model's own distribution.
        seed: one for the run, of which each row takes its number as well; or one for each row,
            which then writes the same alone as in any batch; or a generator to draw those from.
        stop_ids: ids that end a row (end of text, end of turn).
        stop: strings that end a row, where its new text first contains one; needs `tokenizer`.
        tokenizer: makes the `text` of each token; it stays empty without one.

    Raises `InputError` for prompts that are empty, too long or out of range, and for logits with
    NaN in them.
    """
    if not isinstance(max_tokens, (int, np.integer)) or max_tokens < 0:
        raise InputError(f"max_tokens={max_tokens}; it takes a whole number from 0 on")
    if stop and tokenizer is None:
        raise InputError("stop strings need the tokenizer, to see the text")
    for number, prompt in enumerate(prompts):
        _check_prompt(number, prompt, model.config.block_size, model.config.vocab_size)
    seeds = _row_seeds(seed, len(prompts))
    rows = [
        _Row(number, prompt, np.random.default_rng(own), TextOut(tokenizer, stop))
        for number, (prompt, own) in enumerate(zip(prompts, seeds, strict=True))
    ]
    if not rows or max_tokens == 0:
        return iter(())
    return _write(model, rows, max_tokens, sampling or SamplingConfig(), frozenset(stop_ids))


def prefill(
    model: LanguageModel, prompts: Sequence[Sequence[int]], capacity: int | None = None
) -> tuple[KVCache, np.ndarray]:
    """Read the prompts into a new cache; it, and the logits (B, V) of what comes after each."""
    width = max(map(len, prompts))
    ids = np.zeros((len(prompts), width), dtype=np.int64)
    real = np.zeros(ids.shape, dtype=bool)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        real[row, width - len(prompt) :] = True
    cache = model.new_cache(len(prompts), capacity)
    return cache, _next_logits(model, ids, cache, real)


def decode(model: LanguageModel, ids: Sequence[int], cache: KVCache) -> np.ndarray:
    """Read one more token for each row of the cache; the logits (B, V) of what comes after it."""
    return _next_logits(model, np.array(ids)[:, None], cache)


def _check_prompt(number: int, prompt: Sequence[int], block_size: int, vocab_size: int) -> None:
    """Raise `InputError` for a prompt that the model cannot read."""
    if len(prompt) == 0:
        raise InputError(f"prompt {number} is empty; give at least one token")
    if len(prompt) > block_size:
        raise InputError(
            f"prompt {number} has {len(prompt)} tokens, but block_size is {block_size}; shorten it"
        )
    if odd := [token for token in prompt if not isinstance(token, (int, np.integer))]:
        raise InputError(f"prompt {number} has {odd[0]!r} in it; token ids are whole numbers")
    if wrong := [token for token in prompt if not 0 <= token < vocab_size]:
        raise InputError(
            f"prompt {number} has the token id {wrong[0]}, but vocab_size is {vocab_size}"
        )


def _next_logits(
    model: LanguageModel, ids: np.ndarray, cache: KVCache, real: np.ndarray | None = None
) -> np.ndarray:
    with model.evaluating(), no_grad():
        hidden = model.hidden(ids, cache, real)  # (B, T, C)
        return backend.to_numpy(model.logits(hidden[:, -1]).array)  # (B, V)


def _write(
    model: LanguageModel,
    rows: list[_Row],
    max_tokens: int,
    sampling: SamplingConfig,
    stop_ids: frozenset[int],
) -> Iterator[Token]:
    """The loop: sample for every row, drop the rows that ended, read what was sampled."""
    block_size = model.config.block_size
    longest = max(len(row.tokens) for row in rows)
    capacity = min(block_size, longest + max_tokens)
    cache, logits = prefill(model, [row.tokens for row in rows], capacity)
    while rows:
        going = []
        for position, row in enumerate(rows):
            token = row.take(logits[position], sampling, max_tokens, stop_ids)
            if token.reason is None:
                going.append(position)
            yield token
        if len(going) < len(rows):
            rows = [rows[position] for position in going]
            cache.keep_rows(going)
        if rows and cache.length == cache.capacity:
            contexts = [row.context(block_size) for row in rows]
            cache, logits = prefill(model, contexts, capacity)
        elif rows:
            logits = decode(model, [row.tokens[-1] for row in rows], cache)


class _Row:
    """One prompt and what has been written after it."""

    def __init__(
        self, number: int, prompt: Sequence[int], rng: np.random.Generator, out: TextOut
    ) -> None:
        self.number, self.rng, self.out = number, rng, out
        self.tokens = [int(token) for token in prompt]
        self.prompt_length = len(prompt)
        self.start = 0  # of the tokens that the model still sees

    def take(
        self,
        logits: np.ndarray,
        sampling: SamplingConfig,
        max_tokens: int,
        stop_ids: frozenset[int],
    ) -> Token:
        """Choose the next token, keep it, and say whether it is the last."""
        token = sample(logits, sampling, self.rng, self.tokens)
        self.tokens.append(token)
        text, stopped = ("", True) if token in stop_ids else self.out.push(token)
        full = len(self.tokens) - self.prompt_length == max_tokens
        reason = "stop" if stopped else "length" if full else None
        if reason is not None:
            text += self.out.finish()
        return Token(self.number, token, text, reason)

    def context(self, block_size: int) -> list[int]:
        """The tokens to read again: all that the row sees, or the newest half once it is full."""
        if len(self.tokens) - self.start > block_size:
            self.start = len(self.tokens) - max(1, block_size // 2)
        return self.tokens[self.start :]


def _row_seeds(seed: Seed, count: int) -> list[tuple[int, int]]:
    """What each row's generator is made from."""
    if isinstance(seed, np.random.Generator):
        pairs = [(int(own), 0) for own in seed.integers(0, 2**63, size=count)]
    elif isinstance(seed, (int, np.integer)):
        pairs = [(int(seed), number) for number in range(count)]
    elif len(seed) == count:
        pairs = [(int(own), 0) for own in seed]
    else:
        raise InputError(f"{len(seed)} seeds for {count} prompts; give one for each")
    if negative := [own for own, _ in pairs if own < 0]:
        raise InputError(f"seed {negative[0]}; it takes a whole number from 0 on")
    return pairs
