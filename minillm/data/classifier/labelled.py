"""Reading labelled texts from files.

    *.tsv                 label, a tab, the text
    *.jsonl               {"label": ..., "text": ...}
    other files           fastText's lines: __label__LABEL, a space, the text
    a folder              LABEL.txt with one text per line, or LABEL/*.txt with one text per file

Empty lines are passed over. A text has one label.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from minillm.errors import InputError

PREFIX = "__label__"
Labelled = tuple[list[str], list[str]]  # texts and their labels


def read_labelled(paths: Iterable[str | os.PathLike[str]]) -> Labelled:
    """The texts and labels of files and folders, in the order given, folders in that of names.

    Raises `InputError`, with file and line, for what has no label or cannot be read.
    """
    texts: list[str] = []
    labels: list[str] = []
    for path in map(Path, paths):
        count = len(texts)
        for label, text in _folder(path) if path.is_dir() else _file(path):
            texts.append(text)
            labels.append(label)
        if len(texts) == count:
            raise InputError(f"{path} holds no labelled text")
    return texts, labels


def _folder(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            for file in sorted(path.glob("*.txt")):
                yield path.name, _read(file)
        elif path.suffix == ".txt":
            yield from ((path.stem, line) for _, line in _lines(path))


def _file(path: Path) -> Iterator[tuple[str, str]]:
    parse = {".tsv": _tabbed, ".jsonl": _json}.get(path.suffix.lower(), _prefixed)
    for number, line in _lines(path):
        try:
            yield parse(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from None


def _tabbed(line: str) -> tuple[str, str]:
    label, tab, text = line.partition("\t")
    if not tab or not label.strip():
        raise ValueError(f"needs a label, a tab and a text, but is {_start(line)}")
    return label.strip(), text


def _json(line: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg})") from None
    values = record if isinstance(record, dict) else {}
    label, text = values.get("label"), values.get("text")
    if isinstance(label, str) and isinstance(text, str):
        return label, text
    raise ValueError(f'needs {{"label": ..., "text": ...}}, but is {_start(line)}')


def _prefixed(line: str) -> tuple[str, str]:
    word, _, text = line.partition(" ")
    label = word.removeprefix(PREFIX)
    if label == word or not label:
        raise ValueError(f"needs {PREFIX}LABEL and a text, but is {_start(line)}")
    if text.startswith(PREFIX):
        raise ValueError(f"has two labels, {label!r} and {text.split()[0]!r}; give one")
    return label, text


def _start(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:40] + "...")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, numbered from 1; only a newline ends one."""
    for number, line in enumerate(_read(path).split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
