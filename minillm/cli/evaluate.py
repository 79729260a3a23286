"""`minillm eval`: loss, perplexity and bits per byte of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from minillm.data.reading import read_documents
from minillm.errors import InputError
from minillm.evaluation import perplexity
from minillm.training.checkpoint import load_run
from minillm.training.metrics import total


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm eval`."""
    parser.add_argument("run_folder", type=Path, help="a run folder, or a checkpoint inside one")
    parser.add_argument("--split", default="validation", help="which split of the run's own data")
    parser.add_argument("--text", type=Path, help="a text file or a folder of them, instead")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which checkpoint of a run"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate on all of the text and print the result."""
    model, tokenizer, info = load_run(arguments.run_folder, arguments.checkpoint)
    if arguments.text is None:
        name = arguments.split
        found = perplexity.of_split(model, tokenizer, info.run, name)
    elif tokenizer is None:
        raise InputError(f"the run {info.run.path} came without a tokenizer, so it reads no text")
    else:
        name = str(arguments.text)
        texts = [document.text for document in read_documents([arguments.text])]
        found = total(perplexity.of_text(model, tokenizer, text) for text in texts)
    if not found.tokens:
        raise InputError(f"{name} has fewer than two tokens; it takes two to predict one")
    print(f"{info.run.path}, step {info.checkpoint.step}, on all of {name}: {found}")
