"""Filters: rules that say whether a document reads like text that somebody wrote to be read.

A rule is a measure, a small pure function from a page to a number, and a threshold on one side of
it. The recipe's setting `max_symbols = 0.1` is the rule "at most 0.1" on the measure `symbols`
below; `none` turns a rule off. A document meets the rules in the order of the settings
(`recipe.FilterConfig`), and the first that it breaks rejects it.

Each measure names its source:

    Gopher    Rae et al. 2021, "Scaling Language Models", section A.1.1 and table A1
    C4        Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2
    FineWeb   Penedo et al. 2024, "The FineWeb Datasets", section 3.6
    ours      no paper; a threshold found by looking at documents

The thresholds are those of the papers, for English. Words are what stands between spaces, so texts
in scripts without spaces need a recipe that turns the rules about words off.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache, cached_property, lru_cache

from minillm.data import repetition
from minillm.data.documents import Document, Rejected
from minillm.data.recipe import FilterConfig

BULLETS = ("•", "‣", "▪", "◦", "●", "○", "■", "- ", "* ", "– ", "+ ", "·")
ELLIPSES = ("...", "…")
TERMINAL = (".", "!", "?", '"', "”", "。", "！", "？", "…", ".)", "!)", "?)")
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BOILERPLATE = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use cookies",
    "use of cookies", "javascript", "all rights reserved", "click here to",
    "subscribe to our newsletter", "powered by",
)  # fmt: skip
CODE_STARTS = (
    "def ", "#include", "import java", "public class ", "public static ", "private ", "var ",
    "const ", "function ", "elif ", "} else", "$ ", ">>> ", "//", "/*", "</", "<?", "#!/", "@Over",
)  # fmt: skip
CODE_SIGNS = re.compile(r"\(\)|=>|::|==|!=|\+=|&&|\|\|| = |->|</")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]?(?:\s|$)|[。！？]")
_TAG = re.compile(r"</?[a-zA-Z!][^<>\n]{0,300}>|\[\[[^\]\n]*\]\]|\{\{[^}\n]*\}\}")


class Page:
    """A text and what several measures ask of it, found when it is first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not empty, without the spaces around them."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        return [part for part in map(str.strip, self.text.split("\n\n")) if part]

    @cached_property
    def ngram_shares(self) -> list[float]:
        return repetition.ngram_shares(self.text).tolist()

    @cached_property
    def duplicate_lines(self) -> tuple[float, float]:
        return repetition.duplicates(self.lines)

    @cached_property
    def duplicate_paragraphs(self) -> tuple[float, float]:
        return repetition.duplicates(self.paragraphs)

    def share_of_lines(self, is_so: Callable[[str], object]) -> float:
        """The share of lines for which `is_so` holds."""
        return sum(1 for line in self.lines if is_so(line)) / max(1, len(self.lines))


@dataclasses.dataclass(frozen=True)
class Measure:
    """What a rule looks at."""

    name: str
    of: Callable[[Page], float]
    source: str
    about: str  # one line for the report


MEASURES: dict[str, Measure] = {}


def measure(source: str) -> Callable[[Callable[[Page], float]], Callable[[Page], float]]:
    """Put a function among the `MEASURES`, under its name, with its docstring."""

    def add(function: Callable[[Page], float]) -> Callable[[Page], float]:
        about = (function.__doc__ or "").strip().rstrip(".")
        MEASURES[function.__name__] = Measure(function.__name__, function, source, about)
        return function

    return add


# ------------------------------------------------------------------------------------- Gopher


@measure("Gopher")
def words(page: Page) -> float:
    """Words in all."""
    return len(page.words)


@measure("Gopher")
def word_length(page: Page) -> float:
    """Mean number of characters in a word."""
    return sum(map(len, page.words)) / max(1, len(page.words))


@measure("Gopher")
def symbols(page: Page) -> float:
    """Hash signs and ellipses per word."""
    text = page.text
    count = text.count("#") + text.count("...") + text.count("…")
    return count / max(1, len(page.words))


@measure("Gopher")
def bullet_lines(page: Page) -> float:
    """Share of lines that begin with a bullet."""
    return page.share_of_lines(lambda line: line.startswith(BULLETS))


@measure("Gopher")
def ellipsis_lines(page: Page) -> float:
    """Share of lines that end in an ellipsis."""
    return page.share_of_lines(lambda line: line.endswith(ELLIPSES))


@measure("Gopher")
def alphabetic_words(page: Page) -> float:
    """Share of words with at least one letter."""
    if not page.words:
        return 0.0
    mixed = [word for word in page.words if not word.isalpha()]  # most are nothing but letters
    without = len(mixed) - sum(map(_has_letter, mixed))
    return (len(page.words) - without) / len(page.words)


@measure("Gopher")
def stop_words(page: Page) -> float:
    """Different words among the, be, to, of, and, that, have, with."""
    return len(STOP_WORDS.intersection(map(str.lower, page.words)))


@measure("Gopher")
def duplicate_lines(page: Page) -> float:
    """Share of lines that repeat an earlier one."""
    return page.duplicate_lines[0]


@measure("Gopher")
def duplicate_paragraphs(page: Page) -> float:
    """Share of paragraphs that repeat an earlier one."""
    return page.duplicate_paragraphs[0]


@measure("Gopher")
def duplicate_line_letters(page: Page) -> float:
    """Share of characters in lines that repeat an earlier one."""
    return page.duplicate_lines[1]


@measure("Gopher")
def duplicate_paragraph_letters(page: Page) -> float:
    """Share of characters in paragraphs that repeat an earlier one."""
    return page.duplicate_paragraphs[1]


def _ngram_share(at: int) -> Callable[[Page], float]:
    return lambda page: page.ngram_shares[at]


def _add_ngrams() -> None:
    for at, n in enumerate(repetition.SIZES):
        name = f"top_{n}_grams" if n <= repetition.TOP else f"duplicate_{n}_grams"
        covers = "the most frequent run" if n <= repetition.TOP else "repeated runs"
        about = f"Share of letters in {covers} of {n} words"
        MEASURES[name] = Measure(name, _ngram_share(at), "Gopher", about)


_add_ngrams()

# ----------------------------------------------------------------------------------------- C4


@measure("C4")
def curly_braces(page: Page) -> float:
    """Opening curly braces, which code has and prose has not."""
    return page.text.count("{")


@measure("C4")
def lorem_ipsum(page: Page) -> float:
    """Times that the filler of designers occurs."""
    return page.text.lower().count("lorem ipsum")


@measure("C4")
def sentences(page: Page) -> float:
    """Sentences, by their ends."""
    return sum(1 for _ in _SENTENCE_END.finditer(page.text))


@measure("C4")
def boilerplate_lines(page: Page) -> float:
    """Share of lines that speak of cookies, terms of use, JavaScript and the like."""
    return page.share_of_lines(_is_boilerplate) if _is_boilerplate(page.text) else 0.0


# ------------------------------------------------------------------------------------ FineWeb


@measure("FineWeb, after C4")
def terminal_lines(page: Page) -> float:
    """Share of lines that end like a sentence."""
    return page.share_of_lines(lambda line: line.endswith(TERMINAL))


@measure("FineWeb")
def short_lines(page: Page) -> float:
    """Share of lines of fewer than 30 characters."""
    return page.share_of_lines(lambda line: len(line) < 30)


# --------------------------------------------------------------------------------------- ours


@measure("ours")
def code_lines(page: Page) -> float:
    """Share of lines that look like a program's."""
    return page.share_of_lines(_is_code)


@measure("ours")
def markup(page: Page) -> float:
    """Share of characters in tags and wiki marks."""
    text = page.text
    if "<" not in text and "[[" not in text and "{{" not in text:
        return 0.0
    return sum(len(match[0]) for match in _TAG.finditer(text)) / max(1, len(text))


@lru_cache(1 << 16)  # the same few marks and numbers come again and again
def _has_letter(word: str) -> bool:
    return any(map(str.isalpha, word))


def _is_boilerplate(text: str) -> bool:
    small = text.lower()
    return any(phrase in small for phrase in BOILERPLATE)


def _is_code(line: str) -> bool:
    return (
        line.endswith((";", "{", "}"))
        or line.startswith(CODE_STARTS)
        or CODE_SIGNS.search(line) is not None
    )


# -------------------------------------------------------------------------------------- rules


@cache
def rules(config: FilterConfig) -> tuple[tuple[str, Measure, bool, float], ...]:
    """The rules in force: name, measure, whether the threshold is the least value, threshold."""
    found = []
    for field in dataclasses.fields(config):
        side, _, name = field.name.partition("_")
        threshold = getattr(config, field.name)
        if name in MEASURES and threshold is not None:
            found.append((field.name, MEASURES[name], side == "min", threshold))
    return tuple(found)


def check(document: Document, config: FilterConfig) -> Document | Rejected:
    """The document, or the first rule that it breaks and the value that was measured."""
    page = Page(document.text)
    for name, measured, least, threshold in rules(config):
        value = measured.of(page)
        if value < threshold if least else value > threshold:
            return Rejected(document, name, value)
    return document


def measure_all(text: str) -> dict[str, float]:
    """Every measure of a text, by name."""
    page = Page(text)
    return {name: found.of(page) for name, found in MEASURES.items()}


def without_boilerplate(document: Document) -> Document:
    """The document without the lines that speak of cookies, terms of use and the like (C4).

    Lines of more than 200 characters stay: those are about the matter, not notices.
    """
    if not _is_boilerplate(document.text):
        return document
    lines = document.text.split("\n")
    kept = [line for line in lines if len(line) > 200 or not _is_boilerplate(line)]
    if len(kept) == len(lines):
        return document
    return Document("\n".join(kept).strip(), document.source, document.metadata)
