"""Questions and answers made from Python's documentation.

Whoever documents a function says first, in one sentence, what it does. That sentence is the answer to
a question that can be made from the name alone:

    What does os.path.join do?     Join two or more pathname components, inserting '/' as needed.

Each subject can be asked about in several ways. Training uses all of `ways` but the last, so that
asking in that last way shows whether the model learned the subject or only the question's letters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minillm.data.python_docs import Entry

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

_FEWEST_WORDS, _MOST_WORDS = 3, 24


@dataclass(frozen=True)
class Question:
    """A subject that can be asked about in several ways, and the one answer."""

    subject: str  # "os.path.join"
    ways: tuple[str, ...]  # the last is kept out of training
    answer: str


def make_questions(entries: Iterable[Entry], modules: Iterable[str] = EVERYDAY) -> list[Question]:
    """A question for every public name of `modules` whose first sentence makes an answer.

    Methods of a module's classes are left out; those in the language reference (`str.join`) are
    asked about. An answer has 3 to 24 words. Several entries of one name give one question.
    """
    wanted = set(modules)
    questions: dict[str, Question] = {}
    for entry in entries:
        if entry.kind not in WAYS or entry.name in questions:
            continue
        if _home(entry) in wanted and _is_answer(entry.summary):
            ways = tuple(way.format(entry.name) for way in WAYS[entry.kind])
            questions[entry.name] = Question(entry.name, ways, entry.summary)
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
