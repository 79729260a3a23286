"""Run folders and checkpoints: what a run leaves on disk, so that no moment can spoil it.

    runs/shakespeare/
      config.json          the settings, as a recipe and flags gave them
      tokenizer.json
      data/                token shards
      metrics.jsonl        one line per step
      checkpoints/
        step-00000250/
          model.safetensors        the weights
          optimizer.safetensors    AdamW's moments
          state.json               step, validation loss, the model's configuration

A checkpoint is written under a hidden temporary name, each file flushed to the disk, and then the
folder is renamed. So a folder called `step-*` is always whole, whatever killed the process; what a
killed process left under a temporary name is swept away by the next one (`RunFolder.writing`).
There are no pointer files that could disagree with the folders: the last checkpoint is the one with
the highest step, the best the one whose `state.json` has the lowest validation loss.

safetensors and JSON hold numbers and text, and nothing that could run; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from minillm import backend, files, tokenizer
from minillm.backend import Array
from minillm.data.shards import INDEX
from minillm.errors import CheckpointError, InputError
from minillm.models import registry
from minillm.nn import Module
from minillm.tokenizer import Tokenizer
from minillm.training.optimizer import AdamW


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint folder."""

    path: Path

    @property
    def step(self) -> int:
        """Updates that had been made."""
        return int(self.path.name.removeprefix("step-"))

    @cached_property
    def state(self) -> dict[str, Any]:
        """The content of `state.json`."""
        return _read_json(self.path / "state.json")

    @property
    def validation_loss(self) -> float | None:
        """Nats per token on the whole validation split at this step, if it was evaluated."""
        return self.state.get("validation_loss")

    def load(self, model: Module, optimizer: AdamW | None = None) -> None:
        """Fill `model`, and `optimizer` where one is given.

        Raises `CheckpointError` where a file is cut off, or the weights are of another model.
        """
        try:
            model.load_state_dict(_read_arrays(self.path / "model.safetensors"))
            if optimizer is not None:
                moments = _read_arrays(self.path / "optimizer.safetensors")
                optimizer.load_state_dict(moments, self.step)
        except CheckpointError as error:
            if str(self.path) in str(error):
                raise
            raise CheckpointError(f"{self.path} is of another architecture: {error}") from error


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.tokenizer_file = self.path / "tokenizer.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.data = self.path / "data"
        self.checkpoint_folder = self.path / "checkpoints"

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config_file.exists()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Make the folder, keep other writers out of it, and sweep up after a killed one.

        Raises `InputError` where another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            for leftover in sorted(self.path.glob("**/.*.tmp")):
                _delete(leftover)
            yield

    # ------------------------------------------------------------------ settings

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start a run with these settings: {"model": {...}, "train": {...}, ...}.

        Tokenizer and data of an earlier start that never came to a checkpoint are forgotten.
        """
        if self.exists():
            _delete(self.data)
            _delete(self.tokenizer_file)
        files.write_text(self.config_file, json.dumps({"version": 1, **settings}, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        if not self.exists():
            raise CheckpointError(f"{self.path} is no run folder: it has no config.json")
        config = _read_json(self.config_file)
        if config.pop("version", None) != 1:
            raise CheckpointError(
                f"{self.config_file} is of a version that this minillm cannot read"
            )
        return config

    def shards(self) -> Path:
        """The folder of token shards that the run trains on: its own, or the one it was given.

        Raises `CheckpointError` where there is none.
        """
        given = self.read_config().get("data", {}).get("path") or self.data
        for folder in (self.data, Path(given)):
            if (folder / INDEX).exists():
                return folder
        raise CheckpointError(f"the run {self.path} has no token shards any more")

    # ------------------------------------------------------------------ checkpoints

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, oldest first."""
        return [Checkpoint(path) for path in sorted(self.checkpoint_folder.glob("step-*"))]

    def last(self) -> Checkpoint | None:
        """The newest checkpoint."""
        return max(self.checkpoints(), key=lambda checkpoint: checkpoint.step, default=None)

    def best(self) -> Checkpoint | None:
        """The checkpoint of the lowest validation loss; None where none was evaluated."""
        evaluated = [c for c in self.checkpoints() if c.validation_loss is not None]
        return min(evaluated, key=lambda checkpoint: checkpoint.validation_loss, default=None)

    def save(
        self,
        step: int,
        model: Module,
        optimizer: AdamW | None = None,
        validation_loss: float | None = None,
        keep: int = 2,
    ) -> Checkpoint:
        """Write the checkpoint of `step`, then drop all but the best and the last `keep`.

        A checkpoint of this step that is there already is replaced. An error, such as a full disk,
        leaves the folder as it was.
        """
        final = self.checkpoint_folder / f"step-{step:08d}"
        temporary = final.with_name(f".{final.name}.tmp")
        self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        _delete(temporary)
        temporary.mkdir()
        try:
            _write_arrays(temporary / "model.safetensors", model.state_dict())
            if optimizer is not None:
                _write_arrays(temporary / "optimizer.safetensors", optimizer.state_dict())
            state = {
                "step": step,
                "validation_loss": validation_loss,
                "model": registry.config_to_dict(model.config),
            }
            files.write_text(temporary / "state.json", json.dumps(state, indent=2) + "\n")
            replaced = _set_aside(final)
            os.replace(temporary, final)
            _delete(replaced)
        except BaseException:
            _delete(temporary)
            raise
        self._prune(keep)
        return Checkpoint(final)

    def _prune(self, keep: int) -> None:
        kept = {c.path for c in self.checkpoints()[-keep:]}
        best = self.best()
        for checkpoint in self.checkpoints():
            if checkpoint.path not in kept and (best is None or checkpoint.path != best.path):
                _delete(_set_aside(checkpoint.path))


@dataclass(frozen=True)
class RunInfo:
    """Where a loaded model comes from."""

    run: RunFolder
    checkpoint: Checkpoint


def load_run(
    path: str | os.PathLike[str], which: str = "best"
) -> tuple[Module, Tokenizer | None, RunInfo]:
    """The model and tokenizer of a run: what every command starts from.

    Args:
        path: a run folder, or one checkpoint folder inside it.
        which: of a run folder, the "best" checkpoint (the last where none was evaluated) or "last".

    Returns (model, tokenizer, info), the model in evaluation mode; the tokenizer is None where the
    run was trained on token shards that came without one. Raises `CheckpointError` where the path
    holds no run, or its files are cut off.
    """
    path = Path(path)
    if (path / "state.json").exists():
        run, checkpoint = RunFolder(path.resolve().parent.parent), Checkpoint(path)
    else:
        run = RunFolder(path)
        run.read_config()
        checkpoint = (run.best() if which == "best" else None) or run.last()
        if checkpoint is None:
            raise CheckpointError(f"the run {path} has no checkpoint yet; train it a while longer")
    config = registry.config_from_dict(checkpoint.state["model"])
    model = registry.build(config, rng=None)
    checkpoint.load(model)
    vocabulary = tokenizer.load(run.tokenizer_file) if run.tokenizer_file.exists() else None
    return model.eval(), vocabulary, RunInfo(run, checkpoint)


# ---------------------------------------------------------------------------------- files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is cut off or damaged: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object")
    return content


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is cut off or damaged: {error}") from error


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    host = {name: np.ascontiguousarray(backend.to_numpy(a)) for name, a in arrays.items()}
    with files.replacing(path) as temporary:
        try:
            save_file(host, temporary)
        except SafetensorError as error:  # its way of saying that the disk is full
            raise OSError(errno.ENOSPC, f"cannot write ({error})", str(path)) from error


def _set_aside(checkpoint: Path) -> Path:
    """Hide a checkpoint that is to go, so that a half-deleted one is never taken for whole."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    _delete(doomed)
    if checkpoint.exists():
        os.replace(checkpoint, doomed)
    return doomed


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    try:
        import fcntl  # not on Windows, where two runs in one folder are the user's to avoid
    except ImportError:
        yield
        return
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another process is training in {folder}; wait for it") from error
        yield
