"""`minillm train`: a recipe, the flags that override it, and a run folder that comes out."""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from minillm.cli import settings
from minillm.cli.ahead import compiled_ahead
from minillm.cli.plan import SECTIONS, Plan, check_learns_text, differences, of_recipe, of_run
from minillm.data.batches import Batches, BatchSource, PackedBatches
from minillm.errors import InputError
from minillm.inference.generate import generate
from minillm.lens.profile import ceilings
from minillm.lens.training import profile_steps
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer
from minillm.training.checkpoint import RunFolder
from minillm.training.config import TrainConfig
from minillm.training.loop import Result, train
from minillm.training.metrics import token_lengths
from minillm.training.prepare import prepare, start_of_text
from minillm.training.progress import duration, reporter

RUNS = Path("runs")
INDENT = " " * 37  # of an explanation in the help text


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
        help="go on with a run that was stopped, or start where there is none; flags then hold\n"
        "for this call alone, and may change all of --train.* but batch size and seed",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="do not train: show where the time and memory of a few steps go,\n"
        "and leave trace.json in the run folder, for ui.perfetto.dev",
    )
    models = {f"model ({name})": kind for name, (kind, _) in registry.ARCHITECTURES.items()}
    sections = {**SECTIONS, **models}
    flags = [*settings.flags(sections), "--model.architecture", "--model.preset"]
    parser.set_defaults(run=run, takes_settings=flags)
    parser.epilog = (
        "settings, in a recipe (section, key = value) or as flags:\n\n"
        f"{settings.describe(sections)}\n\n"
        "model, first of all:\n"
        f"  --model.architecture               {' or '.join(registry.ARCHITECTURES)}\n"
        "  --model.preset                     one of these, for all that is not set:\n"
        f"{textwrap.indent(textwrap.fill(', '.join(registry.PRESETS), 60), INDENT)}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on training; the exit status."""
    folder, plan, resumed = _find(arguments)
    started = time.monotonic()
    with (
        folder.writing(),
        reporter() as report,
        compiled_ahead(plan.model, plan.train, report.compiling) as kernels,
    ):
        if not resumed:
            folder.begin(plan.to_dict())
        ready = prepare(folder, plan.data, plan.tokenizer, report.say)
        kernels.wait()
        config = plan.model_for(ready.train.vocab_size)
        served = PackedBatches if plan.data.packing else Batches
        batches = served(ready.train, plan.train.batch_size, config.block_size, plan.train.seed)
        model = registry.build(config, np.random.default_rng(plan.train.seed))
        model.recompute = plan.train.recompute  # which the estimate looks at
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
            lengths=token_lengths(ready.tokenizer),
            report=report,
            sample=_sampler(model, ready.tokenizer, plan.train.sample_tokens),
        )
    again = arguments.overrides if resumed else {}  # a new run has them in its config.json
    return _conclude(result, plan.train, folder, again, time.monotonic() - started)


# ---------------------------------------------------------------------------------- what is meant


def _find(arguments: argparse.Namespace) -> tuple[RunFolder, Plan, bool]:
    """The run folder that is meant, its plan, and whether its run goes on."""
    flags, given = arguments.overrides, RunFolder(arguments.recipe)
    if given.exists():  # a run folder instead of a recipe
        check_learns_text(given)
        if arguments.out is not None:
            raise InputError(f"{given.path} is a run; --out goes with a recipe")
        if not arguments.resume:
            raise InputError(f"{given.path} is a run{_reached(given)}; --resume goes on with it")
        return given, of_run(given, flags), True
    path = _recipe(arguments)
    folder, recipe = RunFolder(arguments.out or RUNS / path.stem), of_recipe(path)
    if arguments.resume and folder.exists():
        check_learns_text(folder)
        if differ := differences(recipe, folder, flags):
            print(f"{folder.path} goes on with its own settings, not those of {path}: {differ}")
        return folder, of_run(folder, flags), True
    _check_free(folder)
    plan = Plan.read(recipe | flags)
    _check_apart(plan, folder)
    return folder, plan, False


def _recipe(arguments: argparse.Namespace) -> Path:
    """The recipe that is meant; the error says what a run folder or a text would need."""
    path = Path(arguments.recipe)
    if path.is_dir():
        raise InputError(
            f"{path} is a folder without a run (no config.json); to train on text in it,"
            f" `minillm train tiny --data.path {path}`"
        )
    if path.is_file() and path.suffix != ".toml":
        raise InputError(
            f"{path} is no recipe, whose name would end in .toml; to train on it,"
            f" `minillm train tiny --data.path {path}`"
        )
    try:
        return settings.find_recipe(arguments.recipe)
    except InputError as error:
        if arguments.resume:
            raise InputError(f"there is no run folder {path}, and {error}") from None
        raise


def _reached(folder: RunFolder) -> str:
    last = folder.last()
    return f" at step {last.step}" if last else ""


def _check_free(folder: RunFolder) -> None:
    """See that a new run can begin in `folder`: nothing there, or a run that never got going."""
    if folder.exists() and folder.last() is not None:
        raise InputError(
            f"{folder.path} holds a run{_reached(folder)};"
            " --resume goes on with it, --out chooses another folder"
        )
    there = folder.path.iterdir() if folder.path.exists() else ()
    if not folder.exists() and any(not path.name.startswith(".") for path in there):
        raise InputError(f"{folder.path} is not empty and holds no run; choose another with --out")


def _check_apart(plan: Plan, folder: RunFolder) -> None:
    """See that a new run does not replace what it is to be made from."""
    for path in filter(None, (plan.data.path, plan.tokenizer.path)):
        if folder.exists() and Path(path).resolve().is_relative_to(folder.path.resolve()):
            raise InputError(
                f"{path} is of the run {folder.path}, which a new one would replace; choose another"
                " folder with --out"
            )


# ---------------------------------------------------------------------------------- what is shown


def _about(model: LanguageModel, config: TrainConfig, folder: RunFolder) -> str:
    tokens = config.batch_size * model.config.block_size
    rows = config.micro_batch_size or config.batch_size
    memory = model.memory_estimate(rows, activations=config.activations).total
    return (
        f"{type(model).__name__} of {model.num_parameters():,} parameters, {tokens:,} tokens per"
        f" step, about {memory / 2**20:,.0f} MiB; run folder {folder.path}"
    )


def _show_profile(
    model: LanguageModel,
    batches: BatchSource,
    config: TrainConfig,
    trace: Path,
    say: Callable[[str], None],
) -> None:
    """Measure a few steps, and this machine; print both tables and write the trace."""
    steps = 5
    time, memory = profile_steps(model, batches, config, steps)
    machine = ceilings(config.precision)
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
    start, marks = start_of_text(tokenizer), list(tokenizer.special_tokens.values())

    def sample(step: int) -> str:
        ids = generate(model, [[start]], length, seed=step, stop_ids=marks)[0]
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
