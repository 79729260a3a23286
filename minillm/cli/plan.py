"""The plan of a run: all its settings, from a recipe and flags, or from a run that goes on.

A run that goes on keeps what its checkpoints and the order of its data follow from: the settings of
data, tokenizer and model, `train.batch_size` and `train.seed`. Everything else in `train.*` may
change from one call to the next: more steps, another learning rate, how often to evaluate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillm.cli import settings
from minillm.errors import InputError, nearest
from minillm.models import registry
from minillm.training.checkpoint import RunFolder
from minillm.training.config import DataConfig, TokenizerConfig, TrainConfig

SECTIONS = {"data": DataConfig, "tokenizer": TokenizerConfig, "train": TrainConfig}
OTHERS = ("sft",)  # sections of a recipe that are for later stages
FINE_TUNING = {"run": {"stage": "sft"}}  # in the config.json of a run that learns conversations
KEPT = ("data", "tokenizer", "model", "train.batch_size", "train.seed")  # while a run goes on


@dataclass(frozen=True)
class Plan:
    """All settings of a run. `vocab_size` is None where the tokenizer decides it."""

    data: DataConfig
    tokenizer: TokenizerConfig
    train: TrainConfig
    model: registry.Config
    vocab_size: int | None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Plan:
        """The plan in a recipe's and flags' settings; raises `InputError` for one that is wrong."""
        values = dict(values)
        name = settings.convert(str | None, values.pop("model.preset", None), "model.preset")
        base = registry.config_to_dict(registry.preset(name)) if name is not None else {}
        usual = base.pop("architecture", "gpt")
        architecture = settings.convert(
            str, values.pop("model.architecture", usual), "model.architecture"
        )
        if architecture not in registry.ARCHITECTURES:
            near = nearest(architecture, registry.ARCHITECTURES)
            raise InputError(f"no model.architecture is called {architecture!r}{near}")
        base["vocab_size"] = 1  # until the tokenizer is known
        values = settings.flatten({"model": base}) | values
        kinds = {**SECTIONS, "model": registry.ARCHITECTURES[architecture][0]}
        made = settings.build(kinds, values)
        given = made["model"].vocab_size
        return cls(**made, vocab_size=None if given == 1 else given)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The plan in sections, as `config.json` keeps it; `read` understands them."""
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS}
        for section in ("data", "tokenizer"):
            if sections[section]["path"]:
                sections[section]["path"] = str(Path(sections[section]["path"]).resolve())
        model = registry.config_to_dict(self.model)
        if self.vocab_size is None:
            del model["vocab_size"]
        return {**sections, "model": model}

    def model_for(self, vocab_size: int) -> registry.Config:
        """The model's configuration for a tokenizer of `vocab_size` ids."""
        if self.vocab_size is not None and self.vocab_size < vocab_size:
            raise InputError(
                f"model.vocab_size is {self.vocab_size}, but the tokenizer has {vocab_size} ids;"
                " leave it out, or make it larger"
            )
        return dataclasses.replace(self.model, vocab_size=self.vocab_size or vocab_size)


def of_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe that training needs; those of later stages are left out."""
    values = settings.read_recipe(path)
    return {name: values[name] for name in values if name.partition(".")[0] not in OTHERS}


def check_learns_text(folder: RunFolder) -> None:
    """Raise `InputError` for a run that learns conversations; `minillm train` reads plain text."""
    if folder.read_config().get("run") == FINE_TUNING["run"]:
        raise InputError(
            f"{folder.path} learns from conversations, which `minillm train` does not read; the"
            " same `minillm quickstart` goes on with it, and `minillm train"
            f" {folder.path / 'pretrained'} --resume` with the model before"
        )


def of_run(folder: RunFolder, flags: Mapping[str, Any]) -> Plan:
    """The plan of a run that goes on: as it was started, with the flags' changes.

    Raises `InputError` where a flag changes what a run keeps.
    """
    stored = settings.flatten(folder.read_config())
    started = settings.flatten(Plan.read(stored).to_dict())
    flags = dict(flags)
    name = "model.architecture"
    if name in flags:
        wanted = settings.convert(str, flags.pop(name), name)
        if wanted != started[name]:
            raise _kept(folder, name, started[name], wanted)
    if "model.preset" in flags:  # stands for a whole model, to be compared with the one that is
        stored = {name: stored[name] for name in stored if not name.startswith("model.")}
    plan = Plan.read(stored | flags)
    for name, wanted in settings.flatten(plan.to_dict()).items():
        if name.startswith(KEPT) and wanted != started.get(name, wanted):
            raise _kept(folder, name, started[name], wanted)
    return plan


def _kept(folder: RunFolder, name: str, started: Any, wanted: Any) -> InputError:
    advice = "start another run, with --out and without --resume"
    if name == "data.path":
        advice += f"; where the same data has moved, change its path in {folder.config_file}"
    return InputError(
        f"the run {folder.path} has {name} = {started}, not {wanted}: a run that goes on keeps its"
        f" data, tokenizer, model, batch size and seed; leave that out, or {advice}"
    )


def differences(recipe: Mapping[str, Any], folder: RunFolder, flags: Mapping[str, Any]) -> str:
    """Where a recipe says something else than the run that was started from it; "" if nowhere."""
    started = settings.flatten(Plan.read(settings.flatten(folder.read_config())).to_dict())
    found = []
    for name, value in recipe.items():
        if name.endswith(".path") and value:
            value = str(Path(value).resolve())
        if name != "model.preset" and name not in flags and started.get(name) != value:
            found.append(f"{name} = {started.get(name, 'nothing')}, not {value}")
    return ", ".join(found)
