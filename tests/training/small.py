"""A model that trains in milliseconds, and data for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minillm.data.batches import Batches
from minillm.data.shards import TokenDataset, write_tokens
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.training.checkpoint import RunFolder
from minillm.training.config import TrainConfig
from minillm.training.loop import Result, train

VOCAB, BLOCK = 32, 16
CONFIG = registry.GPTConfig(VOCAB, BLOCK, n_layer=2, n_head=2, d_model=16, dropout=0.1)
SETTINGS = {"batch_size": 3, "warmup": 2, "lr": 1e-2, "eval_every": 4, "save_every": 3}


def model(seed: int = 0, config: registry.Config = CONFIG) -> LanguageModel:
    return registry.build(config, np.random.default_rng(seed))


def shards(folder: Path) -> Path:
    """A learnable text of two splits."""
    rng = np.random.default_rng(0)
    text = (np.arange(700) * 3 + rng.integers(0, 2, 700)) % VOCAB
    write_tokens(folder, "train", text[:600], VOCAB)
    write_tokens(folder, "validation", text[600:], VOCAB)
    return folder


def run(
    folder: Path, data: Path, steps: int, trained: LanguageModel | None = None, **changes: object
) -> tuple[LanguageModel, Result]:
    """Train in `folder` until `steps`, going on from what is there."""
    trained = trained or model()
    place = RunFolder(folder)
    config = TrainConfig(steps=steps, **{**SETTINGS, "schedule": "constant", **changes})
    batches = Batches(TokenDataset(data, "train"), config.batch_size, BLOCK, config.seed)
    with place.writing():
        if not place.exists():
            place.begin({"data": {"path": str(data)}})
        result = train(
            trained, batches, config, run=place, validation=TokenDataset(data, "validation")
        )
    return trained, result


def bits(trained: LanguageModel) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in trained.state_dict().items()}
