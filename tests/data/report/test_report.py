"""The report on a corpus: its numbers are the manifest's, and its examples are what was removed."""

import json
import re
from dataclasses import replace

import pytest
from test_page import Reader

from minillm.data import pipeline
from minillm.data.classifier import Classifier, ClassifierConfig
from minillm.data.corpus import shard_files
from minillm.data.documents import read_lines
from minillm.data.progress import Progress
from minillm.data.recipe import (
    DuplicatesConfig,
    ExtractionConfig,
    FilterConfig,
    LanguageConfig,
    QualityConfig,
    ReadingConfig,
    Recipe,
    VocabularyConfig,
)
from minillm.data.report import REPORT, render, write_report
from minillm.data.summary import KEPT
from minillm.errors import InputError

WORDS = [
    "the", "keeper", "of", "a", "key", "and", "to", "book", "was", "have", "her", "ship", "with",
    "red", "sails", "that", "be", "wind", "had",
]  # fmt: skip
RULES = FilterConfig(
    min_words=20, max_markup=None, max_top_2_grams=None, max_top_3_grams=None,
    max_top_4_grams=None, **{f"max_duplicate_{n}_grams": None for n in range(5, 11)},
)  # fmt: skip


class Quiet(Progress):
    def say(self, text):
        pass


def story(seed, count=60):
    words = [f"{WORDS[(seed * 7 + i * i) % len(WORDS)]}{(seed + i) % 9}" for i in range(count)]
    return ". ".join(" ".join(["the", *words[at : at + 9], "of it"]) for at in range(0, count, 9))


def write_input(folder):
    texts = [story(seed) + "." for seed in range(30)]
    texts += [texts[0], texts[0], texts[1].replace("red", "blue", 1) + " More."]
    texts += [f"too short {i} <script>x</script>" for i in range(6)] + ["word " * 3000]
    folder.mkdir()
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "a.jsonl").write_text("".join(lines) + '{"text": "cut')
    return folder


def make(folder, out, **changes):
    recipe = Recipe(
        {"mine": (str(folder),)}, extraction=ExtractionConfig(repair=False), filters=RULES
    )
    return pipeline.build(replace(recipe, **changes), out, report=Quiet())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a corpus, its manifest, and its page."""
    folder = tmp_path_factory.mktemp("report")
    manifest = make(write_input(folder / "in"), folder / "out",
                    vocabulary=VocabularyConfig(size=280))  # fmt: skip
    return folder / "out", manifest, (folder / "out" / REPORT).read_text()


def rows(text, section):
    """The tables of a section, as rows of cells."""
    part = text.partition(f"<h2>{section}</h2>")[2].partition("</section>")[0]
    cells = [re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall("<tr>.*", part)]
    return [tuple(cell.replace(",", "") for cell in row) for row in cells]


def test_every_number_is_the_manifests(made):
    _, manifest, text = made
    steps = manifest["counts"]["steps"]
    assert f"{steps['read']['documents']:,} documents of" in text
    table = {row[0]: row[1:] for row in rows(text, "Steps")}
    rules = {row[0]: row for row in rows(text, "Rules")[1:]}
    for name, step in steps.items():
        removed = sum(step["rejected"].values())
        if name.startswith(KEPT):
            assert table[name][:2] == (str(step["documents"]), str(step["characters"]))
        elif name.startswith("tokens for "):
            assert table[name][2] in (str(step["notes"].get("tokens")), "")
        else:
            assert table[name][:2] == (str(step["documents"]), str(removed))
            assert table[name][3] == str(step["characters"])
        for rule, count in step["rejected"].items():
            found = rules.pop(rule)
            share = f"{count / steps['read']['documents']:.2%}"
            assert found[4:] == (str(count), share, str(step["removed"][rule]))
            assert found[1] == name
    assert rules == {}
    assert "at least 20" in text
    drawn = re.findall(r"<title>[\d,]+: (\d+) came in, (\d+) kept</title>", text)
    assert sum(int(came) for came, _ in drawn) == steps["read"]["documents"]
    kept = sum(step["documents"] for name, step in steps.items() if name.startswith(KEPT))
    assert sum(int(stays) for _, stays in drawn) == kept
    assert sum(map(int, re.findall(r"<title>[\d,]+: (\d+)</title>", text))) == kept  # by tokens


def test_the_page_is_whole_and_texts_are_only_texts(made):
    reader = Reader(made[2])
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "<script>x</script>" in "".join(reader.text)


def test_every_rule_has_examples_with_the_value_that_rejected_them(made):
    corpus, _, text = made
    text = "".join(Reader(text).text)
    for path in sorted(corpus.glob("*/*.rejected.jsonl")):
        for record in read_lines(path):
            if record.rule not in ("min_words", "exact_duplicate"):  # of these there are too many
                assert f"{record.document.source}: " in text
    shown = re.findall(r"a\.jsonl@\d+: (\d+)\ntoo short", text)
    assert shown == ["4"] * 3
    assert re.search(r"a\.jsonl@\d+: a\.jsonl@\d+\n", text)
    assert "… (14,999 characters in all)" in text


def test_copies_stand_side_by_side_with_what_differs_marked(made):
    _, manifest, text = made
    part = text.partition("<h2>Duplicates</h2>")[2].partition("</section>")[0]
    copies = manifest["counts"]["steps"]["duplicates"]["rejected"]
    assert copies == {"exact_duplicate": 2, "near_duplicate": 1}
    assert "2 clusters of documents" in part
    assert "3 copies go, of which 1 differ" in part
    assert rows(text, "Duplicates")[1:] == [("2", "1"), ("3", "1")]
    assert part.count("letter by letter") == 1
    right = part.split("</pre>")[-2]
    assert re.findall("<mark>(.*?)</mark>", right) == ["blue6", "More."]


def test_a_page_that_is_made_again_is_the_same_to_the_last_byte(made, tmp_path):
    corpus, manifest, text = made
    assert render(corpus, manifest) == text
    (corpus / REPORT).unlink()
    assert write_report(corpus, manifest).read_text() == text
    make(corpus.parent / "in", tmp_path / "out", vocabulary=VocabularyConfig(size=280))
    assert (tmp_path / "out" / REPORT).read_text() == text
    before = (corpus / REPORT).stat().st_mtime_ns
    make(corpus.parent / "in", corpus, vocabulary=VocabularyConfig(size=280))
    assert (corpus / REPORT).stat().st_mtime_ns == before


def test_examples_do_not_depend_on_how_the_input_was_cut(made, tmp_path):
    corpus, _, text = made
    make(corpus.parent / "in", tmp_path / "out", vocabulary=VocabularyConfig(size=280),
         reading=ReadingConfig(piece_bytes=3000))  # fmt: skip
    assert len(shard_files(tmp_path / "out" / "clean")) > 3
    assert (tmp_path / "out" / REPORT).read_text().replace("3000", "16000000") == text


def test_languages_and_qualities_are_drawn_where_they_were_told(made, tmp_path):
    _, _, text = made
    assert "names no classifier of languages" in text
    assert "names no classifier of quality" in text
    folder = write_input(tmp_path / "in")
    german = "Das ist ein Buch und wir haben es gelesen. Dann war der Wind zu stark. " * 3
    (folder / "d.txt").write_text(german)
    texts = [story(seed) + "." for seed in range(30)]
    labels = ["en"] * len(texts) + ["de"] * 30
    model = Classifier.train([*texts, *[german] * 30], labels,
                             ClassifierConfig(min_count=1, epochs=20))  # fmt: skip
    model.save(tmp_path / "model")
    path = str(tmp_path / "model")
    manifest = make(folder, tmp_path / "out", language=LanguageConfig(path, ("en",), 0.0),
                    quality=QualityConfig(path, "en", 0.5))  # fmt: skip
    text = (tmp_path / "out" / REPORT).read_text()
    table = {row[0]: row[1:3] for row in rows(text, "Languages")[1:]}
    kept = manifest["counts"]["histograms"]["languages"]
    assert table["en"][1] == str(kept["en"])
    rejected = manifest["counts"]["steps"]["language"]["rejected"]["language"]
    assert table["de"] == (str(rejected), "0")
    came = sum(int(row[0]) for row in table.values())
    assert came == manifest["counts"]["steps"]["language"]["documents"]
    part = text.partition("<h2>Quality</h2>")[2]
    drawn = re.findall(r"<title>0\.\d\d: (\d+) came in, (\d+) kept</title>", part)
    graded = manifest["counts"]["steps"]["quality"]["documents"]
    assert sum(int(count) for count, _ in drawn) == graded
    assert sum(int(count) for _, count in drawn) == kept["en"]


@pytest.mark.parametrize("text", ["too short", ""])
def test_a_corpus_of_nothing_has_a_page_that_says_so(tmp_path, text):
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": text}) + "\n")
    make(tmp_path / "in.jsonl", tmp_path / "out")
    text = (tmp_path / "out" / REPORT).read_text()
    Reader(text)
    assert "1 document of" in text
    assert "Nothing is kept." in text
    assert "No two documents are the same." in text
    make(tmp_path / "in.jsonl", tmp_path / "out", duplicates=DuplicatesConfig(False, None))
    text = (tmp_path / "out" / REPORT).read_text()
    assert "does not look for documents that are the same" in text


def test_what_is_missing_or_damaged_is_one_clear_line(tmp_path):
    manifest = make(write_input(tmp_path / "in"), tmp_path / "out")
    rejected = tmp_path / "out" / "clean" / "00000.rejected.jsonl"
    rejected.write_text(rejected.read_text()[:-20])
    with pytest.raises(InputError, match="is damaged"):
        write_report(tmp_path / "out", manifest)
    (tmp_path / "out" / "judged").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="judged is missing"):
        write_report(tmp_path / "out", manifest)
