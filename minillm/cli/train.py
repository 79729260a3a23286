"""`minillm train`: a recipe, the flags that override it, and a run folder that comes out."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minillm.cli import settings
from minillm.data.batches import Batches
from minillm.errors import InputError
from minillm.inference.generate import generate
from minillm.lens.profile import ceilings
from minillm.lens.training import profile_steps
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer
from minillm.training.checkpoint import RunFolder
from minillm.training.config import DataConfig, TokenizerConfig, TrainConfig
from minillm.training.loop import Result, train
from minillm.training.metrics import token_lengths
from minillm.training.prepare import END_OF_TEXT, prepare
from minillm.training.progress import duration, reporter

RUNS = Path("runs")
INDENT = " " * 37  # of an explanation in the help text
SECTIONS = {"data": DataConfig, "tokenizer": TokenizerConfig, "train": TrainConfig}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm train`."""
    shipped = ", ".join(sorted(path.stem for path in settings.RECIPES.glob("*.toml")))
    parser.add_argument(
        "recipe",
        help=f"a TOML file, a recipe that ships with minillm ({shipped}),\n"
        "or, with --resume, a run folder",
    )
    parser.add_argument("--out", type=Path, help="the run folder (default: runs/RECIPE)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run that was stopped;\nflags then hold for this call alone",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="do not train: show where the time and memory of a few steps go,\n"
        "and leave trace.json in the run folder, for ui.perfetto.dev",
    )
    parser.set_defaults(run=run, takes_settings=True)
    models = {f"model ({name})": kind for name, (kind, _) in registry.ARCHITECTURES.items()}
    parser.epilog = (
        "settings, in a recipe (section, key = value) or as flags:\n\n"
        f"{settings.describe({**SECTIONS, **models})}\n\n"
        "model, first of all:\n"
        f"  --model.architecture               {' or '.join(registry.ARCHITECTURES)}\n"
        "  --model.preset                     one of these, for all that is not set:\n"
        f"{textwrap.indent(textwrap.fill(', '.join(registry.PRESETS), 60), INDENT)}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on training; the exit status."""
    folder, values, resumed = _find(arguments)
    plan = Plan.read(values)
    started = time.monotonic()
    with folder.writing(), reporter() as report:
        if not resumed:
            folder.begin(plan.to_dict())
        ready = prepare(folder, plan.data, plan.tokenizer, report.say)
        config = plan.model_for(ready.train.vocab_size)
        batches = Batches(ready.train, plan.train.batch_size, config.block_size, plan.train.seed)
        model = registry.build(config, np.random.default_rng(plan.train.seed))
        model.recompute = plan.train.recompute
        report.say(_about(model, plan.train, folder))
        if arguments.profile:
            _show_profile(model, batches, plan.train, folder.path / "trace.json", report.say)
            return 0
        result = train(
            model,
            batches,
            plan.train,
            run=folder,
            validation=ready.validation,
            lengths=None if ready.tokenizer is None else token_lengths(ready.tokenizer),
            report=report,
            sample=_sampler(model, ready.tokenizer, plan.train.sample_tokens),
        )
    again = arguments.overrides if resumed else {}  # a new run has them in its config.json
    return _conclude(result, plan.train, folder, again, time.monotonic() - started)


# ---------------------------------------------------------------------------------- settings


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
        name = values.pop("model.preset", None)
        base = registry.config_to_dict(registry.preset(str(name))) if name is not None else {}
        architecture = str(values.pop("model.architecture", base.pop("architecture", "gpt")))
        if architecture not in registry.ARCHITECTURES:
            near = settings.nearest(architecture, registry.ARCHITECTURES)
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
        if self.data.path:
            sections["data"]["path"] = str(Path(self.data.path).resolve())
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


def _find(arguments: argparse.Namespace) -> tuple[RunFolder, dict[str, Any], bool]:
    """The run folder that is meant, the settings of its run, and whether it goes on."""
    given = RunFolder(arguments.recipe)
    if given.exists():  # a run folder instead of a recipe
        if arguments.out is not None:
            raise InputError(f"{given.path} is a run; --out goes with a recipe")
        folder, recipe = given, {}
    else:
        path = settings.find_recipe(arguments.recipe)
        folder, recipe = RunFolder(arguments.out or RUNS / path.stem), settings.read_recipe(path)
    resumed = arguments.resume and folder.exists()
    if resumed:
        recipe = settings.flatten(folder.read_config())
    else:
        _check_free(folder)
    return folder, recipe | arguments.overrides, resumed


def _check_free(folder: RunFolder) -> None:
    """See that a new run can begin in `folder`: nothing there, or a run that never got going."""
    if folder.exists() and folder.last() is not None:
        raise InputError(
            f"{folder.path} holds a run at step {folder.last().step};"
            " --resume goes on with it, --out chooses another folder"
        )
    there = folder.path.iterdir() if folder.path.exists() else ()
    if not folder.exists() and any(not path.name.startswith(".") for path in there):
        raise InputError(f"{folder.path} is not empty and holds no run; choose another with --out")


# ---------------------------------------------------------------------------------- what is shown


def _about(model: LanguageModel, config: TrainConfig, folder: RunFolder) -> str:
    tokens = config.batch_size * model.config.block_size
    memory = model.memory_estimate(config.micro_batch_size or config.batch_size).total
    return (
        f"{type(model).__name__} of {model.num_parameters():,} parameters, {tokens:,} tokens per"
        f" step, about {memory / 2**20:,.0f} MiB; run folder {folder.path}"
    )


def _show_profile(
    model: LanguageModel,
    batches: Batches,
    config: TrainConfig,
    trace: Path,
    say: Callable[[str], None],
) -> None:
    """Measure a few steps, and this machine; print both tables and write the trace."""
    steps = 5
    time, memory = profile_steps(model, batches, config, steps)
    machine = ceilings()
    say(f"\ntime of {steps} steps; in brackets, shares of {machine}\n{time.table(machine)}")
    say(f"\nmemory of one step\n{memory.table()}")
    time.write_trace(trace)
    say(f"\nevery call, in order: {trace} (open it in ui.perfetto.dev or chrome://tracing)")


def _sampler(
    model: LanguageModel, tokenizer: Tokenizer | None, length: int
) -> Callable[[int], str] | None:
    """A function that lets the model write, the same for the same step."""
    if tokenizer is None or length == 0:
        return None
    start = tokenizer.special_tokens.get(END_OF_TEXT, 0)

    def sample(step: int) -> str:
        ids = generate(model, [[start]], length, seed=step, stop_ids=[start])[0]
        return tokenizer.decode([token for token in ids if token < tokenizer.vocab_size])

    return sample


def _conclude(
    result: Result,
    config: TrainConfig,
    folder: RunFolder,
    overrides: Mapping[str, str],
    seconds: float,
) -> int:
    """Say how the run ended; 130, as for other programs, where Ctrl-C ended it."""
    if result.stopped:
        flags = "".join(f" --{name.replace('_', '-')} {text}" for name, text in overrides.items())
        print(
            f"stopped after step {result.step} of {config.steps}; all is saved;"
            f" `minillm train {folder.path} --resume{flags}` goes on"
        )
        return 130
    best = folder.best()
    note = f"; best validation loss {best.validation_loss:.4f} at step {best.step}" if best else ""
    print(f"step {result.step} reached in {duration(seconds)}{note}; the run is in {folder.path}")
    return 0
