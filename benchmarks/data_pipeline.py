"""The data pipeline on gigabytes of JSON Lines: rates, memory, and runs that are killed.

    python benchmarks/data_pipeline.py              2 GB: every stage's time, rate and peak memory
    python benchmarks/data_pipeline.py --gb 0.1     less of it
    python benchmarks/data_pipeline.py kill         then killed at random moments, and compared
    python benchmarks/data_pipeline.py make --input in.jsonl     only the input, for --input later

The input is made first. Its text is that of novels and of WikiText where MINILLM_DATA names a
folder with them, else random words; every fourth word is replaced by another one, so that no two
documents or passages agree by accident. Planted are: exact copies (4 %), near copies with 2 % of
their words changed (6 %), short documents (4 %), pages of HTML (5 %), notices that web pages carry
(10 %), one licence of 900 characters (3 %), addresses to mask (5 %), and lines that are no JSON or
hold no text (1 %). The recipe is `web`, with repeated passages cut and a vocabulary learned.

Memory is that of all processes of the run together, sampled: the sum of their proportional set
sizes (PSS: a page that n processes share counts one n-th for each), and of their resident set sizes
(RSS). Both hold the pages of mapped files. Needs Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _common import row, start, table, verdict

RECIPE = ["--duplicates.passages", "200", "--vocabulary.size", "32768"]
STAGES = ("sources", "clean", "judged", "text", "vocabulary", "tokens")
EVERY = 0.2  # seconds between two looks at memory
LIMIT = 1.5e9  # bytes of memory, wanted
OTHER = 0.25  # of the words are replaced

LICENCE = (
    "Permission is granted to every reader of this page to copy what is written here, to change it "
    "and to hand it on, as long as this note goes with it and the names above are not taken away. "
    "What is said here is said in good faith and without any warranty; whoever relies on it does "
    "so at a risk of their own, and nobody who wrote a part of it can be made to answer for that. "
) * 2
NOTICES = (
    "This site uses cookies to make your visit better.",
    "Read our privacy policy and the terms of use.",
    "Please turn on JavaScript to see this page as it was meant.",
)
BAD_LINES = (
    '{"text": "cut off in the mid',
    "not JSON at all",
    '{"title": "nothing to read"}',
    "[]",
)


# ------------------------------------------------------------------------------------- input


def base_words() -> list[str]:
    """Words as they follow each other in real text, or random ones; line ends stick to them."""
    paths = []
    if "MINILLM_DATA" in os.environ:
        folder = Path(os.environ["MINILLM_DATA"]) / "text"
        paths = [
            *sorted(folder.glob("novels_en_dev/*.txt")),
            folder / "wikitext2/train.txt",
        ]
    text = "\n".join(path.read_text("utf-8") for path in paths if path.exists())
    if text:
        return text.split(" ")
    rng = random.Random(0)
    words = [f"{rng.getrandbits(20):x}" for _ in range(50_000)] + [
        "the",
        "of",
        "and",
        "to",
    ] * 2000
    ends = ["", "", "", "", "", "", "", "", ".", ".\n"]
    return [rng.choice(words) + rng.choice(ends) for _ in range(2_000_000)]


def documents(seed: int) -> Iterator[str]:
    """Texts without end, each a stretch of the base with other words strewn in."""
    rng = np.random.default_rng(seed)
    different: dict[str, int] = {}
    ids = np.array([different.setdefault(word, len(different)) for word in base_words()])
    words = np.array(list(different), object)
    while True:
        length = int(np.clip(rng.lognormal(6.0, 0.9), 60, 20_000))
        first = rng.integers(len(ids) - length)
        mine = changed(ids[first : first + length], ids, OTHER, rng)
        yield " ".join(words[mine])
        if rng.random() < 0.06:  # a near copy, some time later
            yield " ".join(words[changed(mine, ids, 0.02, rng)])


def changed(
    mine: np.ndarray, ids: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """A text in which about `share` of the words are others, drawn as often as they occur."""
    other = ids[rng.integers(len(ids), size=len(mine))]
    return np.where(rng.random(len(mine)) < share, other, mine)


def write_input(path: Path, size: float, seed: int = 0) -> tuple[int, int]:
    """Write about `size` bytes of JSON Lines; returns how many lines and bytes."""
    rng, count, written = random.Random(seed), 0, 0
    source, held = (
        documents(seed),
        [""] * 5000,
    )  # of which near and exact copies come later
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            draw, place = rng.random(), rng.randrange(len(held))
            held[place], text = next(source), held[place]
            if draw < 0.04:
                text = held[rng.randrange(len(held))]
            elif draw < 0.08:
                text = " ".join(text.split()[:30])
            line = json.dumps(
                {"text": text, "url": f"https://example.org/{count}"} | dressed(text, rng)
            )
            if rng.random() < 0.01:
                line = rng.choice(BAD_LINES)
            if text:
                count, written = count + 1, written + file.write(line + "\n")
    return count, path.stat().st_size


def dressed(text: str, rng: random.Random) -> dict[str, str]:
    """What is different about some texts, as fields that replace those of the line."""
    draw = rng.random()
    if draw < 0.05:
        body = "".join(f"<p>{part}</p>" for part in text.split("\n"))
        page = f"<html><head><title>A page</title></head><body><nav>Home | About</nav>{body}</body>"
        return {"text": page + "</html>", "markup": "html"}
    if draw < 0.15:
        return {"text": f"{text}\n{rng.choice(NOTICES)}\n"}
    if draw < 0.18:
        return {"text": f"{text}\n{LICENCE}"}
    if draw < 0.23:
        number = rng.randrange(10**7)
        return {"text": f"{text}\nWrite to reader{number}@example.org or call +49 30 {number:07d}."}
    return {}


def made_input(path: Path, gigabytes: float) -> tuple[int, int]:
    """The input's lines and bytes; it is made where it is missing."""
    began = time.perf_counter()
    if path.exists():
        with path.open("rb") as file:
            lines, size = sum(1 for _ in file), path.stat().st_size
    else:
        lines, size = write_input(path, gigabytes * 1e9)
    seconds = time.perf_counter() - began
    print(f"input     {lines:,} lines, {size / 1e9:.3f} GB, in {seconds:.0f} s", flush=True)
    return lines, size


# ------------------------------------------------------------------------------- a watched run


def command(source: Path, out: Path, workers: int) -> list[str]:
    """The command line that makes the corpus."""
    words = [
        sys.executable,
        "-m",
        "minillm",
        "data",
        "build",
        str(source),
        "--recipe",
        "web",
    ]
    return [*words, *RECIPE, "--out", str(out), "--workers", str(workers)]


class Watch:
    """Looks at a run every so often: how long each stage takes, and what memory it needs."""

    def __init__(self, process: subprocess.Popen, out: Path) -> None:
        self.group, self.out = process.pid, out
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.pss, self.rss = dict.fromkeys(STAGES, 0), dict.fromkeys(STAGES, 0)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        before = time.perf_counter()
        while not self.over.wait(EVERY):
            begun = [stage for stage in STAGES if (self.out / stage / "stage.json").exists()]
            stage = begun[-1] if begun else STAGES[0]
            now = time.perf_counter()
            self.seconds[stage] += now - before
            before = now
            pss, rss = memory(self.group)
            self.pss[stage] = max(self.pss[stage], pss)
            self.rss[stage] = max(self.rss[stage], rss)

    def end(self) -> None:
        self.over.set()
        self.thread.join()


def memory(group: int) -> tuple[int, int]:
    """Proportional and resident bytes of all processes of a process group."""
    pss = rss = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) != group:
                continue
            for line in (folder / "smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                pss += int(rest.split()[0]) * 1024 if name == "Pss" else 0
                rss += int(rest.split()[0]) * 1024 if name == "Rss" else 0
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return pss, rss


def whole_run(source: Path, folder: Path, gigabytes: float, workers: int) -> float:
    """One undisturbed run, watched; its seconds."""
    lines, size = made_input(source, gigabytes)
    out = folder / "corpus"
    began = time.perf_counter()
    process = subprocess.Popen(command(source, out, workers), start_new_session=True)
    watch = Watch(process, out)
    try:
        status = process.wait()
    finally:
        watch.end()
        stop(process)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"the build ended with status {status}")
    table(
        f"{lines:,} documents, {size / 1e6:,.0f} MB",
        "seconds",
        "MB/s",
        "documents/s",
        "PSS, MB",
        "RSS, MB",
    )
    for stage in STAGES:
        took = max(watch.seconds[stage], EVERY)
        rates = (size / took / 1e6, lines / took)
        row(
            stage,
            watch.seconds[stage],
            *rates,
            watch.pss[stage] / 1e6,
            watch.rss[stage] / 1e6,
        )
    peaks = max(watch.pss.values()), max(watch.rss.values())
    row(
        "all",
        seconds,
        size / seconds / 1e6,
        lines / seconds,
        peaks[0] / 1e6,
        peaks[1] / 1e6,
    )
    on_disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{on_disk / 1e9:.2f} GB in the corpus's folder")
    verdict("GB of memory (RSS) that are left of the limit", (LIMIT - peaks[1]) / 1e9, 0.0)
    return seconds


# ------------------------------------------------------------------------------- killed runs


def kill(source: Path, folder: Path, gigabytes: float, workers: int, kills: int, seed: int) -> None:
    """A run that is killed at random moments and resumed, beside one that is not."""
    rng = random.Random(seed)
    seconds = whole_run(source, folder, gigabytes, workers)
    out, killed = folder / "killed", 0
    for _ in range(kills):
        length = rng.uniform(0, seconds / 2)
        process = subprocess.Popen(command(source, out, workers), start_new_session=True)
        try:
            process.wait(length)
            what = "ended by itself within"
        except subprocess.TimeoutExpired:
            killed, what = killed + 1, "killed after"
        stop(process)
        begun = [stage for stage in STAGES if (out / stage).exists()]
        done = len(list(out.glob("*/[0-9]*.json")))
        print(f"\n{what} {length:.1f} s, in {begun[-1] if begun else 'no stage'};"
              f" {done} tasks are done\n", flush=True)  # fmt: skip
    subprocess.run(command(source, out, workers), check=True, start_new_session=True)
    ours, theirs = hashes(folder / "corpus"), hashes(out)
    different = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    for name in different:
        print(f"{name} differs")
    print(f"{len(ours)} files, {len(different)} of them different; killed {killed} times")
    verdict(
        "same manifest, 1 for yes",
        float(ours["manifest.json"] == theirs["manifest.json"]),
        1,
    )


def stop(process: subprocess.Popen) -> None:
    """Kill a run and all its workers, and wait until none is left."""
    while True:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        process.poll()
        time.sleep(0.05)
    process.wait()


def hashes(out: Path) -> dict[str, str]:
    """The hash of every file of a corpus."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*")) if path.is_file()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", choices=("run", "kill", "make"), default="run")
    parser.add_argument("--gb", type=float, default=2.0, help="of JSON Lines")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    parser.add_argument("--input", type=Path, help="JSON Lines; made in a temporary folder else")
    arguments = parser.parse_args()
    start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the build is ended, too
    if arguments.part == "make":
        made_input(arguments.input, arguments.gb)
        return
    folder = Path(tempfile.mkdtemp(prefix="minillm-pipeline-"))
    source = arguments.input or folder / "input.jsonl"
    try:
        if arguments.part == "run":
            whole_run(source, folder, arguments.gb, arguments.workers)
        else:
            many = arguments.kills, arguments.seed
            kill(source, folder, arguments.gb, arguments.workers, *many)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
