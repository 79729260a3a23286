"""`minillm data classify`: train a classifier of texts, measure it, and let it judge."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from minillm.cli import settings
from minillm.data.classifier import Classifier, ClassifierConfig
from minillm.data.classifier.labelled import read_labelled
from minillm.data.classifier.language import LANGUAGE
from minillm.errors import InputError

SECTIONS = {"classifier": ClassifierConfig}
PRESETS = {"plain": ClassifierConfig(), "language": LANGUAGE}
BATCH = 10_000  # lines judged at once
FILES = "*.tsv, *.jsonl, lines of __label__LABEL text, or a folder with LABEL.txt or LABEL/*.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm data classify` and the commands below it."""
    leaves = parser.add_subparsers(metavar="COMMAND", required=True)

    leaf = leaves.add_parser("train", help="learn labels from labelled texts")
    leaf.add_argument("files", nargs="+", type=Path, help=FILES)
    leaf.add_argument("--out", type=Path, default=Path("classifier.safetensors"))
    leaf.add_argument("--preset", choices=PRESETS, default="plain", help="settings to start from")
    leaf.epilog = f"settings, with the values of plain:\n\n{settings.describe(SECTIONS)}"
    leaf.set_defaults(run=train, takes_settings=settings.flags(SECTIONS))

    leaf = leaves.add_parser("eval", help="precision and recall of every label")
    leaf.add_argument("model", type=Path, help="what `train` has saved")
    leaf.add_argument("files", nargs="+", type=Path, help=FILES)
    leaf.set_defaults(run=evaluate)

    leaf = leaves.add_parser("predict", help="print the label of every line")
    leaf.add_argument("model", type=Path, help="what `train` has saved")
    leaf.add_argument("file", nargs="?", type=Path, help="texts, one a line; else standard input")
    leaf.add_argument("--top", type=settings.count, default=1, help="how many labels to print")
    leaf.add_argument("--label", help="print the probability of this label instead")
    leaf.set_defaults(run=predict)


def train(args: argparse.Namespace) -> None:
    """Learn a classifier and save it."""
    preset = dataclasses.asdict(PRESETS[args.preset])
    values = {f"classifier.{name}": value for name, value in preset.items()} | args.overrides
    config = settings.build(SECTIONS, values)["classifier"]
    texts, labels = read_labelled(args.files)
    began = time.monotonic()
    made = Classifier.train(texts, labels, config, Progress() if sys.stderr.isatty() else None)
    made.save(args.out)
    print(f"{made}, saved to {args.out} after {time.monotonic() - began:.1f} s")


class Progress:
    """One line on standard error: share done, loss, texts a second, time left."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, done: int, total: int, loss: float) -> None:
        rate = done / max(time.monotonic() - self.began, 1e-9)
        line = f"training {done / total:4.0%}, loss {loss:.4f}, {rate:,.0f} texts/s"
        end = "\n" if done == total else f", {(total - done) / rate:.0f} s left"
        print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)


def evaluate(args: argparse.Namespace) -> None:
    """Print how good a classifier is on labelled texts."""
    made = Classifier.load(args.model)
    print(made.evaluate(*read_labelled(args.files)).table())


def predict(args: argparse.Namespace) -> None:
    """Print the labels and probabilities of every line, or the probability of one label."""
    made = Classifier.load(args.model)
    for lines in _batches(_lines(args.file)):
        if args.label is not None:
            for score in made.score(lines, args.label):
                print(f"{score:.4f}")
        else:
            for guesses in made.top(lines, args.top):
                print("\t".join(f"{guess.label}\t{guess.probability:.4f}" for guess in guesses))


def _lines(path: Path | None) -> Iterator[str]:
    if path is None:
        yield from (line.decode("utf-8", "replace") for line in sys.stdin.buffer)
        return
    try:
        with path.open("rb") as file:
            yield from (line.decode("utf-8", "replace") for line in file)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    lines = iter(lines)
    while batch := list(islice(lines, BATCH)):
        yield batch
