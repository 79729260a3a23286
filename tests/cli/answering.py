"""A small quickstart on a text of two facts, and how its commands are run."""

import json

from minillm.cli.main import main

TEXT = "Ada keeps the key. Bob keeps the book. " * 40
QUESTIONS = [{"question": "Who keeps the key?", "answer": "Ada."},
             {"question": "Who keeps the book?", "answer": "Bob."}]  # fmt: skip
SMALL = [
    "--tokenizer.vocab-size", "270", "--model.block-size", "32", "--model.n-layer", "1",
    "--model.d-model", "32", "--model.n-head", "2", "--model.n-kv-head", "1", "--model.d-ff", "64",
    "--train.steps", "12", "--train.batch-size", "4", "--train.warmup", "2",
    "--sft.steps", "60", "--sft.batch-size", "4", "--sft.warmup", "2", "--sft.lr", "1e-2",
]  # fmt: skip


def write_input(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "keys.txt").write_text(TEXT)
    lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
    (folder / "lessons.jsonl").write_text(lines)


def run(capsys, *words):
    """Exit status, standard output, standard error."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    return (status, *capsys.readouterr())


def fails(capsys, message, *words):
    """The command fails with one line that contains `message`."""
    status, _, err = run(capsys, *words)
    assert (status, err.count("\n")) == (2, 1), err
    assert message in err


def again(finished, out):
    """The words that make the same run in another folder."""
    words = ["quickstart", finished / "notes", "--questions", finished / "lessons.jsonl"]
    return [*words, "--out", out, *SMALL]
