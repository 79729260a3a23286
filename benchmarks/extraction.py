"""The main text of web pages: the two libraries that a recipe can choose from, side by side.

    MINILLM_DATA=folder python benchmarks/extraction.py

For every *.html file under the folder: the characters that each library keeps, and how many of its
lines look like what a reader came past, not for: menus, banners, scripts. Such lines are counted by
a short list of words, which is a hint and no verdict: look at the texts where the figures differ.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from _common import row, start, table

from minillm.data.extraction import main_text
from minillm.data.recipe import ExtractionConfig

LIBRARIES = ("trafilatura", "resiliparse")
DEBRIS = re.compile(
    r"cookie|privacy policy|all rights reserved|log ?in|sign up|subscribe|function ?\(|var \w+ =",
    re.IGNORECASE,
)


def main() -> None:
    folder = os.environ.get("MINILLM_DATA")
    pages = sorted(Path(folder).rglob("*.html")) if folder else []
    if not pages:
        raise SystemExit("set MINILLM_DATA to a folder that holds pages, *.html at any depth")
    start(*LIBRARIES)
    texts = [page.read_text(encoding="utf-8", errors="replace") for page in pages]
    size = sum(map(len, texts))
    columns = [f"{library[:5]}. {what}" for what in ("kept", "debris") for library in LIBRARIES]
    table(f"{len(pages)} pages, {size:,} characters", *columns)
    seconds = dict.fromkeys(LIBRARIES, 0.0)
    sums = [0] * len(columns)
    main_text(texts[0], ExtractionConfig("trafilatura"))  # the libraries are loaded
    for page, text in zip(pages, texts, strict=True):
        kept, debris = [], []
        for library in LIBRARIES:
            began = time.perf_counter()
            found = main_text(text, ExtractionConfig(library))
            seconds[library] += time.perf_counter() - began
            kept.append(len(found))
            debris.append(sum(1 for line in found.splitlines() if DEBRIS.search(line)))
        row(page.name[:43], *map(str, kept + debris))
        sums = [total + value for total, value in zip(sums, kept + debris, strict=True)]
    row("all", *map(str, sums))
    table("speed", "MB/s")
    for library in LIBRARIES:
        row(library, size / 1e6 / seconds[library])


if __name__ == "__main__":
    main()
