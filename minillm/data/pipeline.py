"""The pipeline: raw files become a clean, unique corpus in token shards, and can be made again.

    sources      the hash of every input file                        some files at a time
    clean        documents that read like text                       each piece of the input
    judged       who repeats whom, who is held out                   all together
    text         new, untainted documents with their split           each shard
    vocabulary   a tokenizer, learned from the text or taken over    all together
    tokens       the same as token ids                               each shard

A stage is a function from shard to shard (`stages.py`), run by any `concurrent.futures.Executor`.
Every shard's last file says that it is done, so a run that was killed goes on at the first shard
that is not. Every stage's folder says what it was made from: where the recipe, the input or a model
has changed, the stage is made again, and what lies before it is not.

At the end stand `report.html`, for people, and `manifest.json`: sources with their hashes, recipe,
counts, hashes of all that was made, and versions. They hold no times and no places, so the same
input and recipe give the same, whoever did the work and however often it was interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import minillm
from minillm import files, tokenizer
from minillm.data import reading, stages
from minillm.data.corpus import digest, read_done, write_done
from minillm.data.documents import read_kept
from minillm.data.executors import SerialExecutor
from minillm.data.judging import judge
from minillm.data.labels import check_labels
from minillm.data.progress import Progress
from minillm.data.recipe import Recipe
from minillm.data.report import REPORT, write_report
from minillm.data.shards import INDEX, write_index
from minillm.data.stages import Task
from minillm.data.tally import Tally
from minillm.errors import InputError
from minillm.tokenizer import BPETokenizer
from minillm.tokenizer.chat import SPECIAL_TOKENS

VERSION = 4  # of what the stages write; a new one makes all of it again
MANIFEST = "manifest.json"
STAGES = ("sources", "clean", "judged", "text", "vocabulary", "tokens")  # and their folders
MADE_FROM = "stage.json"  # in each of them
PACKAGES = ("numpy", "numba", "regex", "pyarrow", "zstandard", "warcio", "trafilatura",
            "resiliparse", "ftfy")  # fmt: skip
AT_ONCE = 1000  # tasks handed out, so that a large corpus does not fill a queue
Work = Callable[[Task], dict[str, Any]]


def build(
    recipe: Recipe,
    out: Path,
    executor: Executor | None = None,
    report: Progress | None = None,
) -> dict[str, Any]:
    """Make the corpus in the folder `out`, or go on making it; returns its manifest.

    Args:
        recipe: what to do with what.
        out: made if it is missing; what is done there already is not done again.
        executor: who does the work; this process by default. It must see the same folders.
        report: whom to tell how it goes.

    Raises `InputError` where a source is missing or there is nothing to read, where a package is
    missing, where another process is at work in `out`, and where `out` holds other things under the
    names of the stages, or lies in a source.
    """
    out = Path(out)
    _check_place(out, recipe)
    out.mkdir(parents=True, exist_ok=True)
    with files.locked(out, "building a corpus"):
        return _Build(recipe, out, executor or SerialExecutor(), report or Progress()).run()


def _check_place(out: Path, recipe: Recipe) -> None:
    """Raise `InputError` where a corpus in `out` would read itself, or replace what is not ours."""
    for path in (Path(path) for paths in recipe.sources.values() for path in paths):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{out} lies in {path}, which is to be read; choose another place")
    for folder in (out / name for name in STAGES):
        ours = not folder.exists() or (folder / MADE_FROM).exists()
        if not ours and not (folder.is_dir() and all(map(_is_leftover, folder.iterdir()))):
            raise InputError(f"{folder} is not of a corpus, and would be replaced; choose another")


def _is_leftover(path: Path) -> bool:
    """Whether a killed process has left this half done."""
    return path.match(".*.tmp")


class _Build:
    """The state of one call of `build`; its arguments."""

    def __init__(self, recipe: Recipe, out: Path, executor: Executor, report: Progress) -> None:
        self.recipe, self.out, self.executor, self.report = recipe, out, executor, report
        self.key = f"version {VERSION}"  # of the stages so far: what they were made from
        self.files: dict[str, str] = {}  # hash of each file that was made
        self.tally = Tally()

    def run(self) -> dict[str, Any]:
        """All stages, in order."""
        recipe = self.recipe
        check_labels(recipe)
        plan = reading.plan(recipe.sources, recipe.reading)
        if not plan.pieces:
            names = ", ".join(path for paths in recipe.sources.values() for path in paths)
            raise InputError(f"nothing to read in {names or 'no sources'}")
        pieces, count = plan.pieces, len(plan.pieces)
        whole = dict.fromkeys(
            dataclasses.replace(part, start=0, stop=None, size=Path(part.path).stat().st_size)
            for piece in pieces
            for part in piece
        )
        together = tuple(reading.grouped(list(whole), recipe.reading.piece_bytes))
        stamps = [
            [(part.name, part.size, Path(part.path).stat().st_mtime_ns) for part in piece]
            for piece in together
        ]
        hashed = self.stage("sources", {"stamps": stamps})
        found = self.each(hashed, stages.hash_files, [
            self.task(hashed, number, sum(part.size for part in piece), piece=piece)
            for number, piece in enumerate(together)
        ])  # fmt: skip
        sources = [source for one in found for source in one["sources"]]

        cleaning = ("reading", "extraction", "language", "filters", "masking")
        clean = self.stage("clean", self.settings(*cleaning)
                           | {"cut": [[str(part) for part in piece] for piece in pieces]}
                           | self.settings("duplicates")
                           | {"model": _stamp(recipe.language.model)})  # fmt: skip
        self.each(clean, stages.clean, [
            self.task(clean, number, sum(part.size for part in piece), piece=piece)
            for number, piece in enumerate(pieces)
        ])  # fmt: skip

        evaluation = [_stamp(path) for path in recipe.contamination.paths]
        judged = self.stage("judged", self.settings("duplicates", "split", "contamination")
                            | {"evaluation": evaluation})  # fmt: skip
        self.once(judged, lambda: judge(judged, clean, count, recipe))
        grading = self.settings("quality") | {"model": _stamp(recipe.quality.model)}
        text = self.stage("text", grading)
        self.each(text, stages.select, [
            self.task(text, number, (clean / f"{number:05d}.jsonl").stat().st_size,
                      before=clean, judged=judged, shards=count)
            for number in range(count)
        ])  # fmt: skip
        if recipe.vocabulary.path or recipe.vocabulary.size:
            self.tokens(text, count)
        return self.finish(sources, plan.left_out)

    def tokens(self, text: Path, count: int) -> None:
        """The stages that turn text into tokens."""
        recipe = self.recipe
        path = recipe.vocabulary.path
        vocabulary = self.stage("vocabulary", self.settings("vocabulary") | {"file": _stamp(path)})
        self.once(vocabulary, lambda: self.vocabulary(vocabulary, text, count))
        tokens = self.stage("tokens", {"collections": list(recipe.sources)})
        found = self.each(tokens, stages.tokenize, [
            self.task(tokens, number, (text / f"{number:05d}.jsonl").stat().st_size,
                      before=text, judged=vocabulary)
            for number in range(count)
        ])  # fmt: skip
        made = tokenizer.load(vocabulary / "tokenizer.json")
        splits = {
            split: [
                {"file": f"{split}-{number:05d}.bin", "tokens": one["tokens"][split],
                 "documents": f"{split}-{number:05d}.documents"}
                for number, one in enumerate(found) if one["tokens"][split]
            ]
            for split in stages.SPLITS
        }  # fmt: skip
        if not (tokens / "tokenizer.json").exists():
            made.save(tokens / "tokenizer.json")
        write_index(
            tokens,
            made.vocab_size,
            splits,
            marked=SPECIAL_TOKENS[0] in made.special_tokens,
            collections=list(recipe.sources),
            mixture={"weights": dict(recipe.weights), "epochs": dict(recipe.epochs)},
        )
        for name in (INDEX, "tokenizer.json"):
            self.files[f"tokens/{name}"] = digest(tokens / name)

    def vocabulary(self, folder: Path, text: Path, count: int) -> dict[str, Any]:
        """Take over the tokenizer of the recipe, or learn one from documents spread evenly."""
        settings = self.recipe.vocabulary
        if settings.path:
            made = tokenizer.load(Path(settings.path))
        else:
            sizes = sum((text / f"{number:05d}.jsonl").stat().st_size for number in range(count))
            every = max(1, -(-sizes // settings.sample_bytes))
            paths = [text / f"{number:05d}.jsonl" for number in range(count)]
            training = (
                document.text
                for path in paths
                for document in read_kept(path)
                if document.metadata["split"] == stages.SPLITS[0]
            )
            sample = (one for number, one in enumerate(training) if number % every == 0)
            made = BPETokenizer.train(sample, settings.size, SPECIAL_TOKENS, settings.pattern)
        made.save(folder / "tokenizer.json")
        return {"vocabulary": made.vocab_size}

    # ------------------------------------------------------------------ stages and their folders

    def settings(self, *sections: str) -> dict[str, Any]:
        """Sections of the recipe."""
        return {name: dataclasses.asdict(getattr(self.recipe, name)) for name in sections}

    def stage(self, name: str, made_from: dict[str, Any]) -> Path:
        """The folder of a stage; what is there stays if it was made from the same."""
        text = json.dumps([self.key, name, made_from], sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()
        folder, before = self.out / name, self.out / f".{name}.tmp"
        known = folder / MADE_FROM
        if not known.exists() or json.loads(known.read_text())["key"] != self.key:
            files.delete(before)
            if folder.exists():  # it goes in one moment: half of one would be taken for whole
                folder.rename(before)
            folder.mkdir()
            files.write_text(known, json.dumps({"key": self.key}) + "\n")
        files.delete(before)
        for leftover in filter(_is_leftover, folder.iterdir()):
            files.delete(leftover)
        return folder

    def task(self, folder: Path, number: int, size: int, **more: Any) -> Task:
        """A task of a stage."""
        return Task(number, folder.resolve(), self.recipe, size, **more)

    def each(self, folder: Path, work: Work, tasks: list[Task]) -> list[dict[str, Any]]:
        """Do the tasks of a stage that are not done; what all of them found, in order."""
        waiting = [task for task in tasks if not task.done.exists()]
        self.report.begin(folder.name, len(waiting), sum(task.size for task in waiting))
        at_once = 1 if isinstance(self.executor, SerialExecutor) else AT_ONCE
        running: dict[Future, Task] = {}
        queue = list(reversed(waiting))
        try:
            while queue or running:
                while queue and len(running) < at_once:
                    task = queue.pop()
                    running[self.executor.submit(work, task)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    steps = future.result()["tally"]["steps"].values()
                    count = max((step["documents"] for step in steps), default=0)
                    self.report.shard(task.size, count)
        except BrokenProcessPool as error:
            raise InputError(
                f"a worker of the stage {folder.name!r} died, for want of memory perhaps; what is"
                " done is kept, and the same command goes on (fewer --workers need less memory)"
            ) from error
        finally:
            for future in running:
                future.cancel()
        self.report.end()
        return [self.counted(folder, task.done) for task in tasks]

    def once(self, folder: Path, work: Callable[[], dict[str, Any]]) -> None:
        """Do what concerns all shards together, unless it is done."""
        done = folder / "00000.json"
        self.report.begin(folder.name, 0, 0)
        if not done.exists():
            about = work()
            made = [path for path in sorted(folder.iterdir()) if path.name != MADE_FROM]
            write_done(done, Tally(), [path for path in made if path.is_file()], about=about)
        self.counted(folder, done)

    def counted(self, folder: Path, done: Path) -> dict[str, Any]:
        """What a task found, added to the whole."""
        found = read_done(done)
        if found is None:
            raise InputError(f"{done} is missing though its task ended; is the folder shared?")
        self.tally.add(Tally.from_json(found["tally"]))
        self.files |= {f"{folder.name}/{name}": sha for name, sha in found["files"].items()}
        return found

    # ------------------------------------------------------------------ manifest

    def finish(self, sources: list[dict[str, Any]], left_out: Any) -> dict[str, Any]:
        """Write the report and the manifest; returns the manifest."""
        manifest = {
            "format": "minillm corpus 1",
            "sources": sources,
            "left_out": dict(left_out),
            "recipe": self.recipe.to_dict(),
            "counts": self.tally.to_json(),
            "files": {name: self.files[name] for name in sorted(self.files)},
            "versions": versions(),
        }
        text, path = json.dumps(manifest, indent=2) + "\n", self.out / MANIFEST
        known = path.exists() and path.read_text(encoding="utf-8") == text
        if not known or not (self.out / REPORT).exists():
            write_report(self.out, manifest)
            files.write_text(path, text)
        return manifest


def versions() -> dict[str, str]:
    """The versions of what the result depends on."""
    found = {
        "minillm": minillm.__version__,
        "python": platform.python_version(),
        "unicode": unicodedata.unidata_version,
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _stamp(path: str) -> Any:
    """What changes when a file, or a file under a folder, does."""
    place = Path(path)
    if not path or not place.exists():
        return path
    inside: Iterable[Path] = sorted(place.rglob("*")) if place.is_dir() else [place]
    return [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in inside if p.is_file()]
