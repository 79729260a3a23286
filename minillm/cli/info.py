"""`minillm info`: what this machine, a preset, or a run is."""

from __future__ import annotations

import argparse
import dataclasses
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import minillm
from minillm import backend
from minillm.cli.settings import RECIPES, count
from minillm.errors import InputError, nearest
from minillm.models import registry
from minillm.training.checkpoint import RunFolder, load_run
from minillm.training.metrics import read_metrics
from minillm.training.peak import peak
from minillm.training.progress import summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm info`."""
    parser.add_argument(
        "what",
        nargs="?",
        help="a preset or a run folder; left out: this machine, and what there is",
    )
    parser.add_argument("--batch", type=count, default=1, help="rows, for the memory estimate")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print what is asked for."""
    if arguments.what is None:
        lines = _machine()
    elif arguments.what in registry.PRESETS:
        lines = _model(registry.PRESETS[arguments.what], arguments.batch)
    elif Path(arguments.what).exists():
        lines = _run(Path(arguments.what), arguments.batch)
    else:
        near = nearest(arguments.what, registry.PRESETS)
        raise InputError(f"{arguments.what!r} is neither a run folder nor a preset{near}")
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}".rstrip())


def _machine() -> list[tuple[str, Any]]:
    """Versions, speed, and the names that other commands take."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba"))
    return [
        ("minillm", f"{minillm.__version__}, Python {platform.python_version()}, {packages}"),
        ("backend", f"{backend.name()} on {backend.threads()} threads"),
        ("matrix product", f"{_speed('float32')}, {_speed('bfloat16')}"),
        ("recipes", ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))),
        ("presets", ""),
        *((f"  {name}", _size(config)) for name, config in registry.PRESETS.items()),
    ]


def _speed(precision: str) -> str:
    return f"{peak(precision).flops / 1e9:,.0f} GFLOP/s in {precision}"


def _size(config: registry.Config) -> str:
    return f"{registry.build(config).num_parameters():,} parameters"


def _model(config: registry.Config, batch: int) -> list[tuple[str, Any]]:
    """A configuration and what follows from it."""
    model = registry.build(config)
    memory = model.memory_estimate(batch)
    parts = (f"{name} {size / 2**20:,.0f}" for name, size in dataclasses.asdict(memory).items())
    need = f"{memory.total / 2**20:,.0f} MiB to train on {batch} x {config.block_size} tokens"
    return [
        *registry.config_to_dict(config).items(),
        ("parameters", f"{model.num_parameters():,}"),
        ("FLOP per token", f"{model.flops_per_token():,} in training"),
        ("memory", f"{need} ({', '.join(parts)})"),
    ]


def _run(path: Path, batch: int) -> list[tuple[str, Any]]:
    """A run: its model, its tokenizer, and how far it has come."""
    model, tokenizer, info = load_run(path)
    run: RunFolder = info.run
    lines = read_metrics(run.metrics_file)
    return [
        ("run", run.path),
        *_model(model.config, batch),
        ("tokenizer", tokenizer or "none"),
        ("steps", f"{lines[-1]['step']}: {summary(lines[-1])}" if lines else "unknown"),
        *((c.path.name, _checkpoint(c.validation_loss)) for c in run.checkpoints()),
        ("loaded by default", info.checkpoint.path.name),
    ]


def _checkpoint(loss: float | None) -> str:
    return "not evaluated" if loss is None else f"validation loss {loss:.4f}"
