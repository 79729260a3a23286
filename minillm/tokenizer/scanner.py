"""The published split patterns as loops over UTF-8 bytes.

`patterns.split` asks the package `regex`; the scanners here give the same words without building
a string or a match object, twenty times as fast. Each pattern is a list of alternatives tried in
order, and with one character of lookahead (and one place of memory for what a regular expression
would backtrack to) every alternative can be decided on the way.

A character is known by the bits of its class, looked up in a table that is made with `regex`
itself when first needed, so the two agree on any version of Unicode. A byte that is not valid
UTF-8 is a character of its own without any bit.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.inner import inner

# Bits of a class. UPPER and LOWER are the two sets of GPT-4o's pattern; letters without case and
# combining marks are in both.
UPPER, LOWER, LETTER, NUMBER, SPACE, NEWLINE = 1, 2, 4, 8, 16, 32
OTHER = LETTER | NUMBER | SPACE  # a character with none of these: [^\s\p{L}\p{N}]

GPT2, GPT4, GPT4O, QWEN2, WHOLE = 0, 1, 2, 3, 4
RULES = {"gpt2": GPT2, "gpt4": GPT4, "llama3": GPT4, "gpt4o": GPT4O, "qwen2": QWEN2, "whole": WHOLE}


@cache
def classes() -> np.ndarray:
    """The class of every code point, (0x110000,) uint8."""
    import regex  # takes 50 ms to load

    codes = np.arange(0x110000, dtype=np.uint32)
    text = codes.tobytes().decode("utf-32-le", "surrogatepass")
    table = np.zeros(0x110000, np.uint8)
    for members, bits in {
        r"[\p{Lu}\p{Lt}]+": UPPER | LETTER,
        r"\p{Ll}+": LOWER | LETTER,
        r"[\p{Lm}\p{Lo}]+": UPPER | LOWER | LETTER,
        r"\p{M}+": UPPER | LOWER,
        r"\p{N}+": NUMBER,
        r"\s+": SPACE,
        r"[\r\n]+": SPACE | NEWLINE,
    }.items():
        for run in regex.finditer(members, text):
            table[run.start() : run.end()] = bits
    return table


@inner
def character_at(data, p, stop, table):
    """The class and the size in bytes of the character at `p`; an invalid byte is (0, 1)."""
    first = np.int64(data[p])
    if first < 0x80:
        return np.int64(table[first]), 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC2 or first > 0xF4 or p + size > stop:
        return 0, 1
    code = first & (0x7F >> size)
    for i in range(1, size):
        byte = np.int64(data[p + i])
        if byte & 0xC0 != 0x80:
            return 0, 1
        code = code << 6 | byte & 0x3F
    if size == 3 and (code < 0x800 or 0xD800 <= code < 0xE000):
        return 0, 1
    if size == 4 and not 0x10000 <= code < 0x110000:
        return 0, 1
    return np.int64(table[code]), size


@inner
def run_end(data, p, stop, table, mask, value):
    """The end of the run from `p` on of characters whose class has `value` in the bits `mask`."""
    while p < stop:
        if data[p] < 0x80:
            if table[data[p]] & mask != value:
                break
            p += 1
        else:
            kind, size = character_at(data, p, stop, table)
            if kind & mask != value:
                break
            p += size
    return p


@inner
def contraction(data, p, stop, any_case):
    """The size of 's 't 'm 'd 'll 've 're at `p`, or 0."""
    if p + 1 >= stop or data[p] != 0x27:
        return 0
    fold = 0x20 if any_case else 0
    c = data[p + 1] | fold
    if c == 0x73 or c == 0x74 or c == 0x6D or c == 0x64:  # s t m d
        return 2
    if p + 2 >= stop:
        return 0
    if any_case and data[p + 1] == 0xC5 and data[p + 2] == 0xBF:  # the long s is an s, too
        return 3
    d = data[p + 2] | fold
    if (c == 0x6C and d == 0x6C) or ((c == 0x76 or c == 0x72) and d == 0x65):  # ll ve re
        return 3
    return 0


@inner
def spaces_end(data, p, stop, table, cut_after_newline):
    r"""The end of white space: `\s*[\r\n]+` (where asked for), else `\s+(?!\S)`, else `\s+`."""
    last, end, newline = p, p, 0
    while end < stop:
        kind, size = character_at(data, end, stop, table)
        if kind & SPACE == 0:
            break
        last = end
        end += size
        if kind & NEWLINE:
            newline = end
    if cut_after_newline and newline:
        return newline
    if end == stop or last == p:
        return end
    return last  # the last space goes with the word that follows


@inner
def gpt2_end(data, p, stop, table):
    r"""'(?:[sdmt]|ll|ve|re) | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ |\s+(?!\S)|\s+"""
    short = contraction(data, p, stop, False)
    if short:
        return p + short
    start = p + 1 if data[p] == 0x20 and p + 1 < stop else p
    kind, size = character_at(data, start, stop, table)
    if kind & SPACE:
        return spaces_end(data, p, stop, table, False)
    mask = kind & LETTER or kind & NUMBER or OTHER
    return run_end(data, start + size, stop, table, mask, kind & mask)


@inner
def gpt4_end(data, p, stop, table, most_digits):
    r"""(?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|white space"""
    short = contraction(data, p, stop, True)
    if short:
        return p + short
    kind, size = character_at(data, p, stop, table)
    if kind & LETTER:
        return run_end(data, p + size, stop, table, LETTER, LETTER)
    if kind & NUMBER:
        return numbers_end(data, p + size, stop, table, most_digits - 1)
    start = p + size
    if kind & NEWLINE == 0 and start < stop:
        following, width = character_at(data, start, stop, table)
        if following & LETTER:
            return run_end(data, start + width, stop, table, LETTER, LETTER)
        if data[p] == 0x20 and following & OTHER == 0:
            return other_end(data, start + width, stop, table, False)
    if kind & SPACE:
        return spaces_end(data, p, stop, table, True)
    return other_end(data, start, stop, table, False)


@inner
def gpt4o_end(data, p, stop, table):
    r"""GPT-4's with words [^\r\n\p{L}\p{N}]?U*L+C? and [^\r\n\p{L}\p{N}]?U+L*C?, U upper, L lower.

    A mark may be the character in front, or part of the word: U*L+ is tried with the mark in front,
    then with it inside, and only then U+.
    """
    kind, size = character_at(data, p, stop, table)
    if kind & NUMBER:
        return numbers_end(data, p + size, stop, table, 2)
    if kind & (LETTER | NEWLINE) == 0:
        end, has_lower = cased_end(data, p + size, stop, table)
        if has_lower or (end > p + size and kind & LOWER == 0):
            return end + contraction(data, end, stop, True)
    end, _ = cased_end(data, p, stop, table)
    if end > p:
        return end + contraction(data, end, stop, True)
    start = p + size
    if kind & SPACE:
        if data[p] == 0x20 and start < stop:
            following, width = character_at(data, start, stop, table)
            if following & OTHER == 0:
                return other_end(data, start + width, stop, table, True)
        return spaces_end(data, p, stop, table, True)
    return other_end(data, start, stop, table, True)


@inner
def cased_end(data, p, stop, table):
    """The end of U*L+ from `p` on and True, else the end of U+ (`p` if there is none), False."""
    end, lower = p, p
    while end < stop:
        kind, size = character_at(data, end, stop, table)
        if kind & UPPER == 0:
            break
        end += size
        if kind & LOWER:
            lower = end  # where U* would step back to, for L+ to have one character
    after = run_end(data, end, stop, table, LOWER, LOWER)
    if after > end:
        return after, True
    return (lower, True) if lower > p else (end, False)


@inner
def numbers_end(data, p, stop, table, most):
    r"""The end of at most `most` characters of \p{N}."""
    while most > 0 and p < stop:
        kind, size = character_at(data, p, stop, table)
        if kind & NUMBER == 0:
            break
        p += size
        most -= 1
    return p


@inner
def other_end(data, p, stop, table, with_slash):
    r"""The end of [^\s\p{L}\p{N}]*[\r\n]*, or ...[\r\n/]*."""
    p = run_end(data, p, stop, table, OTHER, 0)
    while p < stop and (data[p] == 0x0A or data[p] == 0x0D or (with_slash and data[p] == 0x2F)):
        p += 1
    return p


@inner
def word_end(rules, data, p, stop, table):
    """The end of the word of `data[:stop]` that starts at `p` < `stop`."""
    if rules == GPT4:
        return gpt4_end(data, p, stop, table, 3)
    if rules == GPT2:
        return gpt2_end(data, p, stop, table)
    if rules == GPT4O:
        return gpt4o_end(data, p, stop, table)
    if rules == QWEN2:
        return gpt4_end(data, p, stop, table, 1)
    return stop


@inner
def sure_start(rules, data, p, stop, table):
    """The first place from `p` on where a word starts whatever stands before; else `stop`.

    Under all of these patterns that is a space before a letter, and a letter after a newline: a
    text can be cut there and its parts scanned apart.
    """
    if rules != WHOLE:
        p = max(p, 1)
        while p + 1 < stop:
            q = p + 1 if data[p] == 0x20 else p
            if data[p] == 0x20 or data[p - 1] == 0x0A:
                kind, _ = character_at(data, q, stop, table)
                if kind & LETTER:
                    return p
            p += 1
    return stop


@jit
def _ends(rules, data, table):
    ends = np.empty(data.size, np.int64)
    n, p = 0, 0
    while p < data.size:
        p = word_end(rules, data, p, data.size, table)
        ends[n] = p
        n += 1
    return ends[:n].copy()


def word_ends(data: bytes, pattern: str) -> np.ndarray:
    """Where the words of `data` end, (words,) int64; `pattern` is one of `RULES`."""
    return _ends(RULES[pattern], np.frombuffer(data, np.uint8), classes())
