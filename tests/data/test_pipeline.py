"""The pipeline: nothing is lost, nothing depends on who did what and when it was stopped."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minillm.data import executors, pipeline, stages
from minillm.data.classifier import Classifier, ClassifierConfig
from minillm.data.dedup import similarities
from minillm.data.documents import Rejected, read_lines
from minillm.data.progress import Progress
from minillm.data.reading import read_documents
from minillm.data.recipe import (
    ContaminationConfig,
    DuplicatesConfig,
    ExtractionConfig,
    FilterConfig,
    LanguageConfig,
    QualityConfig,
    ReadingConfig,
    Recipe,
    SplitConfig,
    VocabularyConfig,
)
from minillm.data.shards import TokenDataset
from minillm.data.summary import kept
from minillm.data.tally import Tally
from minillm.errors import InputError
from minillm.tokenizer import BPETokenizer

WORDS = [
    "the", "keeper", "of", "a", "key", "and", "to", "book", "was", "have", "her", "ship", "with",
    "red", "sails", "that", "be", "wind", "had",
]  # fmt: skip
OPEN = FilterConfig(min_words=8, max_words=None, min_terminal_lines=None, **{
    f"max_{name}": None for name in ("top_2_grams", "top_3_grams", "top_4_grams",
                                     *(f"duplicate_{n}_grams" for n in range(5, 11)))
})  # fmt: skip


class Quiet(Progress):
    def say(self, text):
        pass


def sentence(rng, count=9):
    words = (f"{rng.choice(WORDS)}{rng.choice(['', rng.randrange(50)])}" for _ in range(count))
    return " ".join(words) + "."


def write_input(folder: Path) -> Path:
    """60 documents, of which some are copies, near copies, short, or marked for masking."""
    rng = random.Random(0)
    texts = [" ".join(sentence(rng) for _ in range(rng.randrange(6, 12))) for _ in range(50)]
    texts += [texts[3], texts[4], texts[5] + " And more.", "too short", texts[6] + " a@b.org"]
    question = " ".join(f"quiz{i}" for i in range(20))
    texts += [f"Here are the questions that we have. Each has an answer. It is this: {question}."]
    rng.shuffle(texts)
    folder.mkdir()
    (folder.parent / "exam.jsonl").write_text(json.dumps({"question": question, "answer": "yes"}))
    lines = [json.dumps({"text": text, "url": f"u{i}"}) + "\n" for i, text in enumerate(texts)]
    (folder / "a.jsonl").write_text("".join(lines[:30]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[30:]).encode()))
    (folder / "c.txt").write_text(" ".join(sentence(rng) for _ in range(9)))
    return folder


def recipe(folder: Path, **changes) -> Recipe:
    made = Recipe(
        {"mine": (str(folder),)},
        reading=ReadingConfig(piece_bytes=4000),
        extraction=ExtractionConfig(repair=False),
        filters=OPEN,
        contamination=ContaminationConfig((str(folder.parent / "exam.jsonl"),)),
        split=SplitConfig(0.2),
        vocabulary=VocabularyConfig(size=300),
    )
    return replace(made, **changes)


def make(folder: Path, out: Path, executor=None, **changes):
    return pipeline.build(recipe(folder, **changes), out, executor, Quiet())


def documents(out: Path, stage: str = "text"):
    return [d for path in sorted((out / stage).glob("?????.jsonl")) for d in read_lines(path)]


def rejected(out: Path) -> list[Rejected]:
    paths = sorted(out.glob("*/*.rejected.jsonl"))
    return [record for path in paths for record in read_lines(path)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The input, and the corpus made of it in one go by this process."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_input(folder / "in")
    make(folder / "in", folder / "out")
    return folder


def manifest(out: Path) -> bytes:
    return (out / pipeline.MANIFEST).read_bytes()


# ---------------------------------------------------------------------------------- what it does


def test_nothing_is_lost(made):
    found = json.loads(manifest(made / "out"))
    tally = Tally.from_json(found["counts"])
    refused = rejected(made / "out")
    assert tally.steps["read"].documents == 57
    assert kept(tally).documents + len(refused) == 57
    assert len(documents(made / "out")) == kept(tally).documents
    rules = [record.rule for record in refused]
    assert sorted(rules) == sorted(
        rule for step in tally.steps.values() for rule in step.rejected.elements()
    )
    assert {"exact_duplicate", "near_duplicate", "min_words", "contamination"} == set(rules)
    assert rules.count("exact_duplicate") == 2
    near = next(record for record in refused if record.rule == "near_duplicate")
    assert near.value in {document.source for document in documents(made / "out")}
    assert len(found["sources"]) == 3
    assert found["sources"][0] | {"sha256": 0} == {
        "name": "a.jsonl", "collection": "mine", "bytes": (made / "in" / "a.jsonl").stat().st_size,
        "sha256": 0,
    }  # fmt: skip


def test_what_is_kept_is_masked_and_knows_where_it_is_from(made):
    texts = documents(made / "out")
    assert not any("@" in document.text for document in texts)
    assert sum("<email>" in document.text for document in texts) <= 1
    for document in texts:
        assert document.metadata["collection"] == "mine"
        assert document.metadata["split"] in stages.SPLITS
        assert document.source.split("@")[0] in ("a.jsonl", "b.jsonl.gz", "c.txt")


def test_tokens_are_the_texts_each_behind_its_mark(made):
    from minillm import tokenizer

    vocabulary = tokenizer.load(made / "out" / "tokens" / "tokenizer.json")
    for split in stages.SPLITS:
        data = TokenDataset(made / "out" / "tokens", split)
        texts = [d.text for d in documents(made / "out") if d.metadata["split"] == split]
        assert texts
        mark = [vocabulary.special_tokens["<|endoftext|>"]]
        ids = [np.concatenate([mark, vocabulary.encode_array(text)]) for text in texts]
        assert data.marked
        assert np.array_equal(data.read(0, len(data)), np.concatenate(ids))


def test_a_vocabulary_without_the_mark_is_told_of(made, tmp_path):
    BPETokenizer.train("a text", 256, []).save(tmp_path / "bytes.json")
    make(made / "in", tmp_path / "out", vocabulary=VocabularyConfig(path=str(tmp_path / "bytes.json")))
    data = TokenDataset(tmp_path / "out" / "tokens", "train")
    assert not data.marked
    first = next(d.text for d in documents(tmp_path / "out") if d.metadata["split"] == "train")
    assert bytes(data.read(0, 9).astype(np.uint8)) == first.encode()[:9]


def test_about_the_share_that_was_asked_for_is_held_out(made):
    sizes = {split: 0 for split in stages.SPLITS}
    for document in documents(made / "out"):
        sizes[document.metadata["split"]] += len(document.text)
    assert abs(sizes["validation"] / sum(sizes.values()) - 0.2) < 0.05


def test_near_duplicates_are_on_one_side_of_the_split_even_where_they_stay(tmp_path):
    write_input(tmp_path / "in")
    kept_all = DuplicatesConfig(exact=False, near=None)
    make(tmp_path / "in", tmp_path / "out", duplicates=kept_all, split=SplitConfig(0.5))
    found = documents(tmp_path / "out")
    assert len(found) > len({document.text for document in found})
    split = {}
    for document in found:
        mine = document.metadata["split"]
        assert split.setdefault(document.text, mine) == mine


@pytest.mark.parametrize("near", [0.8, None])
def test_validation_text_is_nearly_no_training_text(tmp_path, near):
    rng = random.Random(3)
    lines = []
    for _ in range(60):
        words = sentence(rng, 120).split()
        for _ in range(3):
            copy = list(words)
            copy[rng.randrange(len(copy))] = "changed"
            lines.append(json.dumps({"text": " ".join(copy)}) + "\n")
    rng.shuffle(lines)
    (tmp_path / "in.jsonl").write_text("".join(lines))
    make(
        tmp_path / "in.jsonl", tmp_path / "out", duplicates=DuplicatesConfig(near=near),
        filters=FilterConfig(apply=False), contamination=ContaminationConfig(),
        split=SplitConfig(0.3), vocabulary=VocabularyConfig(),
    )  # fmt: skip
    found = documents(tmp_path / "out")
    sides = [[i for i, d in enumerate(found) if d.metadata["split"] == s] for s in stages.SPLITS]
    assert min(map(len, sides)) > 10
    pairs = np.array([(i, j) for i in sides[0] for j in sides[1]])
    alike = similarities([document.text for document in found], pairs) >= 0.8
    assert alike.any() == (near is None)  # that they are parted is what would happen otherwise


# ------------------------------------------------------------------------- what it depends on


@pytest.mark.parametrize("size", [500, 100_000])
def test_the_documents_do_not_depend_on_how_the_input_is_cut(made, tmp_path, size):
    make(made / "in", tmp_path / "out", reading=ReadingConfig(piece_bytes=size))
    assert documents(tmp_path / "out") == documents(made / "out")
    for split in stages.SPLITS:
        ours, theirs = (TokenDataset(p / "out" / "tokens", split) for p in (tmp_path, made))
        assert np.array_equal(ours.read(0, len(ours)), theirs.read(0, len(theirs)))


def test_a_passage_is_cut_wherever_it_stood_before(tmp_path):
    rng = random.Random(4)
    licence = sentence(rng, 40)
    marks = [chr(ord("α") + i) for i in range(30)]  # so that no two documents share more of it
    parts = [licence if i % 3 == 1 else "" for i in range(30)]
    texts = [f"{sentence(rng, 30)} {m}{p}{m}" for m, p in zip(marks, parts, strict=True)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    found = []
    for size in (500, 3000, 100_000):
        out = tmp_path / str(size)
        make(
            tmp_path / "in.jsonl", out, reading=ReadingConfig(piece_bytes=size),
            duplicates=DuplicatesConfig(passages=100), filters=FilterConfig(apply=False),
            contamination=ContaminationConfig(), vocabulary=VocabularyConfig(),
        )  # fmt: skip
        found.append([document.text for document in documents(out)])
    assert found[0] == found[1] == found[2]
    assert sum(licence in text for text in found[0]) == 1
    assert licence in found[0][1]
    assert len(found[0]) == 30


def test_the_manifest_does_not_depend_on_where_the_corpus_lies(made, tmp_path):
    make(made / "in", tmp_path / "elsewhere")
    assert manifest(tmp_path / "elsewhere") == manifest(made / "out")


@pytest.mark.parametrize("after", [0, 1, 4, 7, 12])
def test_a_build_that_was_interrupted_goes_on_and_ends_the_same(made, tmp_path, monkeypatch, after):
    class Pulled(Exception):
        pass

    done = []

    def pulled(work):
        def run(task):
            if len(done) == after:
                raise Pulled
            done.append(task)
            return work(task)

        return run

    with monkeypatch.context() as patch:
        for name in ("hash_files", "clean", "select", "tokenize"):
            patch.setattr(stages, name, pulled(getattr(stages, name)))
        with pytest.raises(Pulled):
            make(made / "in", tmp_path / "out")
    assert not (tmp_path / "out" / pipeline.MANIFEST).exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/[0-9]*.json")}
    make(made / "in", tmp_path / "out")
    assert manifest(tmp_path / "out") == manifest(made / "out")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_only_what_a_change_concerns_is_made_again(made, tmp_path):
    out = shutil.copytree(made / "out", tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/[0-9]*.json")}
    make(made / "in", out)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    make(made / "in", out, split=SplitConfig(0.4))
    again = {path.parent.name for path in times if path.stat().st_mtime_ns != times[path]}
    assert again == {"judged", "text", "vocabulary", "tokens"}
    os.utime(made / "in" / "c.txt")
    make(made / "in", out)
    assert manifest(out) == manifest(made / "out")


@pytest.mark.slow
def test_processes_do_the_same(made, tmp_path):
    with executors.make("processes", 2) as executor:
        make(made / "in", tmp_path / "out", executor)
    assert manifest(tmp_path / "out") == manifest(made / "out")


COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_pipeline import make
from minillm.data import executors
if __name__ == "__main__":
    with executors.make({kind!r}, {workers}) as executor:
        make(Path({source!r}), Path(sys.argv[1]), executor)
"""


def script(made: Path, tmp_path: Path, kind: str, workers: int) -> Path:
    path = tmp_path / "run.py"
    tests = str(Path(__file__).parent)
    path.write_text(
        COMMAND.format(tests=tests, source=str(made / "in"), kind=kind, workers=workers)
    )
    return path


@pytest.mark.slow
def test_mpi_does_the_same(made, tmp_path):
    pytest.importorskip("mpi4py")
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpiexec is None:
        pytest.skip("no mpiexec")
    run = script(made, tmp_path, "mpi", 0)
    words = [mpiexec, "-n", "2", sys.executable, "-m", "mpi4py.futures", run, tmp_path / "out"]
    subprocess.run([str(word) for word in words], check=True, timeout=300)
    assert manifest(tmp_path / "out") == manifest(made / "out")


@pytest.mark.slow
def test_a_killed_build_goes_on_and_leaves_nobody_behind(made, tmp_path):
    run, rng = script(made, tmp_path, "processes", 2), random.Random(1)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, run, tmp_path / "out"], start_new_session=True)
        time.sleep(rng.uniform(1, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, run, tmp_path / "out"], check=True, timeout=300)
    assert manifest(tmp_path / "out") == manifest(made / "out")
    assert not list((tmp_path / "out").glob("*/.*.tmp"))


# ----------------------------------------------------------------------------------- bad input


def test_bad_input_is_told_and_the_rest_goes_on(tmp_path):
    folder = write_input(tmp_path / "in")
    rng = random.Random(9)
    good = [" ".join(sentence(rng) for _ in range(4)) for _ in range(2)]
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in good]
    broken = gzip.compress(lines[0])[:-12]
    (folder / "broken.jsonl.gz").write_bytes(broken + gzip.compress(lines[1]))
    (folder / "short.jsonl").write_bytes(lines[0] + b'{"text": "cut sho')
    (folder / "nul.txt").write_bytes(b"\0" * 5000)
    (folder / "long.txt").write_bytes(b"word " * 2_000_000)
    (folder / "bomb.txt.gz").write_bytes(gzip.compress(b"\0" * 200_000_000))
    make(folder, tmp_path / "out", reading=ReadingConfig(max_bytes=10**9))
    found = {record.document.source: record for record in rejected(tmp_path / "out")}
    assert "NUL bytes" in found["nul.txt"].value
    assert "archive bomb" in found["bomb.txt.gz"].value
    assert found["long.txt"].rule in ("min_word_length", "max_duplicate_lines", "min_sentences",
                                      "min_stop_words", "min_terminal_lines")  # fmt: skip
    unreadable = [r.value for r in rejected(tmp_path / "out") if r.rule == "unreadable"]
    assert len(unreadable) == 4
    assert all("\n" not in why for why in unreadable)
    texts = {document.text for document in documents(tmp_path / "out")}
    assert set(good) <= texts
    assert len(texts) == 53


def test_a_worker_that_dies_is_one_clear_line(made, tmp_path):
    class Dead(executors.SerialExecutor):
        def submit(self, function, /, *arguments, **named):
            from concurrent.futures.process import BrokenProcessPool

            raise BrokenProcessPool("gone")

    with pytest.raises(InputError, match="a worker of the stage 'sources' died"):
        make(made / "in", tmp_path / "out", Dead())


@pytest.mark.parametrize("name", pipeline.STAGES)
def test_a_folder_of_the_user_is_never_replaced(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine\n")
    with pytest.raises(InputError, match=f"{name} is not of a corpus, and would be replaced"):
        pipeline.build(Recipe(sources={"mine": (str(tmp_path / name),)}), tmp_path, report=Quiet())
    assert [*tmp_path.rglob("*")] == [tmp_path / name, tmp_path / name / "notes.txt"]


@pytest.mark.parametrize("inside", [".", "corpus", "deep/corpus"])
def test_a_corpus_does_not_lie_in_its_own_input(tmp_path, inside):
    (tmp_path / "a.txt").write_text("a text\n")
    with pytest.raises(InputError, match="lies in .*, which is to be read"):
        pipeline.build(Recipe(sources={"mine": (str(tmp_path),)}), tmp_path / inside, report=Quiet())
    assert [path.name for path in tmp_path.rglob("*")] == ["a.txt"]


def test_collections_keep_their_documents_where_another_comes_first(tmp_path):
    rng = random.Random(0)
    for name, count in ("a", 3), ("b", 5):
        (tmp_path / name).mkdir()
        for number in range(count):
            text = "\n".join(sentence(rng) for _ in range(9))
            (tmp_path / name / f"{number}.txt").write_text(text)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "image.png").write_bytes(b"")
    plain = {"filters": OPEN, "split": SplitConfig(validation=0.0),
             "vocabulary": VocabularyConfig(size=300)}  # fmt: skip
    sources = {name: (str(tmp_path / name),) for name in "ab"}
    more, found = {"none": (str(tmp_path / "none"),), **sources}, []
    for given, out in (sources, "on"), (more, "on"), (more, "fresh"):
        pipeline.build(Recipe(sources=given, **plain), tmp_path / out, report=Quiet())
        dataset = TokenDataset(tmp_path / out / "tokens", "train")
        numbers = dataset.documents()["collection"].tolist()
        found.append([dataset.collections[number] for number in numbers])
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == {"a", "b"}


def test_a_stage_that_was_being_replaced_is_made_whole(tmp_path, monkeypatch):
    rng = random.Random(0)
    (tmp_path / "a.txt").write_text("\n".join(sentence(rng) for _ in range(9)))
    recipe = Recipe(sources={"a": (str(tmp_path / "a.txt"),)}, filters=OPEN)
    first = pipeline.build(recipe, tmp_path / "out", report=Quiet())
    other = replace(recipe, filters=replace(OPEN, min_words=9))

    def dying(path):
        if path.name == ".clean.tmp" and path.exists():
            next(file for file in path.iterdir() if file.name != pipeline.MADE_FROM).unlink()
            raise KeyboardInterrupt
        real(path)

    real = pipeline.files.delete
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline.files, "delete", dying)
        pipeline.build(other, tmp_path / "out", report=Quiet())
    assert pipeline.build(recipe, tmp_path / "out", report=Quiet()) == first
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_two_builds_do_not_share_a_folder(made, tmp_path):
    from minillm import files

    (tmp_path / "out").mkdir()
    with files.locked(tmp_path / "out", "building"), pytest.raises(InputError, match="wait for it"):
        make(made / "in", tmp_path / "out")


# ------------------------------------------------------------------------ language and quality


def test_classifiers_tell_language_and_quality(tmp_path):
    folder = write_input(tmp_path / "in")
    german = "Das ist ein Buch. Wir haben es gelesen. Und dann war der Wind zu stark to be the end."
    (folder / "d.txt").write_text(german)
    texts = [document.text for document in read_documents([folder])]
    labels = ["de" if text == german else "en" for text in texts]
    model = Classifier.train(texts * 20, labels * 20, ClassifierConfig(min_count=1, epochs=20))
    model.save(tmp_path / "model")
    path = str(tmp_path / "model")
    made = make(
        folder, tmp_path / "out", vocabulary=VocabularyConfig(),
        language=LanguageConfig(path, ("en",), 0.5), quality=QualityConfig(path, "en", 0.5, True),
    )  # fmt: skip
    refused = {r.document.source: (r.rule, r.value) for r in rejected(tmp_path / "out")}
    assert refused["d.txt"] == ("language", "de")
    for document in documents(tmp_path / "out"):
        assert document.metadata["language"] == "en"
        assert float(document.metadata["quality"]) >= 0.5
        assert 0 < float(document.metadata["weight"]) <= 1
    assert made["counts"]["histograms"]["languages"].keys() == {"en"}
    for misspelt in (
        {"language": LanguageConfig(path, ("en", "dee"))},
        {"quality": QualityConfig(path, "dee")},
    ):
        with pytest.raises(InputError, match="knows no label 'dee'; did you mean 'de'"):
            make(folder, tmp_path / "misspelt", **misspelt)
