"""Packing: what is padded and lost at the lengths of articles, beside what is done otherwise.

    MINILLM_DATA=folder python benchmarks/packing.py

Two sets of documents: the 600 articles of WikiText-2, if the folder has `text/wikitext2/train.txt`,
by their tokens in a BPE vocabulary of 32,768 entries that is learned from them, and a mark each; and
as many lengths as WikiText-103 has articles, drawn from a log-normal distribution with the mean and
the deviation of those 600 (of the logarithm: 8.00 and 0.75; its skewness is -0.02).

"Lost" are tokens that no row shows, counted row by row. Windows, as they lie in a long stream, cut
documents wherever they end; "needlessly" are the ones that would have fitted into one row. One
document a row is the other extreme: long ones are cut as packing does it, the rest is padding.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import race, row, start, table

from minillm.data.batches import Batches, PackedBatches
from minillm.data.packing import pack, pieces_of
from minillm.data.shards import TokenDataset, write_index, write_shard
from minillm.tokenizer import BPETokenizer

CONTEXTS = (256, 1024, 2048)
MOST = 0.02  # of all places, lost or padded
VOCAB = 32_768
DRAWN, MEAN, DEVIATION = 28_475, 8.00, 0.75
BATCH, SECONDS = 16, 1.0


def main() -> None:
    start()
    file = Path(os.environ.get("MINILLM_DATA", "")) / "text/wikitext2/train.txt"
    if file.exists():
        measure("WikiText-2", article_lengths(file.read_text(encoding="utf-8")))
    drawn = np.random.default_rng(0).lognormal(MEAN, DEVIATION, DRAWN)
    measure("log-normal", np.ceil(drawn).astype(np.int64))


def article_lengths(text: str) -> np.ndarray:
    """Tokens of each article, with its mark. A title stands between blank lines."""
    articles = re.split(r"\n \n(?= = [^=\n]+ = \n \n)", text)
    tokenizer = BPETokenizer.train(articles, VOCAB)
    lengths = np.array([1 + len(ids) for ids in tokenizer.encode_batch(articles)])
    logs = np.log(lengths)
    skew = ((logs - logs.mean()) ** 3).mean() / logs.std() ** 3
    print(f"\nlogarithms of lengths: mean {logs.mean():.3f}, deviation {logs.std():.3f},", end="")
    print(f" skewness {skew:.3f}")
    return lengths


def measure(name: str, lengths: np.ndarray) -> None:
    """Print what becomes of documents of these lengths at each context."""
    total = int(lengths.sum())
    table(
        f"{name}, {len(lengths):,} documents, {total:,} tokens",
        "rows", "padded %", "lost %", "cut %", "needlessly %", "places/token",
    )  # fmt: skip
    worst = 0.0
    for size in CONTEXTS:
        _, _, pieces = pieces_of(lengths, size)
        rows, count = pack(pieces, size)
        shown = int(np.minimum(np.bincount(rows, pieces, count), size).sum())
        padded, lost = count * size - shown, total - shown
        worst = max(worst, (padded + lost) / (count * size))
        cut = float((lengths > size).mean())
        show(f"packed, {size}", count, size, padded, lost, cut, 0.0, total)
        ends = np.cumsum(lengths)
        apart = (ends - lengths) // size != (ends - 1) // size  # first and last token
        kept = total // size * size
        needless = float((apart & (lengths <= size)).mean())
        show(
            "  windows", total // size, size, 0, total - kept, float(apart.mean()), needless, total
        )
        show("  one a row", len(pieces), size, len(pieces) * size - total, 0, cut, 0.0, total)
    print(f"\nlost or padded at most {worst:.2%}, wanted at most {MOST:.0%}: ", end="")
    print("yes" if worst <= MOST else "NO")
    speed(name, lengths)


def show(
    name: str, rows: int, size: int, padded: int, lost: int, cut: float, needless: float, total: int
) -> None:
    """One way to lay documents out, and its places for each of their tokens."""
    shares = (padded / (rows * size), lost / total, cut, needless)
    row(
        name, f"{rows:,}", *(f"{100 * share:.2f}" for share in shares), f"{rows * size / total:.3f}"
    )


def speed(name: str, lengths: np.ndarray) -> None:
    """Print how fast documents are laid out, and batches read from shards on disk."""
    table(f"{name}, million tokens/s", "laid out", "read packed", "read windows")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        documents = (rng.integers(0, VOCAB, length, np.uint16) for length in lengths)
        path = Path(folder) / "train-00000.bin"
        count = write_shard(path, documents, VOCAB, [(length, 0, 1.0) for length in lengths])
        shard = {"file": path.name, "tokens": count, "documents": f"{path.stem}.documents"}
        write_index(folder, VOCAB, {"train": [shard]})
        data = TokenDataset(folder, "train")
        for size in CONTEXTS:
            (seconds,) = race(lambda size=size: pack(pieces_of(lengths, size)[2], size))
            read = [rate(served(data, BATCH, size, 0)) for served in (PackedBatches, Batches)]
            row(f"{size}", *(f"{n / 1e6:,.1f}" for n in (lengths.sum() / seconds, *read)))


def rate(batches: Batches | PackedBatches) -> float:
    """Places filled a second, one batch after the other."""
    step, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < SECONDS:
        batches.batch(step)
        step += 1
    return step * batches.batch_size * batches.block_size / spent


if __name__ == "__main__":
    main()
