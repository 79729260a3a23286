"""What a corpus is made by: the settings of every stage, as a recipe's sections hold them.

Every class checks itself when it is made. The comment behind a field is its help text on the
command line.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from minillm.errors import InputError


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{name} is {value}; at least 0 and below 1")


@dataclass(frozen=True)
class ReadingConfig:
    """How files are read, and how the input is cut into pieces."""

    text_fields: tuple[str, ...] = ("text", "content")  # of JSON and Parquet; the first that is
    separator: str = ""  # pattern of lines that part the documents of a text file
    heading: str = ""  # pattern of lines that begin a document in a text file
    rows: Literal["documents", "lines"] = "documents"  # of Parquet; lines are parted as in text
    max_bytes: int = 32_000_000  # of a document; a longer one is rejected
    max_ratio: float = 100.0  # an archive that unpacks to more than this is a bomb
    piece_bytes: int = 16_000_000  # of the input that one worker reads at a time

    def __post_init__(self) -> None:
        for name in ("max_bytes", "piece_bytes", "max_ratio"):
            if not getattr(self, name) > 0:
                raise InputError(f"reading.{name} is {getattr(self, name)}; it must be above 0")
        for name in ("separator", "heading"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise InputError(f"reading.{name} is no regular expression: {error}") from error
        if self.rows == "lines" and not (self.separator or self.heading):
            raise InputError("reading.rows: lines need reading.separator or reading.heading")


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
    apply: bool = True  # whether these rules are applied at all
    drop_boilerplate: bool = True  # leave out lines about cookies, terms of use ... first (C4)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int:  # so that 10 and 10.0 are the same recipe
                object.__setattr__(self, name, float(value))


@dataclass(frozen=True)
class LanguageConfig:
    """Which languages stay; a classifier tells them (`minillm data classify train`)."""

    model: str = ""  # a saved classifier; without it no language is told
    keep: tuple[str, ...] = ()  # labels that stay; none: all
    min_probability: float = 0.65  # of the label, below which a document goes

    def __post_init__(self) -> None:
        _share("language.min_probability", self.min_probability)
        if self.keep and not self.model:
            raise InputError("language.keep needs language.model, a classifier that tells them")


@dataclass(frozen=True)
class MaskingConfig:
    """Whether what is personal is masked."""

    personal: bool = True  # e-mail addresses, telephone numbers, IP addresses and keys


@dataclass(frozen=True)
class DuplicatesConfig:
    """Which documents count as the same."""

    exact: bool = True  # remove documents that repeat an earlier one letter by letter
    near: float | None = 0.8  # and those whose word n-grams are so alike (Jaccard)
    permutations: int = 128  # numbers in a signature
    ngram: int = 5  # words in an n-gram
    passages: int = 0  # cut passages of so many bytes that stood before; 0: none
    seed: int = 0  # of the permutations

    def __post_init__(self) -> None:
        if self.near is not None and not 0 < self.near <= 1:
            raise InputError(f"duplicates.near is {self.near}; above 0 and up to 1, or none")
        for name in ("permutations", "ngram"):
            if getattr(self, name) < 1:
                raise InputError(f"duplicates.{name} is {getattr(self, name)}; at least 1")
        if self.passages < 0:
            raise InputError(f"duplicates.passages is {self.passages}; at least 0")


@dataclass(frozen=True)
class ContaminationConfig:
    """Evaluation sets that training must not have seen."""

    paths: tuple[str, ...] = ()  # files or folders of them, in any format
    ngram: int = 13  # words in a row that may not be shared

    def __post_init__(self) -> None:
        if self.ngram < 1:
            raise InputError(f"contamination.ngram is {self.ngram}; at least 1")


@dataclass(frozen=True)
class QualityConfig:
    """A classifier of quality, as a filter, as a sampling weight, or both."""

    model: str = ""  # a saved classifier
    label: str = "good"  # the label whose probability is a document's quality
    min_probability: float = 0.0  # below it a document goes
    weight: bool = False  # whether a document is seen as often as its quality is above the mean

    def __post_init__(self) -> None:
        _share("quality.min_probability", self.min_probability)


@dataclass(frozen=True)
class SplitConfig:
    """The part that is held out."""

    validation: float = 0.01  # share of all characters

    def __post_init__(self) -> None:
        _share("split.validation", self.validation)


@dataclass(frozen=True)
class VocabularyConfig:
    """The tokens that the text becomes."""

    path: str = ""  # a saved tokenizer
    size: int = 0  # or so many entries of byte-level BPE, learned from the text; 0: no tokens
    pattern: str = "gpt4"  # how text is split before merging
    sample_bytes: int = 100_000_000  # of training text that it is learned from

    def __post_init__(self) -> None:
        if self.size and self.size < 262:
            raise InputError(f"vocabulary.size is {self.size}; it takes 262 or more")
        if self.sample_bytes < 1:
            raise InputError(f"vocabulary.sample_bytes is {self.sample_bytes}; at least 1")


SECTIONS: dict[str, type] = {
    "reading": ReadingConfig,
    "extraction": ExtractionConfig,
    "language": LanguageConfig,
    "filters": FilterConfig,
    "masking": MaskingConfig,
    "duplicates": DuplicatesConfig,
    "contamination": ContaminationConfig,
    "quality": QualityConfig,
    "split": SplitConfig,
    "vocabulary": VocabularyConfig,
}


@dataclass(frozen=True)
class Recipe:
    """All that decides what becomes of the input.

    `sources` are the paths of each collection. A collection of weight w makes up w of the weights'
    sum of all tokens that are seen; without weights each is seen `epochs` times (1 by default).
    """

    sources: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, float] = field(default_factory=dict)
    reading: ReadingConfig = ReadingConfig()
    extraction: ExtractionConfig = ExtractionConfig()
    language: LanguageConfig = LanguageConfig()
    filters: FilterConfig = FilterConfig()
    masking: MaskingConfig = MaskingConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    quality: QualityConfig = QualityConfig()
    split: SplitConfig = SplitConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()

    def __post_init__(self) -> None:
        for table in ("weights", "epochs"):
            for name, value in getattr(self, table).items():
                if name not in self.sources:
                    known = ", ".join(self.sources)
                    raise InputError(f"{table}.{name} is of no source; there are {known}")
                if not 0 <= value < math.inf:
                    raise InputError(f"{table}.{name} is {value}; at least 0, and finite")
        if self.weights and self.epochs:
            raise InputError("give weights or epochs, not both: one follows from the other")

    def to_dict(self) -> dict[str, Any]:
        """The recipe in sections, as JSON and TOML hold it."""
        return dataclasses.asdict(self)
