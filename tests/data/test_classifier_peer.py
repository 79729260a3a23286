"""fastText as the judge: the same features of the same words, the same answers of the same matrices.

Needs the package `fasttext`; without it these tests are passed over.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from minillm.data.classifier import Classifier, ClassifierConfig
from minillm.data.classifier.features import features_of
from minillm.data.classifier.lexicon import read, spelled

fasttext = pytest.importorskip("fasttext")

TEXTS = ["where the colour is", "a naïve 犬 🐕 reader", "is the reader where", "no colour at all"]
LABELS = ["good", "bad", "good", "good"]
SETTINGS = {
    "dim": 8, "wordNgrams": 3, "minn": 1, "maxn": 3, "bucket": 500, "minCount": 1, "lr": 0.5,
    "epoch": 20, "thread": 1, "verbose": 0,
}  # fmt: skip
CONFIG = ClassifierConfig(dim=8, word_ngrams=3, min_chars=1, max_chars=3, buckets=500)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    path = tmp_path_factory.mktemp("fasttext") / "lines.txt"
    pairs = zip(LABELS, TEXTS, strict=True)
    path.write_text("".join(f"__label__{label} {text}\n" for label, text in pairs))
    # Its matrix is not wholly initialised: memory that was used before may hold NaN.
    program = (
        "import fasttext, json, sys; path, settings = sys.argv[1:]\n"
        "made = fasttext.train_supervised(path, **json.loads(settings))\n"
        "made.save_model(path + '.bin')"
    )
    for _ in range(10):
        command = [sys.executable, "-c", program, str(path), json.dumps(SETTINGS)]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            made = fasttext.load_model(f"{path}.bin")
            if np.isfinite(made.get_input_matrix()).all():
                return made
    pytest.skip("fastText stopped with NaN ten times")


def test_words_have_the_same_pieces(theirs):
    lexicon, words, ends = read(TEXTS)
    size = len(lexicon)
    found = features_of(lexicon, words, ends, np.arange(size), size, CONFIG)
    assert sorted(theirs.get_words()) == sorted(word.decode() for word in lexicon.words())
    for number, word in enumerate(lexicon.words()):
        ours = found.listed[found.list_ends[number - 1] if number else 0 : found.list_ends[number]]
        expected = theirs.get_subwords(word.decode())[1]
        assert (ours[1:] - size).tolist() == (expected[1:] - len(theirs.get_words())).tolist()


def test_their_matrices_give_their_answers(theirs):
    words = [word.encode() for word in theirs.get_words()]
    stops = np.cumsum([len(word) for word in words])
    data = np.frombuffer(b"".join(words), np.uint8)
    labels = [label.removeprefix("__label__") for label in theirs.get_labels()]
    ours = Classifier(
        CONFIG, labels, np.array([3, 1]), spelled(data, stops, np.ones(len(words), np.int64)),
        np.arange(500), theirs.get_input_matrix(), theirs.get_output_matrix(),
    )  # fmt: skip
    asked = [*TEXTS, "where", "strange colours", "犬 where no reader is", ""]
    names, chances = theirs.predict(asked, k=2)
    for mine, name, chance in zip(ours.top(asked, 2), names, chances, strict=True):
        assert [guess.label for guess in mine] == [n.removeprefix("__label__") for n in name]
        np.testing.assert_allclose([guess.probability for guess in mine], chance, atol=1e-4)
