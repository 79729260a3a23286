"""`minillm gradcheck`: a whole model's gradients against finite differences."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from minillm.autograd.gradcheck import gradcheck
from minillm.cli.settings import count
from minillm.errors import InputError, nearest
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.training.checkpoint import load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm gradcheck`."""
    parser.add_argument(
        "what", nargs="*", default=["gpt-tiny", "llama-tiny"],
        help="presets or run folders (default: gpt-tiny llama-tiny)",
    )  # fmt: skip
    parser.add_argument("--rows", type=count, default=2, help="sequences in the batch")
    parser.add_argument("--length", type=count, default=8, help="tokens in each")
    parser.add_argument("--dropout", type=float, default=0.0, help="dropout during the check")
    parser.add_argument("--seed", type=int, default=0, help="of the batch and the directions")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check each model; a wrong gradient ends the command with its name and both numbers."""
    for what in arguments.what:
        rng = np.random.default_rng(arguments.seed)
        model = _model(what, arguments.dropout, rng).train()
        shape = (arguments.rows, min(arguments.length, model.config.block_size))
        batch = [rng.integers(0, model.config.vocab_size, shape) for _ in ("ids", "targets")]
        worst = gradcheck(model, batch, rng=rng)
        arrays = sum(1 for _ in model.parameters())
        print(
            f"{what}: gradients of {arrays} arrays ({model.num_parameters():,} parameters) agree"
            f" with central differences to {worst:.1e} of their length"
        )


def _model(what: str, dropout: float, rng: np.random.Generator) -> LanguageModel:
    if what in registry.PRESETS:
        return registry.build(registry.preset(what, dropout=dropout), rng)
    if not Path(what).exists():
        near = nearest(what, registry.PRESETS)
        raise InputError(f"{what!r} is neither a run folder nor a preset{near}")
    trained, _, _ = load_run(what)
    model = registry.build(dataclasses.replace(trained.config, dropout=dropout), rng)
    model.load_state_dict(trained.state_dict())
    return model
