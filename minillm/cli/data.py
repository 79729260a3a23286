"""`minillm data`: make a corpus of raw files, look at what the rules say, fetch public sets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minillm import backend
from minillm.cli import classify, get, settings
from minillm.data import executors, filters, pipeline, reading, summary
from minillm.data.corpus import digest
from minillm.data.documents import Document, Rejected
from minillm.data.extraction import extract
from minillm.data.masking import mask
from minillm.data.progress import reporter
from minillm.data.recipe import SECTIONS, Recipe
from minillm.data.repair import normalise, repair
from minillm.data.report import REPORT, write_report
from minillm.data.tally import Tally
from minillm.errors import InputError

RECIPES = settings.RECIPES / "data"
RECIPE = "web"
TABLES = ("sources", "weights", "epochs")  # of a recipe, with a line per collection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm data` and the commands below it."""
    leaves = parser.add_subparsers(metavar="COMMAND", required=True)

    shipped = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
    leaf = leaves.add_parser("get", help="download a well-known public set of texts")
    get.add_arguments(leaf)

    leaf = leaves.add_parser("build", help="make a clean corpus of raw files, or go on making it")
    leaf.add_argument(
        "paths", nargs="*", help="files or folders of text, HTML, JSON Lines, Parquet, WARC;\n"
        "NAME=PATH puts what is there into the collection NAME",
    )  # fmt: skip
    leaf.add_argument(
        "--recipe", default=RECIPE, metavar="RECIPE",
        help=f"{shipped}, a TOML file, or, to make a corpus again,\nits manifest.json ({RECIPE})",
    )  # fmt: skip
    leaf.add_argument("--out", type=Path, required=True, help="the folder of the corpus")
    leaf.add_argument("--workers", type=settings.count, default=0, help="default: one per core")
    leaf.add_argument("--executor", choices=executors.KINDS, default="processes")
    leaf.set_defaults(run=build, takes_settings=settings.flags(SECTIONS))
    leaf.epilog = (
        "settings, in a recipe (section, key = value) or as flags; a recipe may have the tables\n"
        "[sources], [weights] and [epochs], too, with a line for each collection:\n\n"
        f"{settings.describe(SECTIONS)}"
    )

    leaf = leaves.add_parser("show", help="what came into a corpus, and what was removed")
    leaf.add_argument("corpus", type=Path, help="its folder")
    leaf.set_defaults(run=show)

    leaf = leaves.add_parser("report", help="write the page about a corpus again")
    leaf.add_argument("corpus", type=Path, help="its folder")
    leaf.set_defaults(run=write_page)

    leaf = leaves.add_parser("check", help="whether a corpus is what its manifest says")
    leaf.add_argument("corpus", type=Path, help="its folder")
    leaf.set_defaults(run=check)

    leaf = leaves.add_parser("look", help="what a recipe's steps make of single documents")
    leaf.add_argument("path", help="a file of any format")
    leaf.add_argument("--recipe", default=RECIPE)
    leaf.add_argument("--most", type=settings.count, default=3, help="documents shown (3)")
    leaf.set_defaults(run=look, takes_settings=settings.flags(SECTIONS))

    leaf = leaves.add_parser("classify", help="train and use a classifier of texts")
    classify.add_arguments(leaf)


def build(arguments: argparse.Namespace) -> None:
    """Make a corpus."""
    recipe = read_recipe(arguments.recipe, arguments.paths, arguments.overrides)
    backend.return_freed_memory()  # the workers need it
    with reporter() as report, executors.make(arguments.executor, arguments.workers) as executor:
        manifest = pipeline.build(recipe, arguments.out, executor, report)
    print()
    _print_table(manifest)
    print(f"\nthe corpus is in {arguments.out}: {pipeline.MANIFEST} says how it was made,"
          f" {REPORT} shows what was removed")  # fmt: skip


def show(arguments: argparse.Namespace) -> None:
    """Print the table of a corpus."""
    _print_table(read_manifest(arguments.corpus))


def write_page(arguments: argparse.Namespace) -> None:
    """Write the page about a corpus."""
    print(f"written: {write_report(arguments.corpus, read_manifest(arguments.corpus))}")


def check(arguments: argparse.Namespace) -> int:
    """Compare every file of a corpus with its hash in the manifest; the exit status."""
    manifest = read_manifest(arguments.corpus)
    wrong = []
    for name, expected in manifest["files"].items():
        path = arguments.corpus / name
        if not path.exists():
            wrong.append(f"{name} is missing")
        elif digest(path) != expected:
            wrong.append(f"{name} has changed")
    for line in wrong:
        print(line)
    print(f"{len(manifest['files']) - len(wrong):,} of {len(manifest['files']):,} files are as the"
          " manifest says")  # fmt: skip
    return 1 if wrong else 0


def look(arguments: argparse.Namespace) -> None:
    """Print what the steps and the rules say of the first documents of a file."""
    recipe = read_recipe(arguments.recipe, [arguments.path], arguments.overrides)
    shown = 0
    for piece in reading.plan(recipe.sources, recipe.reading).pieces:
        for record in reading.read(piece, recipe.reading):
            if shown == arguments.most:
                return
            shown += 1
            _print_document(record, recipe)


# ----------------------------------------------------------------------------------- recipes


def read_recipe(name: str, paths: Sequence[str], overrides: Mapping[str, str]) -> Recipe:
    """The recipe in a file, with these paths in place of its sources and with the flags' changes.

    Raises `InputError` for a recipe that is wrong, and where there are no sources.
    """
    values = _values(name) | dict(overrides)
    tables: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    for key in list(values):
        table, _, collection = key.partition(".")
        if table in tables:
            tables[table][collection] = values.pop(key)
    if paths:
        tables["sources"] = _collections(paths)
    if not tables["sources"]:
        raise InputError("nothing to read: name files or folders, or give a recipe with [sources]")
    sources = {
        collection: settings.convert(
            tuple[str, ...], [found] if type(found) is str else found, f"sources.{collection}"
        )
        for collection, found in tables["sources"].items()
    }
    numbers = {
        table: {key: settings.convert(float, value, f"{table}.{key}")
                for key, value in tables[table].items()}
        for table in ("weights", "epochs")
    }  # fmt: skip
    sections = settings.build(SECTIONS, values)
    return Recipe(sources, numbers["weights"], numbers["epochs"], **sections)


def _values(name: str) -> dict[str, Any]:
    """The settings of a recipe or of the one in a manifest; TOML has no null, so "none" is it."""
    if not name.endswith(".json"):
        values = settings.read_recipe(settings.find_recipe(name, RECIPES))
        return {key: None if value == "none" else value for key, value in values.items()}
    try:
        return settings.flatten(json.loads(Path(name).read_text(encoding="utf-8"))["recipe"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name} is no manifest of a corpus") from error


def _collections(paths: Sequence[str]) -> dict[str, list[str]]:
    """Paths by collection; those without a name are of the collection "text"."""
    found: dict[str, list[str]] = {}
    for path in paths:
        name, equals, rest = path.partition("=")
        named = equals and name.isidentifier() and not Path(path).exists()
        found.setdefault(name if named else "text", []).append(rest if named else path)
    return found


def read_manifest(corpus: Path) -> dict[str, Any]:
    """The manifest of a corpus. Raises `InputError` where there is none."""
    try:
        return json.loads((corpus / pipeline.MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{corpus} is no finished corpus: it has no {pipeline.MANIFEST};"
            " `minillm data build` makes one, and goes on where it was stopped"
        ) from error
    except ValueError as error:
        raise InputError(f"{corpus / pipeline.MANIFEST} is damaged: {error}") from error


# -------------------------------------------------------------------------------- what is shown


def _print_table(manifest: Mapping[str, Any]) -> None:
    for line in summary.table(Tally.from_json(manifest["counts"])):
        print(line)
    if manifest["left_out"]:
        left = ", ".join(f"{count} {suffix}" for suffix, count in manifest["left_out"].items())
        print(f"files of no known kind, left out: {left}")


def _print_document(record: Document | Rejected, recipe: Recipe) -> None:
    if isinstance(record, Document):
        record = extract(record, recipe.extraction)
    if isinstance(record, Rejected):
        print(f"\n{record.document.source}: {record.rule} ({record.value})")
        return
    document = repair(record) if recipe.extraction.repair else record
    document = filters.without_boilerplate(normalise(document))
    found = filters.check(document, recipe.filters)
    masked, counts = mask(document)
    print(f"\n{document.source}: {len(document.text):,} characters; ", end="")
    print(f"{found.rule} rejects it" if isinstance(found, Rejected) else "no rule rejects it")
    for name, value in filters.measure_all(document.text).items():
        about = filters.MEASURES[name]
        print(f"  {name:<30}{value:>12.4g}   {about.about} ({about.source})")
    print(f"  masked: {dict(counts) or 'nothing'}\n")
    print("\n".join(f"  | {line}" for line in masked.text[:1000].splitlines()))
