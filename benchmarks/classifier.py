"""The text classifier beside fastText: accuracy and time on the same texts with the same settings.

    MINILLM_DATA=folder python benchmarks/classifier.py            every task, five seeds
    MINILLM_DATA=folder python benchmarks/classifier.py sms 3      one task, three seeds

The folder holds `web/SMSSpamCollection.tsv` (label, tab, text), `lang/lingua_20/LANGUAGE.txt` (a
sentence per line), `text/nltk/movie_reviews.zip` and `text/novels_en_dev/*.txt`; a task without its
data is left out.

For each seed the texts are shuffled and a fifth is held out. Both contenders read the same file of
`__label__LABEL text` lines; the time is from that file to a trained model. fastText runs with two
threads, in a fresh process each time: its matrix is not wholly initialised, and memory that was
used before makes it stop with "Encountered NaN". Then it is started again. Ours is compiled before.
`asked` is the time to predict the labels of the training texts.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import THREADS, row, start, table

from minillm.data.classifier import Classifier, ClassifierConfig
from minillm.data.classifier.labelled import read_labelled
from minillm.data.classifier.language import LANGUAGE

DATA = Path(os.environ.get("MINILLM_DATA", ""))
Rows = list[tuple[str, str]]  # label and text
PIECES = ClassifierConfig(min_chars=2, max_chars=4, dim=16, buckets=200_000, lr=0.5)


def spam() -> Rows:
    lines = (DATA / "web/SMSSpamCollection.tsv").read_text("utf-8").splitlines()
    return [tuple(line.split("\t", 1)) for line in lines if "\t" in line]


def languages() -> Rows:
    texts, labels = read_labelled([DATA / "lang/lingua_20"])
    return list(zip(labels, texts, strict=True))


def reviews() -> Rows:
    with zipfile.ZipFile(DATA / "text/nltk/movie_reviews.zip") as file:
        names = [name for name in file.namelist() if name.endswith(".txt")]
        return [(name.split("/")[1], file.read(name).decode("latin-1")) for name in names]


def novels() -> Rows:
    found = []
    for path in sorted((DATA / "text/novels_en_dev").glob("*.txt")):
        label = path.stem.replace(" ", "_")
        found += [(label, line) for line in path.read_text("utf-8").split("\n") if len(line) > 40]
    return found


TASKS: dict[str, tuple[str, Callable[[], Rows], ClassifierConfig]] = {
    "sms": ("SMS spam, words", spam, ClassifierConfig(lr=0.5)),
    "sms-pairs": ("SMS spam, words and pairs", spam,
                  ClassifierConfig(word_ngrams=2, buckets=100_000, lr=0.5)),
    "sms-tree": ("SMS spam, hierarchical", spam, ClassifierConfig(loss="hierarchical", lr=0.5)),
    "sms-negative": ("SMS spam, negative", spam, ClassifierConfig(loss="negative", lr=0.5)),
    "lang": ("20 languages, pieces 2-4", languages, PIECES),
    "lang-wide": ("20 languages, dim 100", languages, dataclasses.replace(PIECES, dim=100)),
    "lang-tree": ("20 languages, hierarchical", languages,
                  dataclasses.replace(PIECES, loss="hierarchical")),
    "lang-negative": ("20 languages, negative", languages,
                      dataclasses.replace(PIECES, loss="negative")),
    "lang-ours": ("20 languages, our settings", languages,
                  dataclasses.replace(LANGUAGE, lowercase=False)),
    "reviews": ("film reviews, pairs, dim 16", reviews,
                ClassifierConfig(word_ngrams=2, dim=16, buckets=200_000, lr=0.5, epochs=20)),
    "novels": ("16 novels, pairs, dim 100", novels,
               ClassifierConfig(word_ngrams=2, buckets=500_000, lr=0.5)),
}  # fmt: skip


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["fasttext"]:
        print(json.dumps(run_fasttext(Path(words[1]), json.loads(words[2]))))
        return
    if importlib.util.find_spec("fasttext") is None:
        raise SystemExit("pip install fasttext")
    start("fasttext")
    seeds = next((int(word) for word in words if word.isdigit()), 5)
    chosen = [word for word in words if not word.isdigit()] or list(TASKS)
    table(
        "task", "ours %", "fastText %", "points", "train s", "fastText s", "as fast", "ask s",
        "fastText s", "as fast",
    )  # fmt: skip
    for name in chosen:
        compare(*TASKS[name], seeds)


def compare(title: str, read: Callable[[], Rows], config: ClassifierConfig, seeds: int) -> None:
    try:
        texts = read()
    except (OSError, ValueError):
        print(f"{title}: its data is not in MINILLM_DATA")
        return
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            write(texts, seed, Path(folder))
            if seed == 0:
                run_ours(Path(folder), config)  # compiles
            ours.append(run_ours(Path(folder), dataclasses.replace(config, seed=seed)))
            theirs.append(run_peer(Path(folder), config))
    accuracy, train, ask = (statistics.fmean(x) for x in zip(*ours, strict=True))
    peer, peer_train, peer_ask = (statistics.fmean(x) for x in zip(*theirs, strict=True))
    row(
        title, f"{100 * accuracy:.2f}", f"{100 * peer:.2f}", f"{100 * (accuracy - peer):+.2f}",
        train, peer_train, peer_train / train, ask, peer_ask, peer_ask / ask,
    )  # fmt: skip


def write(texts: Rows, seed: int, folder: Path) -> None:
    """Shuffle, hold a fifth out, and write both parts as fastText's lines."""
    texts = texts.copy()
    random.Random(seed).shuffle(texts)
    cut = len(texts) * 4 // 5
    for name, part in (("train", texts[:cut]), ("test", texts[cut:])):
        lines = [f"__label__{label} {' '.join(text.split())}\n" for label, text in part]
        (folder / f"{name}.txt").write_text("".join(lines), "utf-8")


Result = tuple[float, float, float]  # accuracy, seconds to train, seconds to predict


def run_ours(folder: Path, config: ClassifierConfig) -> Result:
    began = time.perf_counter()
    texts, labels = read_labelled([folder / "train.txt"])
    made = Classifier.train(texts, labels, config)
    trained = time.perf_counter()
    made.predict(texts)
    asked = time.perf_counter()
    accuracy = made.evaluate(*read_labelled([folder / "test.txt"])).accuracy
    return accuracy, trained - began, asked - trained


def run_peer(folder: Path, config: ClassifierConfig) -> Result:
    """fastText in a process of its own, until one does not stop with NaN."""
    settings = {
        "thread": THREADS, "verbose": 0, "dim": config.dim, "wordNgrams": config.word_ngrams,
        "minn": config.min_chars, "maxn": config.max_chars, "bucket": config.buckets,
        "minCount": config.min_count, "neg": config.negatives, "epoch": config.epochs,
        "lr": config.lr,
        "loss": {"softmax": "softmax", "hierarchical": "hs", "negative": "ns"}[config.loss],
    }  # fmt: skip
    while True:
        command = [sys.executable, __file__, "fasttext", str(folder), json.dumps(settings)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return tuple(json.loads(done.stdout.splitlines()[-1]))
        if "Encountered NaN" not in done.stderr:
            raise SystemExit(done.stderr)


def run_fasttext(folder: Path, settings: dict) -> Result:
    import fasttext

    lines = (folder / "train.txt").read_text("utf-8").splitlines()
    texts = [line.partition(" ")[2] for line in lines]
    began = time.perf_counter()
    made = fasttext.train_supervised(str(folder / "train.txt"), **settings)
    trained = time.perf_counter()
    labels, _ = made.predict(texts)
    asked = time.perf_counter()
    assert len(labels) == len(texts)
    return made.test(str(folder / "test.txt"))[1], trained - began, asked - trained


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
