"""The sections of the report, and the examples in them."""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minillm import files
from minillm.data import filters
from minillm.data.corpus import Shards, forget_files, shard_files, text_key
from minillm.data.documents import Document, Rejected, read_lines
from minillm.data.report import duplicates, page
from minillm.data.stages import QUALITY_BINS, quality_bin
from minillm.data.summary import KEPT, TOKENS, kept
from minillm.data.tally import Step, Tally, bin_start
from minillm.errors import InputError, counted

REPORT = "report.html"
EXAMPLES = 3  # of each rule, and of what is kept
LISTED = 100  # input files named one by one
OTHER_RULES = {  # what they look at, and how their value is to be read
    "unreadable": ("Whether the file or record could be read", ""),
    "no_text": ("The kind of content that a web server named", ""),
    "no_main_text": ("Whether the page has an article or the like", " characters of markup"),
    "empty": ("Whether anything but spaces is left", " characters"),
    "language": ("The language, by the classifier", ""),
    "language_probability": ("How sure the classifier is of the language", ""),
    "exact_duplicate": ("Whether an earlier document is the same letter by letter", ""),
    "near_duplicate": ("Whether an earlier document has nearly the same words", ""),
    "repeated_passages": ("What is left when repeated passages are cut", " characters before"),
    "contamination": ("Runs of words shared with an evaluation set", ""),
    "quality": ("The quality, by the classifier", ""),
}


@dataclass
class _Found:
    """What was found in the files of rejected documents."""

    examples: dict[str, list[tuple[bytes, str, Rejected]]] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    quality: Counter[str] = field(default_factory=Counter)


def write_report(corpus: Path, manifest: Mapping[str, Any]) -> Path:
    """Write the page of the corpus in a folder, which has this manifest; returns the page's path.

    Raises `InputError` where files of the corpus are missing or damaged.
    """
    files.write_text(corpus / REPORT, render(corpus, manifest))
    return corpus / REPORT


def render(corpus: Path, manifest: Mapping[str, Any]) -> str:
    """The page, as `write_report` writes it."""
    for stage in ("clean", "judged", "text"):
        if not (corpus / stage).is_dir():
            raise InputError(f"{corpus / stage} is missing, and the report shows what lies in it")
    tally, recipe = Tally.from_json(manifest["counts"]), manifest["recipe"]
    came, stays = tally.steps.get("read", Step()), kept(tally)
    found = _rejected(corpus)
    opening = page.paragraph(
        f"{counted(came.documents, 'document')} of {came.characters:,} characters came in;"
        f" {stays.documents:,} ({_share(stays.documents, came.documents)}) of"
        f" {stays.characters:,} characters ({_share(stays.characters, came.characters)}) are kept."
    )
    return page.page("What became of the documents", opening, {
        "What came in": _sources(manifest, tally),
        "Steps": _steps(tally),
        "Rules": _rules(tally, recipe, found),
        "Lengths": _lengths(tally),
        "Duplicates": duplicates.section(corpus, recipe),
        "Languages": _languages(tally, recipe, found),
        "Quality": _quality(tally, recipe, found),
        "Kept": _kept(corpus),
        "How it was made": _made(manifest),
    })  # fmt: skip


def _rejected(corpus: Path) -> _Found:
    """Go through all that was rejected, and remember of each rule the smallest hashes."""
    found = _Found()
    for stage in ("clean", "text"):
        for path in shard_files(corpus / stage, ".rejected.jsonl"):
            try:
                for record in read_lines(path):
                    if isinstance(record, Rejected):
                        _remember(record, found)
            except (ValueError, KeyError, AttributeError) as error:
                raise InputError(f"{path} is damaged ({error}); build the corpus again") from error
    return found


def _remember(record: Rejected, found: _Found) -> None:
    document = record.document
    if language := document.metadata.get("language"):
        found.languages[language] += 1
    if "quality" in document.metadata:
        found.quality[str(quality_bin(document))] += 1
    examples = found.examples.setdefault(record.rule, [])
    key = text_key(document.text), document.source
    if len(examples) < EXAMPLES or key < examples[-1][:2]:
        short = Document(page.shortened(document.text), document.source)
        bisect.insort(examples, (*key, Rejected(short, record.rule, record.value)), key=_by_key)
        del examples[EXAMPLES:]


def _by_key(example: tuple[bytes, str, Rejected]) -> tuple[bytes, str]:
    return example[:2]


# ---------------------------------------------------------------------------------- sections


def _sources(manifest: Mapping[str, Any], tally: Tally) -> str:
    sources = manifest["sources"]
    documents = tally.histograms.get("collections", Counter())
    rows = [
        (name, sum(1 for one in sources if one["collection"] == name),
         sum(one["bytes"] for one in sources if one["collection"] == name), documents[name])
        for name in manifest["recipe"]["sources"]
    ]  # fmt: skip
    out = page.table(("collection", "files", "bytes", "documents kept"), rows)
    if manifest["left_out"]:
        left = ", ".join(f"{count:,} {suffix}" for suffix, count in manifest["left_out"].items())
        out += page.paragraph(f"Files of no known kind, left out: {left}.")
    listed = [(one["name"], one["bytes"], one["sha256"] or "unreadable") for one in sources]
    inside = page.table(("file", "bytes", "SHA-256"), listed[:LISTED])
    if len(listed) > LISTED:
        inside += page.paragraph(f"{len(listed) - LISTED:,} more are in the manifest.")
    return out + page.details(f"{len(listed):,} input files", inside)


def _steps(tally: Tally) -> str:
    rows = [
        (name, step.documents, step.rejected.total(), _share(step.rejected.total(), step.documents),
         step.characters, _share(step.removed.total(), step.characters), _notes(step))
        for name, step in tally.steps.items() if not name.startswith((KEPT, TOKENS))
    ]  # fmt: skip
    head = ("step", "documents", "removed", "", "characters", "removed", "besides")
    left = [
        (name, step.documents, step.characters or "", step.notes["tokens"] or "")
        for name, step in tally.steps.items() if name.startswith((KEPT, TOKENS))
    ]  # fmt: skip
    return page.table(head, rows) + page.table(("left", "documents", "characters", "tokens"), left)


def _rules(tally: Tally, recipe: Mapping[str, Any], found: _Found) -> str:
    came = tally.steps.get("read", Step()).documents
    rows, examples = [], ""
    for name, step in tally.steps.items():
        for rule, count in sorted(step.rejected.items(), key=lambda one: (-one[1], one[0])):
            about, limit, unit = _about(rule, recipe)
            rows.append((rule, name, about, limit, count, _share(count, came), step.removed[rule]))
            inside = "".join(
                page.example(f"{record.document.source}: {_value(record.value)}{unit}",
                             record.document.text)
                for _, _, record in found.examples.get(rule, [])
            )  # fmt: skip
            said = f"{rule}: {counted(count, 'document')}" + (f" ({limit} wanted)" if limit else "")
            examples += page.details(f"{said}, for example", inside)
    if not rows:
        return page.paragraph("No document was rejected.")
    head = ("rule", "step", "looks at", "wanted", "documents", "of all", "characters")
    return page.table(head, rows) + examples


def _lengths(tally: Tally) -> str:
    read = tally.histograms.get("characters read", Counter())
    stays = tally.histograms.get("characters kept", Counter())
    out = _length_histogram("Documents by their characters", read, stays)
    if "tokens" not in tally.histograms:
        return out + page.paragraph("The recipe has no vocabulary, so there are no tokens.")
    tokens = tally.histograms["tokens"]
    return out + _length_histogram("Documents by their tokens", Counter(), tokens)


def _length_histogram(caption: str, came: Counter[str], stays: Counter[str]) -> str:
    """A histogram of lengths, each bin named by the least length in it."""
    known = [int(number) for number in (*came, *stays)]
    bins = range(min(known), max(known) + 1) if known else range(0)
    names = [f"{bin_start(number):,}" for number in bins]
    behind = [came[str(number)] for number in bins] if came else []
    return page.histogram(caption, names, behind, [stays[str(number)] for number in bins])


def _languages(tally: Tally, recipe: Mapping[str, Any], found: _Found) -> str:
    if not recipe["language"]["model"]:
        return page.paragraph(
            "The recipe names no classifier of languages (language.model), so none were told."
        )
    stays = tally.histograms.get("languages", Counter())
    came = stays + found.languages
    names = [name for name, _ in sorted(came.items(), key=lambda one: (-one[1], one[0]))]
    rows = [(name, came[name], stays[name], _share(stays[name], came[name])) for name in names]
    drawn = page.histogram(
        "Documents by their language", names, [row[1] for row in rows], [row[2] for row in rows]
    )
    return drawn + page.table(("language", "came in", "kept", ""), rows)


def _quality(tally: Tally, recipe: Mapping[str, Any], found: _Found) -> str:
    if not recipe["quality"]["model"]:
        return page.paragraph(
            "The recipe names no classifier of quality (quality.model), so there are no scores."
        )
    stays = tally.histograms.get("quality", Counter())
    came, bins = stays + found.quality, [str(number) for number in range(QUALITY_BINS)]
    names = [f"{int(number) / QUALITY_BINS:.2f}" for number in bins]
    caption = f"Documents by the probability of {recipe['quality']['label']!r}"
    return page.histogram(
        caption, names, [came[number] for number in bins], [stays[number] for number in bins]
    )


def _kept(corpus: Path) -> str:
    shards = Shards(corpus / "text", len(shard_files(corpus / "text")))
    places = np.linspace(0, len(shards) - 1, min(EXAMPLES, len(shards))).astype(int).tolist()
    shown = [shards.document(i) for i in places]
    forget_files()
    if not shown:
        return page.paragraph("Nothing is kept.")
    return "".join(page.example(one.source, page.shortened(one.text)) for one in shown)


def _made(manifest: Mapping[str, Any]) -> str:
    recipe = json.dumps(manifest["recipe"], indent=2, ensure_ascii=False)
    out = page.details("The recipe", f"<pre>{page.escape(recipe)}</pre>\n")
    return out + page.details("Versions", page.table(("of", ""), manifest["versions"].items()))


# ------------------------------------------------------------------------------------- words


def _about(rule: str, recipe: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a rule looks at, what it wants, and the unit of its values."""
    side, _, name = rule.partition("_")
    if name in filters.MEASURES:
        measure, limit = filters.MEASURES[name], recipe["filters"].get(rule)
        word = "at least" if side == "min" else "at most"
        wanted = "" if limit is None else f"{word} {limit:,g}"
        return f"{measure.about} ({measure.source})", wanted, ""
    limits = {
        "language": ", ".join(recipe["language"]["keep"]),
        "language_probability": f"at least {recipe['language']['min_probability']:g}",
        "quality": f"at least {recipe['quality']['min_probability']:g}",
    }
    about, unit = OTHER_RULES.get(rule, ("", ""))
    return about, limits.get(rule, ""), unit


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.2%}"


def _notes(step: Step) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(step.notes.items()))
