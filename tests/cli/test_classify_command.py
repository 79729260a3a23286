"""`minillm data classify`: train, eval and predict, and their mistakes in one line."""

import io
from types import SimpleNamespace

import pytest

from minillm.cli import classify
from minillm.cli.main import Parser
from minillm.cli.settings import split_flags
from minillm.data.classifier import Classifier
from minillm.errors import MiniLLMError

LINES = "good\ta fine clear page\nbad\tbuy pills now\n" * 20


def run(*words):
    parser = Parser(prog="classify")
    classify.add_arguments(parser)
    words, overrides = split_flags([str(word) for word in words])
    arguments = parser.parse_args(words)
    arguments.overrides = overrides
    arguments.run(arguments)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train.tsv").write_text(LINES)
    (tmp_path / "texts.txt").write_text("clear and fine\n\nbuy now\n")
    model = tmp_path / "model.safetensors"
    words = ["train", tmp_path / "train.tsv", "--out", model]
    run(*words, "--classifier.dim", "8", "--classifier.lr", "0.5", "--classifier.epochs=10")
    return tmp_path, model


def test_train_eval_predict(files, capsys, monkeypatch):
    folder, model = files
    run("eval", model, folder / "train.tsv")
    assert "accuracy 1.0000" in capsys.readouterr().out
    run("predict", model, folder / "texts.txt")
    out = capsys.readouterr().out
    labels = [line.split("\t")[0] for line in out.splitlines()]
    assert len(labels) == 3 and labels[0] == "good" and labels[2] == "bad"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"clear and fine\n")))
    run("predict", model, "--top", "2")
    first = capsys.readouterr().out.split()
    assert first[::2] == ["good", "bad"] and float(first[1]) > 0.5
    run("predict", model, folder / "texts.txt", "--label", "bad")
    scores = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert scores[0] == pytest.approx(float(first[3])) and scores[2] > 0.5


def test_a_preset_and_a_setting_over_it(tmp_path, capsys):
    (tmp_path / "train.tsv").write_text(LINES)
    run("train", tmp_path / "train.tsv", "--out", tmp_path / "m", "--preset", "language",
        "--classifier.epochs", "1")  # fmt: skip
    assert "2 labels" in capsys.readouterr().out
    config = Classifier.load(tmp_path / "m").config
    assert (config.max_chars, config.epochs) == (3, 1)


def test_progress_says_how_long_is_left(capsys):
    report = classify.Progress()
    report(50, 100, 0.7)
    assert "50%, loss 0.7000" in (err := capsys.readouterr().err) and "s left" in err
    report(100, 100, 0.1)
    assert capsys.readouterr().err.endswith("texts/s\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "{0}/none.tsv"], "none.tsv cannot be read"),
        (["train", "{0}/one.tsv"], "all 1 texts have the label 'good'"),
        (["train", "{0}/train.tsv", "--classifier.dim", "0"], "dim is 0"),
        (["train", "{0}/train.tsv", "--classifier.loss", "hinge"], "there are softmax"),
        (["train", "{0}/train.tsv", "--classifier.size", "3"], "unknown setting"),
        (["eval", "{0}/train.tsv", "{0}/train.tsv"], "not a whole classifier file"),
        (["eval", "{0}/model.safetensors", "{0}/other.tsv"], "text 1 has the label 'ugly'"),
        (["predict", "{0}/model.safetensors", "{0}/none"], "none cannot be read"),
        (["predict", "{0}/model.safetensors", "{0}/texts.txt", "--label", "x"], "label 'x'"),
        (["predict", "{0}/model.safetensors", "--top", "0"], "at least 1, not '0'"),
    ],
)
def test_mistakes(files, words, message):
    folder, _ = files
    (folder / "one.tsv").write_text("good\tfine\n")
    (folder / "other.tsv").write_text("ugly\tfine\n")
    with pytest.raises(MiniLLMError, match=message):
        run(*[word.format(folder) for word in words])
