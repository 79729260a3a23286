"""`minillm quickstart`: from raw text to a model that answers, in a few minutes on two cores.

The stages are functions in `stages.py`, called here one after the other. Each reads what the one
before it left in the run folder, and what is there is not made again: a run that was stopped goes
on where it was, and ends with the same bits.

    collect      raw/, questions.jsonl    Python's documentation, or files of the user's
    clean        corpus/, text/           the same through the data pipeline, which shows its table
    prepare      tokenizer.json, data/    a vocabulary, and the text in its tokens
    pretrain     checkpoints/             a model that continues text
    evaluate     (printed)                loss, perplexity and bits per byte on held-out text
    write        (printed)                samples
    teach        checkpoints/             the same model, fine-tuned on questions and answers
    examine      (printed)                how many questions it answers as it should

Where there are questions to teach, the run folder holds the model that answers, and `pretrained/`
inside it the run before. Both are run folders that other commands accept, but `minillm train` goes
on with `pretrained/` alone.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minillm.cli import settings, stages
from minillm.cli.ahead import compiled_ahead
from minillm.cli.plan import SECTIONS, Plan
from minillm.errors import InputError, counted
from minillm.models import registry
from minillm.training.checkpoint import RunFolder
from minillm.training.config import TrainConfig
from minillm.training.progress import duration, reporter

RECIPE = "quickstart"
UNUSED = {  # flags of settings that would change nothing here
    "--data.path": "it takes text without a flag, as in `minillm quickstart my_notes`",
    "--data.packing": "it trains on windows; `minillm train` packs the documents of token shards",
    "--train.sample-tokens": "it writes samples only after the training",
    "--sft.sample-tokens": "it asks its questions only after the lessons",
    "--sft.eval-every": "it holds no lessons back to evaluate the model on",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm quickstart`."""
    parser.add_argument(
        "text", nargs="*", type=Path, help="files or folders of text instead of the documentation"
    )
    parser.add_argument(
        "--questions",
        type=Path,
        help='what to teach after your text: JSON lines with "question" and "answer"',
    )
    parser.add_argument("--out", type=Path, help="the run folder (default: runs/quickstart)")
    kinds = {**SECTIONS, "model (llama)": registry.ARCHITECTURES["llama"][0]}
    flags = settings.flags({**kinds, "sft": TrainConfig}, without=UNUSED)
    parser.set_defaults(run=run, takes_settings=flags)
    parser.epilog = (
        "settings, as flags (--sft.* are those of --train.* but eval-every, for the lessons); the\n"
        f"defaults shown give way to those of {settings.RECIPES.name}/{RECIPE}.toml:\n"
        f"{settings.describe(kinds, without=UNUSED)}"
    )


def run(arguments: argparse.Namespace) -> None:
    """All stages, in order."""
    started = time.monotonic()
    name = arguments.text[0].resolve().stem if arguments.text else RECIPE
    out = RunFolder(arguments.out or Path("runs") / name)
    plan, lessons = read_plan(out, arguments.overrides)
    with (
        out.writing(),
        ExitStack() as inside,
        reporter() as report,
        compiled_ahead(plan.model, plan.train, report.compiling) as kernels,
    ):
        stage = stages.Announcer(report)
        stage("collect text")
        questions = stages.collect(out.path, arguments.text, arguments.questions, report.say)
        base = RunFolder(out.path / "pretrained") if questions else out
        if questions:
            inside.enter_context(base.writing())
        stage("clean: what is not worth learning, and what is there twice")
        stages.clean(out.path, not arguments.text, report.say)
        stage("prepare: a vocabulary, and the text in its tokens")
        ready, tokenizer = stages.prepare_tokens(base, plan, report.say)
        stage("pretrain: predict the next token")
        kernels.wait()
        model = stages.pretrain(base, ready, plan, report)
        stage("evaluate on text that it has not seen")
        stages.evaluate(base, model, tokenizer, report.say)
        stage("write")
        stages.write(model, tokenizer, not arguments.text, report.say)
        if questions:
            stage(f"teach {counted(len(questions), 'question')} and their answers")
            model = stages.teach(out, base, tokenizer, questions, plan, lessons, report)
            stage("examine")
            stages.examine(model, tokenizer, questions, report.say)
        else:
            report.say("\nno questions to teach: give some with --questions to have it answer")
    print(f"\nfinished in {duration(time.monotonic() - started)}; now try\n")
    for command in _next_commands(out, base):
        print(f"  {command}")


def read_plan(out: RunFolder, overrides: dict[str, str]) -> tuple[Plan, TrainConfig]:
    """The recipe with the flags' changes: the plan of pre-training, and how the lessons go."""
    for flag in (f"--{name.replace('_', '-')}" for name in overrides):
        if flag in UNUSED:
            raise InputError(f"quickstart takes no {flag}: {UNUSED[flag]}")
    values: dict[str, Any] = settings.read_recipe(settings.find_recipe(RECIPE))
    values = values | overrides | {"data.path": str(out.path / "text")}
    of_lessons = {name: values.pop(name) for name in list(values) if name.startswith("sft.")}
    lessons = settings.build({"sft": TrainConfig}, of_lessons)["sft"]
    return Plan.read(values), lessons


def _next_commands(out: RunFolder, base: RunFolder) -> list[str]:
    """What one can do with the result."""
    chat = [f"minillm chat {out.path}"] if base is not out else []
    return [
        *chat,
        f"minillm generate {base.path} --prompt 'This is'",
        f"minillm info {out.path}",
        f"minillm laws {out.path}",
    ]
