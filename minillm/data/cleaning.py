"""Cleaning: from text as it was laid out for a terminal to paragraphs of prose.

Documentation mixes sentences with grammar, code, tables and underlined headings, all wrapped at 70
columns. A small model learns prose much sooner when it sees one kind of text, so `prose` keeps the
paragraphs that read as sentences, joins each into one line, and leaves the rest out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "-", "–": "-", "\u00a0": " "})
_MARKS = re.compile(r"(?<![\w*])\*(\w+)\*(?![\w*])|(?<=\S) \[\d+\]")  # *emphasis*, footnotes [4]
_UNDERLINE = re.compile(r"^\s*([*=\-~^+#\"'`])\1{2,}\s*$")
_ITEM = re.compile(r"^\s*(?:[*\-•]|\d+[.)]) +")
_COLUMNS = re.compile(r"[^.:;?!\s] {2,}\S")
_CODE = re.compile(
    r">>>|::=|^\s*(?:\.\.\s|\$ |#|@|def |class \w+[:(]|import |from \w+ import )", re.MULTILINE
)
# A full stop ends a sentence where a new one starts after it, and not in "e.g. This".
_SENTENCE = re.compile(
    r"(.+?(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)(?<!\b[A-Z])[.!?][\"')]?)(?=\s+[A-Z\"'(*`<]|$)",
    re.DOTALL,
)
_WORD = re.compile(r"[^\W\d_]{2,}")

LEAST_WORDS = 3
LEAST_LETTERS = 0.72  # of all characters but spaces; code and tables have fewer


def plain(text: str) -> str:
    """`text` with plain quotes, dashes, spaces, without marks of emphasis or trailing spaces."""
    text = _MARKS.sub(r"\1", text.translate(_PLAIN).expandtabs())
    return "\n".join(line.rstrip() for line in text.splitlines())


def prose(text: str) -> list[str]:
    """The paragraphs of `text` that are sentences, each joined into one line; items stay apart.

    >>> prose("Join two or more\\n  paths.\\n\\n>>> join('a', 'b')\\n'a/b'")
    ['Join two or more paths.']
    """
    return [" ".join(part.split()) for part in _parts(plain(text)) if is_prose(part)]


def _parts(text: str) -> Iterator[str]:
    """Paragraphs, and the single items of lists, as they stand."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if line and not _UNDERLINE.match(line)]
        part: list[str] = []
        for line in lines:
            if part and _ITEM.match(line):
                yield "\n".join(part)
                part = []
            part.append(line)
        if part:
            yield "\n".join(part)


def is_prose(paragraph: str) -> bool:
    """Whether `paragraph` reads as a sentence or two and not as code, grammar or a table."""
    body = _ITEM.sub("", paragraph, count=1)
    if _CODE.search(body) or _COLUMNS.search(body):
        return False
    starts = {len(line) - len(line.lstrip()) for line in paragraph.splitlines()[1:]}
    if len(starts) > 1:  # the lines of a wrapped paragraph start in one column
        return False
    words = _WORD.findall(body)
    letters = sum(character.isalpha() for character in body)
    inked = sum(not character.isspace() for character in body)
    return len(words) >= LEAST_WORDS and letters >= LEAST_LETTERS * inked


def first_sentence(paragraph: str) -> str:
    """The first sentence of `paragraph`, ended by a full stop if by nothing else.

    >>> first_sentence("Join paths, e.g. Unix ones. Others too.")
    'Join paths, e.g. Unix ones.'
    """
    match = _SENTENCE.match(paragraph)
    sentence = (match[1] if match else paragraph).strip().rstrip(":;,")
    return sentence if sentence[-1:] in ".!?\"')" and match else f"{sentence.rstrip('.')}."
