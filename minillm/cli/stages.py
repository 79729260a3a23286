"""The stages of `minillm quickstart`, in the order in which they run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minillm import files
from minillm.cli.data import read_manifest, read_recipe
from minillm.cli.plan import FINE_TUNING, Plan
from minillm.data import pipeline, python_docs, summary
from minillm.data import questions as question_files
from minillm.data.batches import Batches
from minillm.data.corpus import documents_in
from minillm.data.documents import write_documents
from minillm.data.progress import Progress
from minillm.data.questions import Question
from minillm.data.reading import read_documents
from minillm.data.report import REPORT
from minillm.data.tally import Tally
from minillm.errors import InputError, counted
from minillm.evaluation import perplexity
from minillm.evaluation.answers import answers, is_right
from minillm.finetune.sft import ChatBatches, conversations
from minillm.inference.generate import generate
from minillm.inference.sampling import SamplingConfig
from minillm.models import registry
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer
from minillm.training.checkpoint import RunFolder, load_run
from minillm.training.config import TrainConfig
from minillm.training.loop import Result, train
from minillm.training.metrics import token_lengths
from minillm.training.prepare import Prepared, prepare, start_of_text
from minillm.training.progress import Reporter

Say = Callable[[str], None]

OPENINGS = ("Return True if", 'The "for" statement is', "class asyncio.")  # of samples
SHOWN = ("os.path.join", "json.dumps", "str.split", "re.sub")  # subjects asked aloud


class Announcer:
    """Numbers the stages."""

    def __init__(self, report: Reporter) -> None:
        self.report, self.number = report, 0

    def __call__(self, title: str) -> None:
        self.number += 1
        self.report.say(f"\n{self.number}. {title}")


def collect(
    folder: Path, text: Sequence[Path], questions_file: Path | None, say: Say
) -> list[Question]:
    """Gather the text in `folder`/raw, and the questions that can be taught about it.

    Without `text` it is Python's documentation, and the questions are made from it. Of other text
    no questions are made: they come from `questions_file`, or there are none.
    """
    sources = {"text": _resolved(text), "questions": _resolved([questions_file])}
    asked, known = folder / "questions.jsonl", folder / "sources.json"
    if (folder / "raw").exists():
        if json.loads(known.read_text(encoding="utf-8")) != sources:
            raise InputError(f"{folder} holds a run on other text; choose a folder with --out")
        return question_files.load(asked) if asked.exists() else []
    if text:
        documents, questions = read_documents(text), []
    else:
        entries = python_docs.collect()
        documents = python_docs.documents(entries)
        questions = question_files.make_questions(entries)
    if questions_file is not None:
        questions = question_files.load(questions_file)
    if questions:
        question_files.save(questions, asked)
    files.write_text(known, json.dumps(sources, indent=2) + "\n")
    write_documents(folder / "raw", documents)  # last: it says that the stage is done
    origin = ", ".join(map(str, text)) or "the documentation in Python's standard library"
    asked_of = counted(len(questions), "question")
    say(f"{counted(len(documents), 'document')} from {origin}, {asked_of} about them")
    return questions


def clean(folder: Path, documentation: bool, say: Say) -> None:
    """Make a corpus of `folder`/raw, show what was removed, and put what is left in `folder`/text.

    The documentation has a recipe of its own; other text loses only what is there twice.
    """
    corpus, made = folder / "corpus", folder / "text"
    if not made.exists():
        name = "documentation" if documentation else "plain"
        recipe = read_recipe(name, [str(folder / "raw")], {})
        pipeline.build(recipe, corpus, report=_Told(say))
        write_documents(made, documents_in(corpus / "text"))
    for line in summary.table(Tally.from_json(read_manifest(corpus)["counts"])):
        say(line)
    say(f"examples of what was removed: {corpus / REPORT}")


class _Told(Progress):
    """Tells how the pipeline goes to whoever tells how the run goes."""

    def __init__(self, tell: Say) -> None:
        super().__init__()
        self.tell = tell

    def say(self, text: str) -> None:
        self.tell(text)


def prepare_tokens(run: RunFolder, plan: Plan, say: Say) -> tuple[Prepared, Tokenizer]:
    """Train the tokenizer and write the token shards, in a run folder that begins here."""
    _begin(run, plan.to_dict())
    ready = prepare(run, plan.data, plan.tokenizer, say)
    assert ready.tokenizer is not None  # only shards may come without one, and this is text
    return ready, ready.tokenizer


def pretrain(run: RunFolder, ready: Prepared, plan: Plan, report: Reporter) -> LanguageModel:
    """Train a new model on the text; the one of the lowest validation loss."""
    config = plan.model_for(ready.train.vocab_size)
    model = registry.build(config, np.random.default_rng(plan.train.seed))
    batches = Batches(ready.train, plan.train.batch_size, config.block_size, plan.train.seed)
    times = plan.train.steps * plan.train.batch_size / batches.windows
    report.say(
        f"{type(model).__name__} of {model.num_parameters():,} parameters, which sees the text"
        f" {times:.1f} times"
    )
    lengths = token_lengths(ready.tokenizer)
    validation = ready.validation
    result = train(
        model, batches, plan.train, run=run, validation=validation, lengths=lengths, report=report
    )
    return _finished(run, result, report)


def evaluate(run: RunFolder, model: LanguageModel, tokenizer: Tokenizer, say: Say) -> None:
    """Loss, perplexity and bits per byte on the whole validation split."""
    say(str(perplexity.of_split(model, tokenizer, run)))


def write(model: LanguageModel, tokenizer: Tokenizer, documentation: bool, say: Say) -> None:
    """Let the model go on from a few openings; from nothing, where the text is not ours."""
    start = start_of_text(tokenizer)
    openings = OPENINGS if documentation else ("", "")
    prompts = [tokenizer.encode(opening) or [start] for opening in openings]
    sampling = SamplingConfig(temperature=0.6, top_p=0.9, repetition_penalty=1.1)
    marks = list(tokenizer.special_tokens.values())
    written = generate(model, prompts, 70, sampling, stop_ids=marks)
    for opening, ids in zip(openings, written, strict=True):
        say(_indented(opening + tokenizer.decode(ids)) + "\n")


def teach(
    run: RunFolder,
    base: RunFolder,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    plan: Plan,
    lessons: TrainConfig,
    report: Reporter,
) -> LanguageModel:
    """Fine-tune the model of `base` on conversations made from the questions."""
    model = load_run(base.path)[0]
    block_size = model.config.block_size
    talks = conversations(tokenizer, questions, block_size, lessons.seed)
    batches = ChatBatches(tokenizer, talks, lessons.batch_size, block_size, lessons.seed)
    if not run.tokenizer_file.exists():  # what makes it a run that stands by itself
        shutil.copytree(base.data, run.data, dirs_exist_ok=True)
        tokenizer.save(run.tokenizer_file)
    _begin(run, dataclasses.replace(plan, train=lessons).to_dict() | FINE_TUNING)
    result = train(model, batches, lessons, run=run, report=report)
    return _finished(run, result, report)


def examine(
    model: LanguageModel, tokenizer: Tokenizer, questions: Sequence[Question], say: Say
) -> None:
    """Ask every question, as it was taught and in other words, and count the right answers."""
    asked = [question.ways[0] for question in questions]
    said = list(answers(model, tokenizer, asked))
    for i in _shown(asked):
        say(f"   {asked[i]}\n   > {said[i]}\n")
    expected = [question.answer for question in questions]
    say(f"right answers, word for word: {_share(said, expected)}")
    others = [(question.unseen, question.answer) for question in questions if question.unseen]
    if others:
        said = list(answers(model, tokenizer, [asked for asked, _ in others]))
        share = _share(said, [answer for _, answer in others])
        say(f"asked in words that it was never taught ({others[0][0]}): {share}")


# ---------------------------------------------------------------------------------- helpers


def _begin(run: RunFolder, settings: Mapping[str, Any]) -> None:
    """Start a run, or see that the one that is there has the same settings."""
    if not run.exists():
        run.path.mkdir(parents=True, exist_ok=True)
        run.begin(settings)
    elif run.read_config() != json.loads(json.dumps(settings)):
        raise InputError(
            f"{run.path} holds a run with other settings; choose another folder with --out"
        )


def _finished(run: RunFolder, result: Result, report: Reporter) -> LanguageModel:
    """The best model of a run, once it has come to its end."""
    if result.stopped:
        report.say(f"stopped at step {result.step}; all is saved, the same command goes on")
        raise KeyboardInterrupt
    return load_run(run.path)[0]


def _shown(asked: Sequence[str]) -> list[int]:
    """Which questions to show: those about well-known things, else the first few."""
    known = [i for i, q in enumerate(asked) if any(f" {name} " in q for name in SHOWN)]
    return known or list(range(min(3, len(asked))))


def _share(said: Sequence[str], expected: Sequence[str]) -> str:
    right = sum(map(is_right, said, expected))
    return f"{right:,} of {len(expected):,} ({right / len(expected):.1%})"


def _resolved(paths: Sequence[Path | None]) -> list[str]:
    return [str(path.resolve()) for path in paths if path is not None]


def _indented(text: str) -> str:
    lines = (textwrap.fill(line, 90) for line in text.splitlines())
    return textwrap.indent("\n".join(lines), "   ")
