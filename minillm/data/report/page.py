"""What a report in HTML is made of: text that cannot become markup, tables, bars, words compared.

Everything is in the one file: no scripts, no fonts, nothing from a network, and a policy that
forbids a browser to load or run any. Colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import difflib
import html
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

SHOWN = 600  # characters of a text that are shown
COMPARED = 200_000  # of each text of a pair
WORDS = 200  # words of each text of a pair
BEFORE = 15  # of them equal ones before the first that differs
LONGEST = 60  # characters of a word that are shown
WIDTH, HEIGHT, FOOT = 640, 150, 30  # of a histogram, in its own units
LABELS = 8  # under a histogram, at most

# What a page may not hold (controls, surrogates, codes that are no characters), and the marks that
# turn the direction of all text behind them.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --soft: #5d6870; --paper: #fff; --line: #d8dde1;
  --kept: #2f7d5b; --came: #e0c49a; --mark: #f6dba8; --panel: #f5f7f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --soft: #9aa6ae; --paper: #15191c;
  --line: #343c42; --kept: #58b88c; --came: #6e5836; --mark: #6b4d17; --panel: #1e2428; } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; font-size: 1.25rem; }
h2, th, td { border-bottom: 1px solid var(--line); }
nav a { margin-right: 1rem; } a { color: inherit; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; margin: .3rem 0 1rem;
  padding: .6rem .8rem; background: var(--panel); font: .85rem/1.45 ui-monospace, monospace; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
mark { background: var(--mark); color: inherit; } details { margin: .5rem 0; }
summary { cursor: pointer; } figure { margin: 1rem 0; } svg { width: 100%; max-width: 46rem; }
svg text { fill: var(--soft); font-size: 11px; } .kept { fill: var(--kept); }
.came { fill: var(--came); } .axis { stroke: var(--line); }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; }
.key.kept { background: var(--kept); } .key.came { background: var(--came); }
"""


def page(title: str, opening: str, sections: Mapping[str, str]) -> str:
    """A whole page: a title, an opening, then sections by their headings (HTML inside)."""
    names = list(sections)
    links = "".join(f'<a href="#s{i}">{escape(name)}</a>\n' for i, name in enumerate(names))
    body = "".join(
        f'<section id="s{i}">\n<h2>{escape(name)}</h2>\n{sections[name]}</section>\n'
        for i, name in enumerate(names)
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{opening}<nav>\n{links}</nav>\n{body}</body>\n</html>\n"
    )


def escape(text: object) -> str:
    """Text as a page may hold it: no markup, no control characters.

    >>> escape("a <script> & b\\x00")
    'a &lt;script&gt; &amp; b\\ufffd'
    """
    return html.escape(_FORBIDDEN.sub("\ufffd", str(text).replace("\r\n", "\n")))


def shortened(text: str, most: int = SHOWN) -> str:
    """The beginning of a text, with its length where something is left out."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters in all)"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>\n"


def example(title: str, text: str) -> str:
    """A document shown, and what it is."""
    return f'<p class="soft">{escape(title)}</p>\n<pre dir="auto">{escape(text)}</pre>\n'


def details(summary: str, content: str) -> str:
    """HTML that is folded away under a line of text."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{content}</details>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text and numbers; whole numbers get their commas and stand to the right."""
    found = list(rows)
    right = [any(isinstance(row[i], int | float) for row in found) for i in range(len(head))]
    kinds = [' class="number"' if one else "" for one in right]
    lines = ["".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, head))]
    for row in found:
        shown = [f"{one:,}" if isinstance(one, int | float) else one for one in row]
        lines.append("".join(f"<td{kind}>{escape(one)}</td>" for kind, one in zip(kinds, shown)))
    inside = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="scroll"><table>\n{inside}</table></div>\n'


# ---------------------------------------------------------------------------------- drawing


def histogram(caption: str, names: Sequence[str], came: Sequence[int], kept: Sequence[int]) -> str:
    """Bars of what is kept before broader ones of what came in; `came` may be empty.

    `names` say what each bar counts; some of them stand below. Where nothing was counted there is
    no drawing, but a word that says so.
    """
    behind = came or [0] * len(kept)
    top = max((*behind, *kept), default=0)
    if not top:
        return paragraph(f"{caption}: none.")
    step, every = WIDTH / len(names), -(-len(names) // LABELS)
    parts = []
    for i, (name, all_of_it, stays) in enumerate(zip(names, behind, kept, strict=True)):
        if all_of_it or stays:
            said = f"{all_of_it:,} came in, {stays:,} kept" if came else f"{stays:,}"
            bars = _bar("came", (i + 0.05) * step, 0.9 * step, HEIGHT * all_of_it / top)
            bars += _bar("kept", (i + 0.2) * step, 0.6 * step, HEIGHT * stays / top)
            parts.append(f"<g><title>{escape(name)}: {said}</title>{bars}</g>")
        if i % every == 0:
            parts.append(f'<text x="{i * step:.1f}" y="{HEIGHT + 15}">{escape(name)}</text>')
    key = '<span class="key came"></span>came in' if came else ""
    key += '<span class="key kept"></span>kept'
    return (
        f"<figure><figcaption>{escape(caption)}; the highest bar is {top:,}.{key}</figcaption>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{escape(caption)}">\n'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>\n'
        + "\n".join(parts)
        + "\n</svg></figure>\n"
    )


def _bar(kind: str, x: float, width: float, height: float) -> str:
    if not height:
        return ""
    size = f'width="{width:.2f}" height="{height:.2f}"'
    return f'<rect class="{kind}" x="{x:.2f}" y="{HEIGHT - height:.2f}" {size}/>'


# --------------------------------------------------------------------------- two texts compared


def side_by_side(left: str, right: str) -> str:
    """Two texts beside each other with the words marked that differ.

    Of long texts it shows the part that begins a little before the first different word.
    """
    words = [re.findall(r"\S+\s*", text[:COMPARED]) for text in (left, right)]
    plain = [[word.strip() for word in text] for text in words]
    same = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(*plain)))
    start = max(0, same - BEFORE)
    cut = [text[start : start + WORDS] for text in plain]
    equal: list[set[int]] = [set(), set()]
    matcher = difflib.SequenceMatcher(None, cut[0], cut[1], autojunk=False)
    for block in matcher.get_matching_blocks():
        equal[0].update(range(block.a, block.a + block.size))
        equal[1].update(range(block.b, block.b + block.size))
    shown = []
    for text, known in zip(words, equal, strict=True):
        part = text[start : start + WORDS]
        marked = "".join(_word(word, i in known) for i, word in enumerate(part))
        before = f"(the first {start:,} words are the same) … " if start else ""
        after = " …" if len(text) > start + WORDS else ""
        shown.append(f'<pre dir="auto">{escape(before)}{marked}{escape(after)}</pre>\n')
    return f'<div class="pair">\n{"".join(shown)}</div>\n'


def _word(word: str, known: bool) -> str:
    bare = word.rstrip()
    space = word[len(bare) :]
    shown = escape(bare if len(bare) <= LONGEST else f"{bare[:LONGEST]}…")
    return (shown if known else f"<mark>{shown}</mark>") + escape(space)
