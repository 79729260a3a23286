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
