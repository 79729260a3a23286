"""Cutting a text into words before any pair is merged.

Byte pairs merge inside words only, so the pattern decides what a token can never span: the end of
a word and the space before the next, letters and digits, text and newline. Models publish the
pattern that their vocabulary was learned with; encoding with another one gives other ids.

    gpt2    GPT-2, GPT-3
    gpt4    GPT-3.5, GPT-4 (cl100k): numbers in groups of up to three, newlines apart
    gpt4o   GPT-4o (o200k): also cuts at a change of case, and keeps combining marks with letters
    llama3  Llama 3: GPT-4's
    qwen2   Qwen 2 and 3: GPT-4's with every digit a word of its own
    whole   no cut at all: a text is one word

`split` below is the reference: what the package `regex` finds. `scanner.py` finds the same words
of the named patterns forty times as fast. Any other regular expression may be given instead of a
name; text that it leaves out between two matches becomes words too, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from minillm.errors import InputError, nearest

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_GPT4 = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES

LOOK = 1 << 16  # characters around a word that an expression may look at

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": _GPT4,
    "gpt4o": (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?"
        rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
    ),
    "llama3": _GPT4,
    "qwen2": _GPT4.replace(r"\p{N}{1,3}", r"\p{N}"),
    "whole": r"(?s:.+)",
}

# The same patterns as others write them. Today's tiktoken writes GPT-4's with `\s++$` before the
# newlines: that cuts white space at the end of a text otherwise, so it is a pattern of its own.
_ALIASES = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
    **{spelled: name for name, spelled in reversed(PATTERNS.items())},
}


def name_of(pattern: str) -> str:
    """The name of a published pattern that is given as a regular expression; else `pattern`."""
    return _ALIASES.get(pattern, pattern)


def split(data: bytes, pattern: str) -> Iterator[bytes]:
    """The words of `data`, in order; joined they are `data` again.

    Args:
        data: UTF-8. A byte that is not valid UTF-8 counts as a character of its own that is
            neither letter, number nor space.
        pattern: a name of `PATTERNS` or a regular expression.
    """
    for words in split_blocks([data], pattern):
        yield from words


def split_blocks(blocks: Iterable[bytes], pattern: str) -> Iterator[list[bytes]]:
    """`split` of a text that comes in blocks, which do not cut a character in two.

    A match is certain when it ends `LOOK` characters before the end of what is known, and `LOOK`
    characters before it are kept: exact for expressions that look no further around a word.
    """
    rule = compiled(pattern)
    # Python's "surrogateescape" turns each invalid byte into a lone surrogate and back.
    texts = (block.decode("utf-8", "surrogateescape") for block in blocks)
    text, begin = next(texts, ""), 0  # words up to `begin` are done
    while text:
        following = next(texts, "")
        until = len(text) - LOOK if following else len(text)
        words: list[str] = []
        for match in rule.finditer(text, begin):
            if match.end() > until:
                break
            if match.group():
                # What lies between two matches is a word, too.
                words += [text[begin : match.start()]] if match.start() > begin else []
                words.append(match.group())
                begin = match.end()
        if not following and begin < len(text):
            words.append(text[begin:])
        if words:
            yield [word.encode("utf-8", "surrogateescape") for word in words]
        kept = max(begin - LOOK, 0)
        text, begin = text[kept:] + following if following else "", begin - kept


def word_ends(data: bytes, ends: Sequence[int], pattern: str) -> list[int]:
    """Where the words of texts end, which lie in `data` end to end, each up to one of `ends`."""
    found, begin = [], 0
    for end in ends:
        for word in split(data[begin:end], pattern):
            begin += len(word)
            found.append(begin)
    return found


@lru_cache(maxsize=32)
def compiled(pattern: str) -> Any:
    """The compiled regular expression.

    Raises `InputError` where it is malformed, or a single word that is nearly a name.
    """
    import regex  # takes 50 ms to load

    near = nearest(pattern.lower(), PATTERNS)
    word = pattern.replace("-", "").isalnum()
    if word and pattern not in PATTERNS and "did you mean" in near:
        raise InputError(f"no pattern is called {pattern!r}{near}")
    try:
        return regex.compile(PATTERNS.get(pattern, pattern))
    except regex.error as error:
        names = ", ".join(PATTERNS)
        raise InputError(
            f"pattern {pattern!r} is neither a name ({names}) nor a regular expression: {error}"
        ) from error
