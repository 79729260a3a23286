"""How surprised a model is by text that it was not trained on: loss, perplexity, bits per byte.

The text is cut into windows of `block_size` tokens that do not overlap, and every token but the
first is predicted once from those before it in its window (`training/metrics.py`). Nothing is
sampled and nothing left out, so the same checkpoint always has the same score. It is an upper
bound: tokens at a window's start are predicted from little.
"""

from __future__ import annotations

import numpy as np

from minillm.data.shards import TokenDataset
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer
from minillm.training.checkpoint import RunFolder
from minillm.training.metrics import TextLoss, Tokens, split_losses, token_lengths, total


def of_split(
    model: LanguageModel, tokenizer: Tokenizer | None, run: RunFolder, split: str = "validation"
) -> TextLoss:
    """The loss on a whole split of the data that a run was trained on.

    Raises `InputError` where there is no such split, `CheckpointError` where its shards are gone.
    """
    return _of_tokens(model, tokenizer, TokenDataset(run.shards(), split))


def of_text(model: LanguageModel, tokenizer: Tokenizer, text: str) -> TextLoss:
    """The loss on a text; of no tokens where the text has fewer than two."""
    return _of_tokens(model, tokenizer, _Text(tokenizer.encode_array(text)))


def _of_tokens(model: LanguageModel, tokenizer: Tokenizer | None, tokens: Tokens) -> TextLoss:
    block_size = model.config.block_size
    return total(split_losses(model, tokens, block_size, token_lengths(tokenizer)))


class _Text:
    """Tokens in memory."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.ids[start:stop]
