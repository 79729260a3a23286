"""Deduplication beside datasketch and rensa: what is found, how fast, in how much memory.

    python benchmarks/dedup.py             everything (a few minutes)
    python benchmarks/dedup.py accuracy    one part: accuracy, speed, passages, memory

Texts are pieces of English novels and of WikiText, where MINILLM_DATA names a folder with them, and
else random words. Everybody gets the same word 5-grams and 128 permutations. Peers that are not
installed are left out: pip install datasketch rensa.
"""

from __future__ import annotations

import os

os.environ["RAYON_NUM_THREADS"] = "2"  # rensa's threads; read when it loads

import importlib.util
import itertools
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from _common import race, row, start, table, verdict

from minillm import backend
from minillm.data.dedup import (
    choose_bands,
    near_duplicates,
    near_duplicates_of_files,
    repeated_passages,
    s_curve,
    show_s_curve,
    suffix_array,
    write_signatures,
)

PERMUTATIONS, NGRAM, THRESHOLD = 128, 5, 0.8
PEERS = [name for name in ("datasketch", "rensa") if importlib.util.find_spec(name)]
WORD = re.compile(r"[^\W_]+")
DOCUMENTS = 1_000_000  # of the part "memory"
Pairs = set[tuple[int, int]]


# ------------------------------------------------------------------------------------- texts


def base_texts(count: int, words: int) -> list[str]:
    """Different texts of so many words in paragraphs of fifty."""
    found = (
        sorted(Path(os.environ["MINILLM_DATA"]).glob("text/novels_en_dev/*"))
        if "MINILLM_DATA" in os.environ
        else []
    )
    if found:
        whole = " ".join(path.read_text(encoding="utf-8") for path in found).split()
    else:
        rng = random.Random(0)
        vocabulary = [f"w{i:x}" for i in range(20_000)]
        whole = rng.choices(vocabulary, [1 / (i + 5) for i in range(20_000)], k=count * words)
    count = min(count, len(whole) // words)
    return [paragraphs(whole[i * words : (i + 1) * words]) for i in range(count)]


def paragraphs(words: Sequence[str]) -> str:
    return "\n\n".join(" ".join(words[i : i + 50]) for i in range(0, len(words), 50))


def edited(rng: random.Random, text: str, share: float) -> str:
    """`text` with a share of its words replaced."""
    words = re.split(r"(\s+)", text)
    places = range(0, len(words), 2)
    for place in rng.sample(places, round(share * len(places))):
        words[place] = f"edit{rng.randrange(10**6)}"
    return "".join(words)


def planted(originals: Sequence[str], seed: int = 0) -> list[str]:
    """Every text as it is, copied, with 1, 5, 10 and 20 % of its words edited, and re-ordered."""
    rng = random.Random(seed)
    texts = []
    for text in originals:
        parts = text.split("\n\n")
        rng.shuffle(parts)
        texts += [text, text, *(edited(rng, text, share) for share in (0.01, 0.05, 0.1, 0.2))]
        texts.append("\n\n".join(parts))
    rng.shuffle(texts)
    return texts


# ------------------------------------------------------------------------------------- judges


def shingles_of(text: str) -> list[str]:
    """The word 5-grams of a text as strings, the way the peers are fed."""
    words = WORD.findall(text.lower())
    runs = [words[k:] for k in range(min(NGRAM, len(words)))]
    return list(map(" ".join, zip(*runs, strict=False)))


def clusters_of(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """The smallest number of everyone's cluster, by union-find in Python."""
    roots = list(range(count))

    def find(i: int) -> int:
        while roots[i] != i:
            roots[i] = roots[roots[i]]
            i = roots[i]
        return i

    for i, j in pairs:
        a, b = find(i), find(j)
        roots[max(a, b)] = min(a, b)
    return np.array([find(i) for i in range(count)])


def exact_pairs(texts: Sequence[str]) -> Pairs:
    """All pairs with a Jaccard similarity at or above the threshold, through shared shingles."""
    sets = [set(shingles_of(text)) for text in texts]
    holders: dict[str, list[int]] = defaultdict(list)
    for i, shingles in enumerate(sets):
        for shingle in shingles:
            holders[shingle].append(i)
    shared: Counter[tuple[int, int]] = Counter()
    for members in holders.values():
        shared.update(itertools.combinations(members, 2))
    return {
        (i, j)
        for (i, j), both in shared.items()
        if both >= THRESHOLD * (len(sets[i]) + len(sets[j]) - both)
    }


def together(clusters: np.ndarray) -> Pairs:
    members: dict[int, list[int]] = defaultdict(list)
    for i, cluster in enumerate(clusters.tolist()):
        members[cluster].append(i)
    return {pair for group in members.values() for pair in itertools.combinations(group, 2)}


# ------------------------------------------------------------------------------------- peers


def with_datasketch(texts: Sequence[str], params: tuple[int, int] | None = None) -> np.ndarray:
    from datasketch import MinHash, MinHashLSH

    coded = ([shingle.encode() for shingle in shingles_of(text)] for text in texts)
    hashes = MinHash.bulk(coded, num_perm=PERMUTATIONS)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, params=params)
    pairs = []
    for i, mine in enumerate(hashes):
        pairs += [(j, i) for j in index.query(mine) if mine.jaccard(hashes[j]) >= THRESHOLD]
        index.insert(i, mine, check_duplication=False)
    return clusters_of(len(texts), pairs)


def with_rensa(texts: Sequence[str], bands: int = 16) -> np.ndarray:
    from rensa import RMinHash, RMinHashLSH

    hashes = RMinHash.from_token_sets(map(shingles_of, texts), PERMUTATIONS, 42)
    index = RMinHashLSH(THRESHOLD, PERMUTATIONS, bands)
    index.insert_many(hashes)
    pairs = [
        (j, i)
        for i, found in enumerate(index.query_all(hashes))
        for j in found
        if j < i and hashes[i].jaccard(hashes[j]) >= THRESHOLD
    ]
    return clusters_of(len(texts), pairs)


def flagged_by_rensa(texts: Sequence[str], bands: int = 16) -> object:
    """Rensa's quickest form: who has a duplicate, but not whose; no pair is looked at."""
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets(list(map(shingles_of, texts)), PERMUTATIONS, 42)
    index = RMinHashLSH(THRESHOLD, PERMUTATIONS, bands)
    return index.query_duplicate_flags_matrix_one_shot(matrix)


# ------------------------------------------------------------------------------------- parts


def accuracy() -> None:
    """Precision and recall of pairs in a cluster, against comparing all pairs exactly."""
    bands, rows = choose_bands(THRESHOLD, PERMUTATIONS)
    print("\n" + show_s_curve(bands, rows, THRESHOLD))
    ways: dict[str, Callable[[Sequence[str]], np.ndarray]] = {"minillm": near_duplicates}
    if "datasketch" in PEERS:
        ways["datasketch, its own bands"] = with_datasketch
        ways[f"datasketch, {bands} bands of {rows}"] = lambda texts: with_datasketch(
            texts, (bands, rows)
        )
    if "rensa" in PEERS:
        ways["rensa, 16 bands of 8"] = with_rensa
    for words in (150, 500):
        texts = planted(base_texts(500, words))
        truth = together(clusters_of(len(texts), exact_pairs(texts)))
        table(f"{len(texts)} texts of {words} words", "found", "precision", "recall")
        row("all pairs, exactly", len(truth), 1.0, 1.0)
        for name, way in ways.items():
            found = together(way(texts))
            right = len(found & truth)
            row(name, len(found), f"{right / max(1, len(found)):.4f}", f"{right / len(truth):.4f}")
    print(f"\nchance to meet at {THRESHOLD}: {s_curve(THRESHOLD, bands, rows):.4f}")


def speed() -> None:
    """From a list of texts to clusters, in turns; medians."""
    texts = planted(base_texts(560, 500))
    ways: dict[str, Callable[[Sequence[str]], object]] = {"minillm": near_duplicates}
    if "datasketch" in PEERS:
        ways["datasketch"] = with_datasketch
    if "rensa" in PEERS:
        ways["rensa"] = with_rensa
        ways["rensa, flags only, no clusters"] = flagged_by_rensa
    seconds_each = race(*(partial(way, texts) for way in ways.values()), seconds=30)
    medians = dict(zip(ways, seconds_each, strict=True))
    size = sum(map(len, texts)) / len(texts)
    table(f"{len(texts)} texts of {size:.0f} characters", "documents/s", "we are")
    for name, seconds in medians.items():
        row(name, len(texts) / seconds, f"{seconds / medians['minillm']:.1f} x")
    for name, target in (("datasketch", 25.0), ("rensa", 2.0)):
        if name in medians:
            verdict(f"times as fast as {name}", medians[name] / medians["minillm"], target)


def passages() -> None:
    """Suffix array and repeated passages of novels, one thread."""
    texts = base_texts(20_000, 500)[:3000]
    licence = texts[0][:600]
    texts = [text + licence for text in texts]
    symbols = np.frombuffer("\n".join(texts).encode(), np.uint8)
    repeated_passages(texts[:10])
    suffix_array(symbols[:1000])
    began = time.perf_counter()
    suffix_array(symbols)
    sorting = time.perf_counter() - began
    began = time.perf_counter()
    spans = repeated_passages(texts)
    all_of_it = time.perf_counter() - began
    table(f"{len(symbols) / 1e6:.1f} MB", "seconds", "MB/s")
    row("suffix array", sorting, len(symbols) / sorting / 1e6)
    row("repeated passages, from text to spans", all_of_it, len(symbols) / all_of_it / 1e6)
    print(f"{len(spans)} spans, {int((spans[:, 2] - spans[:, 1]).sum()) / 1e6:.2f} MB to cut")


def memory() -> None:
    """Signatures in files, many times what the search may use."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "files", folder, str(DOCUMENTS)]
        subprocess.run(command, check=True)


def files(folder: str, count: int) -> None:
    backend.return_freed_memory()  # as `minillm data build` does
    shards, limit = 10, 64 * count  # an eighth of the signatures
    began = time.perf_counter()
    paths = [Path(folder) / f"{shard}.signatures" for shard in range(shards)]
    for shard, path in enumerate(paths):
        write_signatures(path, (short_text(i) for i in range(shard, count, shards)))
    writing = time.perf_counter() - began
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(path.stat().st_size for path in paths)
    began = time.perf_counter()
    order = [i for shard in range(shards) for i in range(shard, count, shards)]
    clusters = near_duplicates_of_files(paths, Texts(order), memory=limit)
    searching = time.perf_counter() - began
    copies = int((clusters != np.arange(count)).sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table(f"{count} short texts, signatures {size / 1e6:.0f} MB", "seconds", "peak MB")
    row("writing signature files", writing, peak_before / 1e3)
    row(f"clusters, memory={limit / 1e6:.0f} MB", searching, peak / 1e3)
    print(f"{copies} copies found, {count // 10} planted")


def short_text(number: int) -> str:
    """Thirty random words; every tenth text is the one nine places before with one word more."""
    copy = number % 10 == 9
    rng = random.Random(number - 9 if copy else number)
    words = [f"{rng.getrandbits(17):x}" for _ in range(30)]
    return " ".join(words + ["more"] * copy)


class Texts:
    """Texts made when they are asked for, as a reader of files would."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __getitem__(self, i: int) -> str:
        return short_text(self.order[i])


if __name__ == "__main__":
    if sys.argv[1:2] == ["files"]:
        files(sys.argv[2], int(sys.argv[3]))
    else:
        start(*PEERS)
        for name in ("datasketch", "rensa"):
            if name not in PEERS:
                print(f"{name} is not installed: its rows are left out")
        parts = {part.__name__: part for part in (accuracy, speed, passages, memory)}
        for name in sys.argv[1:] or parts:
            parts[name]()
