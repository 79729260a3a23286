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
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from minillm import files, tokenizer
from minillm.data.shards import INDEX
from minillm.errors import CheckpointError, InputError, MiniLLMError
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer
from minillm.training.optimizer import AdamW
from minillm.training.stored import check_arrays, explaining, read_arrays, read_json, write_arrays

STATE = "state.json"
REPLACED = ".replaced.tmp"  # at the end of a checkpoint's name while another takes its place


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint folder."""

    path: Path

    @property
    def step(self) -> int:
        """Updates that had been made: in the folder's name, or for a renamed copy in the state."""
        name = self.path.name.removeprefix("step-")
        return int(name if name.isdigit() else self.state["step"])

    @cached_property
    def state(self) -> dict[str, Any]:
        """The content of `state.json`. Raises `CheckpointError` where that is damaged."""
        path = self.path / STATE
        state = read_json(path)
        loss, step = state.get("validation_loss"), state.get("step")
        numbers = isinstance(loss, float | int | None) and isinstance(step, int)
        if not isinstance(state.get("model"), dict) or not numbers:
            raise CheckpointError(f"{path} is damaged: it does not describe a checkpoint")
        return state

    @property
    def validation_loss(self) -> float | None:
        """Nats per token on the whole validation split at this step, if it was evaluated."""
        return self.state.get("validation_loss")

    def check(self) -> None:
        """Raise `CheckpointError` where a file is missing or cut off; costs little."""
        _ = self.state
        check_arrays(self.path / "model.safetensors")
        if (self.path / "optimizer.safetensors").exists():
            check_arrays(self.path / "optimizer.safetensors")

    def load(self, model: LanguageModel, optimizer: AdamW | None = None) -> None:
        """Fill `model`, and `optimizer` where one is given.

        Raises `CheckpointError` where a file is cut off, or the weights are of another model.
        """
        theirs = registry.config_to_dict(registry.config_from_dict(self.state["model"]))
        ours = registry.config_to_dict(model.config)
        for name, value in ours.items():
            if name != "dropout" and theirs.get(name) != value:
                raise CheckpointError(
                    f"{self.path} is of another architecture: {name} is {theirs.get(name)} in it,"
                    f" and {value} in this model"
                )
        try:
            model.load_state_dict(read_arrays(self.path / "model.safetensors"))
            if optimizer is not None:
                moments = read_arrays(self.path / "optimizer.safetensors")
                optimizer.load_state_dict(moments, self.step)
        except CheckpointError as error:
            if str(self.path) in str(error):
                raise
            raise CheckpointError(f"{self.path} is of another model: {error}") from error


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.tokenizer_file = self.path / "tokenizer.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.data = self.path / "data"
        self.checkpoint_folder = self.path / "checkpoints"
        self._earlier = self.path / ".earlier.tmp"  # what a start before this one had prepared

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config_file.exists()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Make the folder, keep other writers out of it, and sweep up after a killed one.

        After an error of ours, before the first checkpoint, it is as it was: text that cannot be
        used leaves nothing behind, and takes nothing that an earlier start has prepared with it.
        Raises `InputError` where another process holds the folder.
        """
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        empty = bool(missing) or not any(self.path.iterdir())
        self.path.mkdir(parents=True, exist_ok=True)
        with files.locked(self.path):
            self._sweep()
            try:
                yield
            except MiniLLMError:
                trained = any(self.path.glob("**/checkpoints/step-*")) or self.metrics_file.exists()
                if not trained:
                    self._put_back()
                    for inside in self.path.iterdir() if empty else ():
                        files.delete(inside)
                    for folder in missing:
                        folder.rmdir()
                raise
            finally:
                files.delete(self._earlier)

    def _sweep(self) -> None:
        """Remove what a killed writer has left half done; runs inside this one have their own."""
        self._bring_back()
        inside = {config.parent for config in self.path.glob("*/**/config.json")}
        for leftover in sorted(self.path.glob("**/.*.tmp")):
            if not inside & set(leftover.parents):
                files.delete(leftover)

    def _bring_back(self) -> None:
        """Put back checkpoints whose successor never came: the end was between two renamings."""
        for replaced in self.checkpoint_folder.glob(f".*{REPLACED}"):
            place = replaced.with_name(replaced.name[1:].removesuffix(REPLACED))
            if not place.exists():
                os.replace(replaced, place)

    # ------------------------------------------------------------------ settings

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start a run with these settings: {"model": {...}, "train": {...}, ...}.

        What an earlier start that never came to a checkpoint has written is set aside, and is
        forgotten when `writing` ends well. Raises `InputError` where there is a checkpoint.
        """
        if (last := self.last()) is not None:
            raise InputError(f"{self.path} holds a run at step {last.step}; choose another folder")
        if self.exists():
            files.delete(self._earlier)
            self._earlier.mkdir()
            for path in self._prepared():
                path.rename(self._earlier / path.name)
        files.write_text(self.config_file, json.dumps({"version": 1, **settings}, indent=2) + "\n")

    def _prepared(self) -> list[Path]:
        """What a start writes before its first checkpoint, as far as it is there."""
        written = (self.config_file, self.tokenizer_file, self.data, self.metrics_file)
        return [path for path in written if path.exists()]

    def _put_back(self) -> None:
        """Undo `begin`, where it has set something aside."""
        if self._earlier.exists():
            for path in self._prepared():
                files.delete(path)
            for path in self._earlier.iterdir():
                path.rename(self.path / path.name)

    def read_config(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        if not self.exists():
            raise CheckpointError(f"{self.path} is no run folder: it has no config.json")
        config = read_json(self.config_file)
        if config.pop("version", None) != 1:
            raise CheckpointError(
                f"{self.config_file} is of a version that this minillm cannot read"
            )
        for section, table in config.items():
            if not isinstance(table, dict):
                raise CheckpointError(f"{self.config_file} is damaged: {section!r} is no table")
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
        found = (Checkpoint(path) for path in self.checkpoint_folder.glob("step-*"))
        whole = (c for c in found if c.path.name.removeprefix("step-").isdigit())
        return sorted(whole, key=lambda checkpoint: checkpoint.step)

    def last(self) -> Checkpoint | None:
        """The newest checkpoint."""
        return max(self.checkpoints(), key=lambda checkpoint: checkpoint.step, default=None)

    def best(self) -> Checkpoint | None:
        """The checkpoint of the lowest validation loss; None where none was evaluated.

        One whose loss cannot be read counts as not evaluated: `damaged` tells of it.
        """
        losses: list[tuple[float, Checkpoint]] = []
        for checkpoint in self.checkpoints():
            with contextlib.suppress(CheckpointError):
                if checkpoint.validation_loss is not None:
                    losses.append((checkpoint.validation_loss, checkpoint))
        return min(losses, key=lambda pair: pair[0])[1] if losses else None

    def damaged(self) -> list[CheckpointError]:
        """What is wrong with checkpoints of which a file is missing or cut off, oldest first."""
        found = []
        for checkpoint in self.checkpoints():
            try:
                checkpoint.check()
            except CheckpointError as error:
                found.append(error)
        return found

    def save(
        self,
        step: int,
        model: LanguageModel,
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
        arrays = {"model.safetensors": model.state_dict()}
        if optimizer is not None:
            arrays["optimizer.safetensors"] = optimizer.state_dict()
        state = {
            "step": step,
            "validation_loss": validation_loss,
            "model": registry.config_to_dict(model.config),
        }
        size = sum(array.nbytes for content in arrays.values() for array in content.values())
        with explaining(f"the checkpoint of step {step}", size, self.path):
            self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
            files.delete(temporary)
            temporary.mkdir()
            try:
                for name, content in arrays.items():
                    write_arrays(temporary / name, content)
                files.write_text(temporary / STATE, json.dumps(state, indent=2) + "\n")
                replaced = _set_aside(final, REPLACED)
                os.replace(temporary, final)
                files.flush(self.checkpoint_folder)  # the new one is there for good; others may go
                files.delete(replaced)
            except BaseException:
                files.delete(temporary)
                self._bring_back()
                raise
        self._prune(keep)
        return Checkpoint(final)

    def _prune(self, keep: int) -> None:
        kept = {c.path for c in self.checkpoints()[-keep:]}
        best = self.best()
        for checkpoint in self.checkpoints():
            if checkpoint.path not in kept and (best is None or checkpoint.path != best.path):
                files.delete(_set_aside(checkpoint.path, ".old.tmp"))


@dataclass(frozen=True)
class RunInfo:
    """Where a loaded model comes from."""

    run: RunFolder
    checkpoint: Checkpoint


def load_run(
    path: str | os.PathLike[str], which: str = "best"
) -> tuple[LanguageModel, Tokenizer | None, RunInfo]:
    """The model and tokenizer of a run: what every command starts from.

    Args:
        path: a run folder, or one checkpoint folder inside it.
        which: of a run folder, the "best" checkpoint (the last where none was evaluated) or "last".

    Returns (model, tokenizer, info), the model in evaluation mode; the tokenizer is None where the
    run was trained on token shards that came without one. Raises `CheckpointError` where the path
    holds no run, or its files are cut off.
    """
    path = Path(path)
    if not RunFolder(path).exists() and (path.name.startswith("step-") or (path / STATE).exists()):
        path = path.resolve()
        run, checkpoint = RunFolder(path.parent.parent), Checkpoint(path)
    else:
        run = RunFolder(path)
        run.read_config()
        found = _chosen(run, which)
        if found is None:
            raise CheckpointError(f"the run {path} has no checkpoint yet; train it a while longer")
        checkpoint = found
    try:
        config = registry.config_from_dict(checkpoint.state["model"])
        model = registry.build(config, rng=None)
        checkpoint.load(model)
    except CheckpointError:
        if checkpoint.path.exists() or not run.exists():
            raise
        return load_run(path, which)  # whoever trains it has dropped this one for a newer one
    vocabulary = tokenizer.load(run.tokenizer_file) if run.tokenizer_file.exists() else None
    return model.eval(), vocabulary, RunInfo(run, checkpoint)


def _chosen(run: RunFolder, which: str) -> Checkpoint | None:
    """The "best" checkpoint of a run, which takes the losses of all of them, or the last."""
    if which == "last":
        return run.last()
    for checkpoint in run.checkpoints():
        try:
            _ = checkpoint.state
        except CheckpointError as error:
            if not checkpoint.path.exists():
                continue
            hint = "remove that checkpoint, or choose another one or the last"
            raise CheckpointError(f"{error}; {hint}") from error
    return run.best() or run.last()


def _set_aside(checkpoint: Path, suffix: str) -> Path:
    """Hide a checkpoint that is to go, so that a half-deleted one is never taken for whole."""
    doomed = checkpoint.with_name(f".{checkpoint.name}{suffix}")
    files.delete(doomed)
    if checkpoint.exists():
        os.replace(checkpoint, doomed)
    return doomed
