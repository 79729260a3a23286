"""What a corpus is made by: the settings of every stage, as a recipe's sections hold them.

Every class checks itself when it is made. The comment behind a field is its help text on the
command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from minillm.errors import InputError


@dataclass(frozen=True)
class ReadingConfig:
    """How files are read, and how the input is cut into pieces."""

    text_fields: tuple[str, ...] = ("text", "content")  # of JSON and Parquet; the first that is
    separator: str = ""  # pattern of lines that part the documents of a text file
    heading: str = ""  # pattern of lines that begin a document in a text file
    max_bytes: int = 32_000_000  # of a document; a longer one is rejected
    max_ratio: float = 100.0  # an archive that unpacks to more than this is a bomb
    piece_bytes: int = 64_000_000  # of the input that one worker reads at a time

    def __post_init__(self) -> None:
        for name in ("max_bytes", "piece_bytes", "max_ratio"):
            if not getattr(self, name) > 0:
                raise InputError(f"reading.{name} is {getattr(self, name)}; it must be above 0")
        for name in ("separator", "heading"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise InputError(f"reading.{name} is no regular expression: {error}") from error


@dataclass(frozen=True)
class ExtractionConfig:
    """How the main text of a page is found, and how text is repaired."""

    library: Literal["trafilatura", "resiliparse"] = "trafilatura"  # the second is faster
    precision: bool = True  # rather leave text out than let navigation in (trafilatura)
    repair: bool = True  # put wrongly decoded text right (needs ftfy)
    normalise: bool = True  # one spelling for spaces, line ends and composed characters


@dataclass(frozen=True)
class FilterConfig:
    """The thresholds of the rules in `filters.py`, in the order in which they are applied."""

    min_words: float | None = 50  # words in all (Gopher)
    max_words: float | None = 100_000  # words in all (Gopher)
    min_word_length: float | None = 3  # mean characters of a word (Gopher)
    max_word_length: float | None = 10  # mean characters of a word (Gopher)
    max_symbols: float | None = 0.1  # hash signs and ellipses per word (Gopher)
    max_bullet_lines: float | None = 0.9  # share of lines (Gopher)
    max_ellipsis_lines: float | None = 0.3  # share of lines (Gopher)
    min_alphabetic_words: float | None = 0.8  # share of words with a letter (Gopher)
    min_stop_words: float | None = 2  # different ones of eight (Gopher)
    max_lorem_ipsum: float | None = 0  # times (C4)
    max_curly_braces: float | None = 0  # opening ones (C4)
    min_sentences: float | None = 3  # by their ends (C4)
    max_boilerplate_lines: float | None = 0.2  # share of lines (after C4)
    min_terminal_lines: float | None = 0.12  # share of lines that end like a sentence (FineWeb)
    max_short_lines: float | None = 0.67  # share of lines under 30 characters (FineWeb)
    max_code_lines: float | None = 0.4  # share of lines (ours)
    max_markup: float | None = 0.1  # share of characters (ours)
    max_duplicate_lines: float | None = 0.3  # share of lines (Gopher)
    max_duplicate_paragraphs: float | None = 0.3  # share of paragraphs (Gopher)
    max_duplicate_line_letters: float | None = 0.2  # share of characters (Gopher; FineWeb: 0.1)
    max_duplicate_paragraph_letters: float | None = 0.2  # share of characters (Gopher)
    max_top_2_grams: float | None = 0.2  # share of letters (Gopher)
    max_top_3_grams: float | None = 0.18  # share of letters (Gopher)
    max_top_4_grams: float | None = 0.16  # share of letters (Gopher)
    max_duplicate_5_grams: float | None = 0.15  # share of letters (Gopher)
    max_duplicate_6_grams: float | None = 0.14  # share of letters (Gopher)
    max_duplicate_7_grams: float | None = 0.13  # share of letters (Gopher)
    max_duplicate_8_grams: float | None = 0.12  # share of letters (Gopher)
    max_duplicate_9_grams: float | None = 0.11  # share of letters (Gopher)
    max_duplicate_10_grams: float | None = 0.1  # share of letters (Gopher)
    drop_boilerplate: bool = True  # leave out lines about cookies, terms of use ... first (C4)
