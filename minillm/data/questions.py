"""Questions and answers made from Python's documentation, and those a user brings.

Whoever documents a function says first, in one sentence, what it does. That sentence is the answer
to a question that can be made from the name alone:

    What does os.path.join do?     Join two or more pathname components, inserting '/' as needed.

The same thing can be asked in several ways. A model is taught some of them; one more way is never
shown in training, so that asking it tells whether the model learned what the question is about, or
only how it is spelled.

A file of questions has one JSON object per line, which is all that a user's own file needs:

    {"question": "Who keeps the key?", "answer": "Ada does."}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillm import files
from minillm.data.python_docs import Entry
from minillm.errors import InputError

# How to ask about each kind of entry; the last way is the one that is never taught.
WAYS = {
    "function": ("What does {} do?", "What is {} for?", "Explain {}.", "Tell me what {} does."),
    "class": ("What is {}?", "What is {} for?", "Explain {}.", "Tell me what {} is."),
    "module": (
        "What is the {} module?",
        "What is the {} module for?",
        "Explain the {} module.",
        "Tell me what the {} module is.",
    ),
}

# The modules that most programs use, and the types of the language reference.
EVERYDAY = (
    "abc", "argparse", "ast", "base64", "bisect", "calendar", "collections", "collections.abc",
    "configparser", "contextlib", "copy", "csv", "ctypes", "dataclasses", "datetime",
    "difflib", "dis", "enum", "fileinput", "fnmatch", "fractions", "functools", "getpass",
    "glob", "gzip", "hashlib", "heapq", "hmac", "html", "http", "inspect", "io", "ipaddress",
    "json", "keyword", "linecache", "locale", "logging", "math", "mimetypes",
    "multiprocessing", "numbers", "object", "operator", "os", "os.path", "pathlib", "pdb",
    "pickle", "platform", "pprint", "queue", "random", "re", "reprlib", "sched", "secrets",
    "select", "selectors", "shelve", "shlex", "shutil", "signal", "socket", "sqlite3", "ssl",
    "stat", "statistics", "str", "string", "struct", "subprocess", "symtable", "tarfile",
    "tempfile", "textwrap", "threading", "time", "timeit", "tokenize", "traceback", "types",
    "typing", "unicodedata", "urllib", "urllib.parse", "urllib.request", "uuid", "warnings",
    "wave", "weakref", "webbrowser", "zipfile", "zlib",
)  # fmt: skip

_FEWEST_WORDS, _MOST_WORDS = 3, 24  # of an answer


@dataclass(frozen=True)
class Question:
    """One thing to know: ways to ask for it, and the answer."""

    ways: tuple[str, ...]  # taught
    answer: str
    unseen: str | None = None  # a way to ask that is not taught


def make_questions(entries: Iterable[Entry], modules: Iterable[str] = EVERYDAY) -> list[Question]:
    """A question for every public name of `modules` whose first sentence makes an answer.

    Methods of a module's classes are left out; those in the language reference (`str.join`) are
    asked about. Several entries of one name give one question.
    """
    wanted = set(modules)
    questions: dict[str, Question] = {}
    for entry in entries:
        if entry.kind not in WAYS or entry.name in questions:
            continue
        if _home(entry) in wanted and _is_answer(entry.summary):
            *taught, unseen = (way.format(entry.name) for way in WAYS[entry.kind])
            questions[entry.name] = Question(tuple(taught), entry.summary, unseen)
    return list(questions.values())


def _home(entry: Entry) -> str:
    """The module or the type that the name is a public member of; "" for any other name."""
    if entry.kind == "module":
        return entry.name
    home, _, member = entry.name.rpartition(".")
    in_reference = entry.document.startswith("topic ")
    if in_reference or (home == entry.document and not member.startswith("_")):
        return home
    return ""


def _is_answer(sentence: str) -> bool:
    words = sentence.split()
    return (
        _FEWEST_WORDS <= len(words) <= _MOST_WORDS
        and sentence[0].isupper()
        and sentence.isascii()
        and not sentence.startswith(("Changed in", "New in", "Deprecated", "See "))
    )


# ------------------------------------------------------------------------------------ files


def save(questions: Iterable[Question], path: str | os.PathLike[str]) -> None:
    """Write questions as JSON lines, whole or not at all."""
    lines = []
    for question in questions:
        line: dict[str, Any] = {"question": list(question.ways), "answer": question.answer}
        if question.unseen is not None:
            line["unseen"] = question.unseen
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    files.write_text(path, "".join(lines))


def load(path: str | os.PathLike[str]) -> list[Question]:
    """Read JSON lines with "question" (a text, or a list of ways to ask) and "answer".

    Raises `InputError`, with the line's number, for anything else, and where there is no line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; questions come as JSON lines") from error
    questions = [
        _read(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not questions:
        raise InputError(f"{path} holds no questions")
    return questions


def _read(line: str, where: str) -> Question:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if isinstance(found, Mapping):
        asked, answer, unseen = found.get("question"), found.get("answer"), found.get("unseen")
        ways: list[Any] = asked if isinstance(asked, list) else [asked]
        if ways and all(map(_is_text, [*ways, answer])):
            return Question(tuple(ways), str(answer), unseen if _is_text(unseen) else None)
    raise InputError(f'{where} needs "question" and "answer", both text')


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""
