"""The classifier as a whole: saving, asking, measuring, selecting, and mistakes in one line."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillm.data.classifier import (
    Classifier,
    ClassifierConfig,
    Evaluation,
    keep_chance,
    keeps,
    sampling_weights,
)
from minillm.data.classifier import model as module
from minillm.data.classifier.labelled import read_labelled
from minillm.data.classifier.language import train_language_identifier
from minillm.errors import CheckpointError, InputError

TEXTS = ["a fine clear page", "buy pills now", "clear and fine words", "pills pills buy"] * 10
LABELS = ["good", "bad"] * 20
CONFIG = ClassifierConfig(
    dim=8, epochs=10, lr=0.5, word_ngrams=2, min_chars=2, max_chars=3, buckets=1000
)


@pytest.fixture(scope="module")
def trained():
    return Classifier.train(TEXTS, LABELS, CONFIG)


def test_what_is_saved_is_loaded(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    again = Classifier.load(path)
    asked = ["fine pills", "", "never 犬 seen"]
    assert (again.probabilities(asked) == trained.probabilities(asked)).all()
    assert again.config == trained.config and again.labels == trained.labels
    assert "2 labels" in repr(again) and repr(again) == repr(trained)
    again.save(tmp_path / "twice.safetensors")
    assert (tmp_path / "twice.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("loss", ["hierarchical", "negative"])
def test_other_losses_are_saved_too(loss, tmp_path):
    made = Classifier.train(TEXTS, LABELS, ClassifierConfig(dim=4, loss=loss))
    made.save(tmp_path / "m")
    assert (Classifier.load(tmp_path / "m").probabilities(TEXTS) == made.probabilities(TEXTS)).all()


def test_a_text_is_judged_alike_alone_and_among_others(trained, monkeypatch):
    texts = [*TEXTS, "", "犬", "fine " * 50]
    together = trained.probabilities(texts)
    alone = np.concatenate([trained.probabilities([text]) for text in texts])
    assert (together == alone).all()
    monkeypatch.setattr(module, "BLOCK", 40)  # many blocks, on several threads
    assert (trained.probabilities(texts) == together).all()
    assert trained.probabilities([]).shape == (0, 2)


def test_answers(trained):
    labels = [guess.label for guess in trained.predict(["a fine page", "buy buy"])]
    assert labels == ["good", "bad"]
    first, second = trained.top(["a fine page"], 5)[0]
    assert first == trained.predict(["a fine page"])[0]
    assert first.probability + second.probability == pytest.approx(1)
    assert trained.score(["a fine page"], "bad")[0] == pytest.approx(second.probability)
    empty = trained.probabilities(["", "   "])  # nothing but the mark of the end
    assert np.isfinite(empty).all() and (empty[0] == empty[1]).all()


def test_evaluation_counts():
    truth = np.array([0, 0, 0, 1, 1, 2])
    chosen = np.array([0, 0, 1, 1, 0, 1])
    probabilities = np.full((6, 4), 0.1)
    probabilities[np.arange(6), chosen] = 0.7
    found = Evaluation.of(["a", "b", "c", "d"], truth, probabilities)
    assert found.accuracy == 0.5
    np.testing.assert_allclose(found.precision, [2 / 3, 1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(found.recall, [2 / 3, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(found.f1, [2 / 3, 2 / 5, 0, np.nan])
    assert found.loss == pytest.approx(-(np.log(0.7) + np.log(0.1)) / 2)
    lines = found.table().splitlines()
    assert lines[1].split() == ["a", "3", "0.6667", "0.6667", "0.6667", "b", "1"]
    assert lines[3].split() == ["c", "1", "-", "0.0000", "0.0000", "b", "1"]
    assert lines[-1] == "accuracy 0.5000, loss 1.3296, 6 texts"


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "there are no labelled texts"),
        (["a"], ["x", "y"], "1 texts and 2 labels"),
        (["a", "b"], ["x", "x"], "all 2 texts have the label 'x'"),
        (["a", " \n"], ["x", "y"], r"text 2 \(label 'y'\) is empty"),
        (["a", None], ["x", "y"], "text 2 is a NoneType; a classifier reads str"),
        (["a", "b"], ["x", ""], "the label of text 2 is ''"),
    ],
)
def test_texts_that_teach_nothing(texts, labels, message):
    with pytest.raises(InputError, match=message):
        Classifier.train(texts, labels)


def test_words_that_are_all_too_rare():
    with pytest.raises(InputError, match="no word occurs 9 times"):
        Classifier.train(["a", "b"], ["x", "y"], ClassifierConfig(min_count=9))
    pieces = ClassifierConfig(min_count=9, min_chars=1, max_chars=2, dim=4, buckets=50)
    made = Classifier.train(["a", "b"] * 4, ["x", "y"] * 4, pieces)
    assert len(made.vocabulary) == 0 and np.isfinite(made.probabilities(["a", "c", ""])).all()


def test_a_label_that_is_not_known(trained):
    with pytest.raises(InputError, match="text 2 has the label 'ugly', which .* knows good, bad"):
        trained.evaluate(["a", "b"], ["good", "ugly"])
    with pytest.raises(InputError, match="asked for the label 'ugly'"):
        trained.score(["a"], "ugly")
    with pytest.raises(InputError, match="1 texts and 0 labels"):
        trained.evaluate(["a"], [])


def damage(path, **changes):
    """Rewrite a classifier file with other arrays, or other entries of its header."""
    arrays = load_file(path)
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    metadata = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    header = json.loads(metadata["classifier"])
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value(arrays[name])
        else:
            header[name] = value(header[name])
    metadata["classifier"] = json.dumps(header)
    save_file(arrays, path, metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": lambda x: x[:-1]}, r"embeddings has the shape"),
        ({"embeddings": lambda x: x.astype(np.float64)}, "embeddings is float64, not float32"),
        ({"outputs": lambda x: x[:1]}, r"outputs has the shape \(1, 8\), not \(2, 8\)"),
        ({"buckets": lambda x: x[::-1].copy()}, "a bucket outside 0 to 999, or one twice"),
        ({"buckets": lambda x: x + 1000}, "a bucket outside 0 to 999"),
        ({"word_stops": lambda x: x + 1}, "the words do not end where they should"),
        ({"word_counts": lambda x: x[:1].reshape(())}, r"word_counts has the shape \(\), not"),
        ({"counts": lambda x: x[:1]}, "counts are not one number for each of 2 labels"),
        ({"counts": lambda x: [0, 1]}, "counts are not one number for each of 2 labels"),
        ({"config": lambda x: {**x, "size": 1}}, "not a whole classifier file: .*no setting"),
        ({"config": lambda x: {**x, "dim": "8"}}, "dim is '8'; it takes a whole number"),
        ({"config": lambda x: []}, "not a whole classifier file"),
        ({"labels": lambda x: 3}, "its labels are no list of different names"),
        ({"labels": lambda x: ["a", "a"]}, "its labels are no list of different names"),
    ],
)
def test_a_damaged_file(trained, tmp_path, changes, message):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    damage(path, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        Classifier.load(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_something_else(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="there is no classifier at"):
        Classifier.load(path)
    trained.save(path)
    whole = path.read_bytes()
    for cut in (b"", whole[:4], whole[:100], whole[:-10], b"\x80\x04pickle" * 9):
        path.write_bytes(cut)
        with pytest.raises(CheckpointError, match="is not a whole classifier file"):
            Classifier.load(path)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="file: it holds no classifier"):
        Classifier.load(path)


# ----------------------------------------------------------------------- selection


def test_filter_and_sampling_weight():
    scores = np.array([0.0, 0.5, 1.0])
    assert keeps(scores, 0.5).tolist() == [False, True, True]
    assert keep_chance(scores, 0).tolist() == [1, 1, 1]
    weights = sampling_weights(scores)
    assert weights.mean() == pytest.approx(1) and (np.diff(weights) > 0).all()
    assert sampling_weights(np.array([])).shape == (0,)


def test_the_chance_to_be_kept_is_gpt3s_rule():
    rng = np.random.default_rng(0)
    for score in (0.3, 0.8, 0.95):
        kept = (rng.pareto(9, 200_000) > 1 - score).mean()
        assert keep_chance(np.array([score]))[0] == pytest.approx(kept, abs=0.004)


def test_scores_that_are_none():
    for function in (lambda s: keeps(s, 0.5), keep_chance, sampling_weights):
        for wrong in (1.5, -0.1, np.nan):
            with pytest.raises(InputError, match=f"a score is {wrong}"):
                function(np.array([0.5, wrong]))
    with pytest.raises(InputError, match="the threshold is 2"):
        keeps(np.array([0.5]), 2)
    with pytest.raises(InputError, match="alpha is -1"):
        keep_chance(np.array([0.5]), -1)


# ----------------------------------------------------------------------- labelled files


def test_every_form_of_labelled_file_reads_the_same(tmp_path):
    (tmp_path / "a.tsv").write_text("good\tfine words\n\nbad\tbuy pills\n")
    (tmp_path / "a.txt").write_text("__label__good fine words\r\n__label__bad buy pills\n")
    lines = [{"label": "good", "text": "fine words"}, {"text": "buy pills", "label": "bad"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    (one / "good.txt").write_text("fine words\n")
    (one / "bad.txt").write_text("buy pills\n")
    for label, text in (("good", "fine words"), ("bad", "buy pills")):
        (many / label).mkdir(parents=True)
        (many / label / "1.txt").write_text(text)
    expected = (["fine words", "buy pills"], ["good", "bad"])
    for name in ("a.tsv", "a.txt", "a.jsonl"):
        assert read_labelled([tmp_path / name]) == expected, name
    for folder in (one, many):
        texts, labels = read_labelled([folder])
        assert (texts[::-1], labels[::-1]) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "good fine", "a.tsv, line 1: needs a label, a tab and a text"),
        ("a.jsonl", '{"label": "x", "text": "y"}\n{"label', "a.jsonl, line 2: is no JSON"),
        ("a.jsonl", '{"text": "y"}', r'line 1: needs {"label": ..., "text": ...}'),
        ("a.jsonl", "[]", "line 1: needs"),
        ("a.txt", "fine words", "line 1: needs __label__LABEL and a text"),
        ("a.txt", "__label__a __label__b text", "line 1: has two labels, 'a' and '__label__b'"),
        ("a.txt", "\n\n", "a.txt holds no labelled text"),
        ("a.txt", b"__label__a \xff", r"is not UTF-8 text \(byte 11\)"),
    ],
)
def test_lines_without_a_label(tmp_path, name, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_labelled([tmp_path / name])


def test_files_that_are_missing_or_folders_without_text(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_labelled([tmp_path / "none.tsv"])
    with pytest.raises(InputError, match="holds no labelled text"):
        read_labelled([tmp_path])


def test_languages_are_told_apart_by_their_pieces():
    sentences = {
        "en": ["the rain in the north", "where there is the thing", "this and that with those"],
        "de": ["der regen schlägt das dach", "ich weiß nicht wo er ist", "durch den dichten wald"],
        "ja": ["雨がふっています", "これはほんです", "あのひとはどこですか"],
    }
    texts = [text for found in sentences.values() for text in found] * 10
    labels = [name for name, found in sentences.items() for _ in found] * 10
    made = train_language_identifier(texts, labels)
    strange = ["those things there", "nicht durch das dach", "どこにいますか", "THE THIEF"]
    assert [guess.label for guess in made.predict(strange)] == ["en", "de", "ja", "en"]
