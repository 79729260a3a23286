"""Tokenizers: training, encoding and decoding beside rustbpe, tiktoken and Hugging Face tokenizers.

    python benchmarks/tokenizer.py            everything but the last two (a few minutes)
    python benchmarks/tokenizer.py train      one part: train, encode, decode, worst, words, ids, memory
    python benchmarks/tokenizer.py ids        the peers' ids, on every text below MINILLM_DATA
    python benchmarks/tokenizer.py memory     peak memory of training on a file of 2 GB

The text is the source of Python's standard library and, where MINILLM_DATA names a folder with a
`text/novels_en_dev`, as many bytes of English novels. All vocabularies are the same: ours, written
to the peers' files. Peers that are not installed are left out.
"""

from __future__ import annotations

import os

os.environ["RAYON_NUM_THREADS"] = "2"  # Hugging Face's and rustbpe's threads; read when they load
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import gzip
import importlib.util
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import THREADS, row, start, table

from minillm.tokenizer import BPETokenizer, patterns, scanner
from minillm.tokenizer.bpe_counting import count_words
from minillm.tokenizer.formats import gpt2_files, hugging_face, rank_files

VOCAB = 32_768
SIZE = 32_000_000
PEERS = [name for name in ("rustbpe", "tiktoken", "tokenizers") if importlib.util.find_spec(name)]


def main() -> None:
    parts = {
        "train": training, "encode": encoding, "decode": decoding, "worst": worst, "words": words,
        "ids": ids, "memory": memory,
    }  # fmt: skip
    wanted = sys.argv[1:] or [name for name in parts if name not in ("ids", "memory")]
    start(*PEERS)
    for name in wanted:
        parts[name]()


def corpus() -> list[str]:
    """Documents: source files and, where they are, novels; `SIZE` bytes or what there is."""
    library = Path(sysconfig.get_paths()["stdlib"])
    source = [path for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts]
    prose = sorted(Path(os.environ.get("MINILLM_DATA", "")).glob("text/novels_en_dev/*.txt"))
    documents: list[str] = []
    for paths in (source, prose):
        size = 0
        for path in paths:
            try:
                documents.append(path.read_text("utf-8"))
            except UnicodeDecodeError:  # a few test files of the library are not UTF-8
                continue
            size += len(documents[-1].encode())
            if size > SIZE // 2:
                break
    random.Random(0).shuffle(documents)
    size = sum(len(text.encode()) for text in documents)
    print(f"text      {size / 1e6:.1f} MB in {len(documents)} files of source and prose")
    return documents


def rates(size: int, *contenders: Callable[[], object], turns: int = 3) -> list[float]:
    """MB/s of each contender: the median of `turns` calls, in turns, after one to warm up."""
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(turns + 1):
        for record, contender in zip(times, contenders, strict=True):
            began = time.perf_counter()
            contender()
            if turn:
                record.append(time.perf_counter() - began)
    return [size / 1e6 / statistics.median(record) for record in times]


# ------------------------------------------------------------------ training


def training() -> None:
    documents = corpus()
    size = sum(len(text.encode()) for text in documents)
    peers = {"rustbpe": train_rustbpe, "tokenizers": train_hugging_face}
    runs = [lambda: BPETokenizer.train(documents, VOCAB, ())]
    runs += [lambda run=run: run(documents) for name, run in peers.items() if name in PEERS]
    ours, *others = rates(size, *runs, turns=2)
    table(f"training {VOCAB:,} entries", "MB/s", "ours / peer")
    row("minillm", ours, "")
    for name, rate in zip([name for name in peers if name in PEERS], others, strict=True):
        row(name, rate, ours / rate)


def train_rustbpe(documents: list[str]) -> None:
    import rustbpe

    rustbpe.Tokenizer().train_from_iterator(
        iter(documents), VOCAB, pattern=patterns.PATTERNS["gpt4"]
    )


def train_hugging_face(documents: list[str]) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(patterns.PATTERNS["gpt4"]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(documents, trainer)


# ------------------------------------------------------------------ encoding and decoding


def trained(documents: list[str]) -> tuple[BPETokenizer, Any, Any]:
    """The same vocabulary three times: ours, tiktoken's and Hugging Face's (None where missing)."""
    ours = BPETokenizer.train(documents, VOCAB, ())
    return ours, *written(ours)


def written(ours: BPETokenizer) -> tuple[Any, Any]:
    """Our vocabulary as tiktoken's and Hugging Face's (None where missing), through their files."""
    theirs: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "tiktoken" in PEERS:
            import tiktoken
            from tiktoken.load import load_tiktoken_bpe

            rank_files.write(ours, f"{folder}/ranks.tiktoken")
            theirs["tiktoken"] = tiktoken.Encoding(
                "ours", pat_str=patterns.PATTERNS[ours.pattern], special_tokens={},
                mergeable_ranks=load_tiktoken_bpe(f"{folder}/ranks.tiktoken"),
            )  # fmt: skip
        if "tokenizers" in PEERS:
            import tokenizers

            hugging_face.write(ours, f"{folder}/tokenizer.json")
            theirs["hf"] = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    return theirs.get("tiktoken"), theirs.get("hf")


def encoding() -> None:
    documents = corpus()
    ours, tiktoken, hf = trained(documents)
    text = "".join(documents)
    part = text[: len(text) // 8]  # Hugging Face takes long; its rate does not grow with the size
    small = [text[place : place + 3000] for place in range(0, len(text), 3000)]
    size, part_size = len(text.encode()), len(part.encode())

    table("encoding one document", "MB/s", "ours / peer", "same ids")
    mine = ours.encode_array(text)
    runs = [lambda: ours.encode_array(text)]
    if tiktoken:
        runs.append(lambda: tiktoken.encode_to_numpy(text, disallowed_special=()))
        runs += [lambda: ours.encode(text), lambda: tiktoken.encode_ordinary(text)]
    best, *others = rates(size, *runs)
    row("minillm, to an array", best, "", "")
    if tiktoken:
        same = np.array_equal(mine, tiktoken.encode_to_numpy(text, disallowed_special=()))
        row("tiktoken, to an array", others[0], best / others[0], str(same))
        row("minillm, to a list", others[1], "", "")
        row("tiktoken, to a list", others[2], others[1] / others[2], "")
    if hf:
        (rate,) = rates(part_size, lambda: hf.encode(part), turns=1)
        same = ours.encode(part) == hf.encode(part).ids
        row("Hugging Face (an eighth of the text)", rate, best / rate, str(same))

    table("encoding documents of 3 kB", "MB/s", "ours / peer", "same ids")
    runs = [lambda: ours.encode_batch(small)]
    if tiktoken:
        runs.append(lambda: tiktoken.encode_ordinary_batch(small, num_threads=THREADS))
        runs.append(lambda: ours.encode_lists(small))
    best, *others = rates(size, *runs)
    row("minillm, to arrays", best, "", "")
    mine = ours.encode_lists(small)
    if tiktoken:
        same = mine == tiktoken.encode_ordinary_batch(small, num_threads=THREADS)
        row("minillm, to lists", others[1], "", "")
        row("tiktoken, to lists", others[0], others[1] / others[0], str(same))
    if hf:
        few = small[: len(small) // 4]
        (rate,) = rates(size // 4, lambda: hf.encode_batch_fast(few), turns=1)
        same = mine[: len(few)] == [encoding.ids for encoding in hf.encode_batch_fast(few)]
        row("Hugging Face (a quarter of the text)", rate, best / rate, str(same))


def decoding() -> None:
    documents = corpus()
    ours, tiktoken, _ = trained(documents)
    text = "".join(documents)
    array = ours.encode_array(text)
    ids = array.tolist()
    table("decoding", "MB/s", "ours / peer")
    runs = [lambda: ours.decode(array), lambda: ours.decode(ids)]
    runs += [lambda: tiktoken.decode(ids)] if tiktoken else []
    rate, of_list, *others = rates(len(text.encode()), *runs)
    row("minillm, an array", rate, "")
    row("minillm, a list", of_list, "")
    if others:
        row("tiktoken, a list", others[0], of_list / others[0])


def worst() -> None:
    """Texts that are one long word, or nothing but rare ones."""
    documents = corpus()
    ours, _, _ = trained(documents)
    size = 10_000_000
    family = "👨‍👩‍👧‍👦👩🏽‍🚀🏳️‍🌈🤷🏿‍♀️".encode()
    letters = "".join(filter(str.isalpha, "".join(documents)))[:size]
    texts = {
        "prose and source": "".join(documents).encode()[:size],
        "one letter": b"a" * size,
        "spaces": b" " * size,
        "random bytes": random.Random(0).randbytes(size),
        "one word, again and again": b"supercalifragilistic" * (size // 20),
        "the text without anything but letters": letters.encode(),
        "emoji with joiners": family * (size // len(family)),
    }
    found = rates(size, *(lambda data=data: ours.encode_array(data) for data in texts.values()))
    table("10 MB of", "MB/s", "time / prose")
    for name, rate in zip(texts, found, strict=True):
        row(name, rate, found[0] / rate)


def words() -> None:
    """The scanners alone, one thread, against `regex`."""
    text = "".join(corpus()).encode()
    part = text[: len(text) // 16]
    table("cutting into words, one thread", "MB/s", "regex", "ours / regex")
    for name in ("gpt2", "gpt4", "gpt4o", "qwen2"):
        (ours,) = rates(len(text), lambda name=name: scanner.word_ends(text, name))
        (regex,) = rates(len(part), lambda name=name: list(patterns.split(part, name)), turns=1)
        row(name, ours, regex, ours / regex)


# ------------------------------------------------------------------ the same ids


def ids() -> None:
    """Whether the peers give our ids: GPT-2's vocabulary and one learned here, on every text."""
    folder = Path(os.environ.get("MINILLM_DATA", "/nowhere"))
    gpt2 = folder / "tokenizers" / "gpt2"
    tokenizers = {"learned here": BPETokenizer.train("".join(corpus())[: SIZE // 4], VOCAB, ())}
    if gpt2.is_dir():
        tokenizers["GPT-2's"] = gpt2_files.read(gpt2 / "encoder.json", gpt2 / "vocab.bpe")
    found = dict(texts(folder))
    size = sum(map(len, found.values())) / 1e6
    table(f"{len(found)} texts, {size:.1f} MB, vocabulary", "ids", "tiktoken", "Hugging Face")
    for name, ours in tokenizers.items():
        total, peers = 0, as_peers(ours)
        wrong = dict.fromkeys(peers, 0)
        for data in found.values():
            text = data.decode("utf-8", "replace")
            total += len(ours.encode_array(text))
            for peer, (encode, special) in peers.items():
                wrong[peer] += encode(text) != ours.encode(text, special)
        marks = [f"{wrong[peer]} differ" if peer in peers else "" for peer in ("tiktoken", "hf")]
        row(name, float(total), *marks)


def as_peers(ours: BPETokenizer) -> dict[str, tuple[Callable[[str], list[int]], str]]:
    """How the peers that are there encode with our vocabulary, and what of it may be special."""
    tiktoken, hf = written(ours)
    peers: dict[str, tuple[Callable[[str], list[int]], str]] = {}
    if tiktoken:
        peers["tiktoken"] = tiktoken.encode_ordinary, "none"
    if hf:
        peers["hf"] = lambda text: hf.encode(text).ids, "all"
    return peers


def texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every text below `folder`, whole: files, and what lies packed in .gz and .zip."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as pack:
                yield from ((f"{path}/{name}", pack.read(name)) for name in pack.namelist())
        elif path.is_file():
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if b"\0" not in data[:1000]:
                yield str(path), data


# ------------------------------------------------------------------ memory


def memory() -> None:
    """Peak memory of training on files of 2 GB: it follows the number of different words."""
    code = (
        "import sys, pathlib, resource; from minillm.tokenizer import BPETokenizer;"
        f"BPETokenizer.train(pathlib.Path(sys.argv[1]), {VOCAB});"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    documents = corpus()
    known = len(count_words(documents, "gpt4")[1])
    table("training on a file of 2 GB", "new words", "seconds", "peak GB")
    # The text of this benchmark gains words with its size to the power of 0.56 to 0.68.
    for name, write in {
        "the same text again and again": lambda path: write_large(path, documents, 0, 1.0),
        "new words as in a text that goes on": lambda path: write_large(path, documents, known, 0.7),
        "a flood of new words": lambda path: write_large(path, documents, known, 1.0),
        "nothing but new words": write_new,
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "text"
            new = write(path)
            began = time.perf_counter()
            run = [sys.executable, "-W", "ignore", "-c", code, str(path)]
            # The peak of a process includes that of the one it was forked from: a small one.
            peak = subprocess.run(["sh", "-c", '"$@"', "sh", *run], stdout=-1, check=True).stdout
            row(name, float(new), time.perf_counter() - began, int(peak) / 1e9)


def write_large(path: Path, documents: list[str], known: int, exponent: float) -> int:
    """The corpus again and again, words replaced by new ones at the rate of size ** exponent."""
    rng = np.random.default_rng(0)
    pieces = "".join(documents).encode().split(b" ")
    copy, written = 0, 0
    with path.open("wb") as file:
        while file.tell() < 2 * 10**9:
            new = int(known * ((copy + 1) ** exponent - copy**exponent)) if copy else 0
            letters = rng.integers(97, 123, (new, 8), dtype=np.uint8)
            for place, word in zip(rng.integers(0, len(pieces), new), letters, strict=True):
                pieces[place] = word.tobytes()
            file.write(b" ".join(pieces))
            copy, written = copy + 1, written + new
    return written


def write_new(path: Path) -> int:
    """Words of eight random letters."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(100):
            letters = rng.integers(97, 123, (20 * 10**6 // 9, 9), dtype=np.uint8)
            letters[:, 8] = 32
            file.write(letters.tobytes())
    return 2 * 10**9 // 9


if __name__ == "__main__":
    main()
