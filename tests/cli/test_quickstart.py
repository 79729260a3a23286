"""`minillm quickstart`: from text to answers, whatever stops it on the way."""

import numpy as np
import pytest

from minillm.cli import stages
from minillm.data.reading import read_documents
from minillm.training.checkpoint import RunFolder, load_run

from .answering import SMALL, again, fails, run


def test_a_run_that_is_done_is_shown_again_and_not_made_again(finished, capsys):
    before = RunFolder(finished / "run").last().path.stat().st_mtime_ns
    status, out, _ = run(capsys, *again(finished, finished / "run"))
    assert status == 0
    assert "1. collect text" in out
    assert "kept for train" in out
    assert "8. examine" in out
    assert "right answers, word for word: 2 of 2 (100.0%)" in out
    assert "bits/byte" in out
    assert RunFolder(finished / "run").last().path.stat().st_mtime_ns == before


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(
    finished, tmp_path, capsys, monkeypatch
):
    def pull_the_plug(*_, **__):
        raise KeyboardInterrupt

    # Before each of these, and all that comes before it done.
    for stage in ("read_recipe", "documents_in", "prepare", "train", "ChatBatches"):
        with monkeypatch.context() as patch:
            patch.setattr(stages, stage, pull_the_plug)
            assert run(capsys, *again(finished, tmp_path / "run"))[0] == 130
    assert run(capsys, *again(finished, tmp_path / "run"))[0] == 0
    ours, theirs = (load_run(place / "run")[0] for place in (tmp_path, finished))
    for name, array in theirs.state_dict().items():
        assert np.array_equal(array, ours.state_dict()[name]), name


def test_without_questions_there_is_one_run_that_continues_text(finished, tmp_path, capsys):
    status, out, _ = run(
        capsys, "quickstart", finished / "notes", "--out", tmp_path / "run", *SMALL
    )
    assert status == 0
    assert "no questions to teach" in out
    assert not (tmp_path / "run" / "pretrained").exists()
    assert run(capsys, "generate", tmp_path / "run", "--max-tokens", 5)[0] == 0


def test_every_command_takes_both_runs(finished, capsys):
    for place in (finished / "run", finished / "run" / "pretrained"):
        for words in (["eval", place], ["info", place], ["generate", place, "--max-tokens", 5],
                      ["chat", place, "Who?"]):  # fmt: skip
            status, out, err = run(capsys, *words)
            assert status == 0, err
            assert out


def test_train_goes_on_with_the_run_before_the_lessons_alone(finished, capsys):
    place = finished / "run"
    for words in ([place], [place, "--resume"], ["tiny", "--out", place, "--resume"]):
        fails(capsys, f"`minillm train {place / 'pretrained'} --resume`", "train", *words)
    assert RunFolder(place).last().step == 60
    assert run(capsys, "train", place / "pretrained", "--resume")[0] == 0


def test_nobody_else_trains_the_run_inside_meanwhile(finished, tmp_path, capsys, monkeypatch):
    def train_beside(base, *_):
        fails(capsys, f"another process is training in {base.path}",
              "train", base.path, "--resume")  # fmt: skip
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "pretrain", train_beside)
    assert run(capsys, *again(finished, tmp_path / "run"))[0] == 130


def test_recompute_holds_for_both_trainings(finished, tmp_path, capsys, monkeypatch):
    def train(model, *arguments, **named):
        result = original(model, *arguments, **named)
        seen.append(model.recompute)
        return result

    seen, original = [], stages.train
    monkeypatch.setattr(stages, "train", train)
    few = ["--train.steps", 1, "--sft.steps", 1, "--train.recompute", "--sft.recompute"]
    assert run(capsys, *again(finished, tmp_path / "run"), *few)[0] == 0
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--data.path", "notes"), ("--data.packing", "true"), ("--train.sample-tokens", "9"),
     ("--sft.sample_tokens", "9"), ("--sft.eval-every", "9")],
)  # fmt: skip
def test_a_setting_that_would_change_nothing_is_refused(finished, tmp_path, capsys, flag, value):
    words = again(finished, tmp_path / "run")
    fails(capsys, f"quickstart takes no {flag.replace('_', '-')}: it ", *words, flag, value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit):
        run(capsys, "quickstart", "--help")
    shown = capsys.readouterr().out
    assert flag not in shown and "--train.eval-every" in shown


@pytest.mark.slow
def test_the_documentation_is_the_text_where_there_is_no_other(tmp_path, capsys):
    tiny = [*SMALL, "--train.steps", "1", "--sft.steps", "1", "--model.block-size", "256"]
    status, out, _ = run(capsys, "quickstart", "--out", tmp_path / "run", *tiny)
    assert status == 0
    assert "What does os.path.join do?" in out
    assert "min_words" in out
    assert "characters cut" in out
    cleaned, raw = (
        "".join(document.text for document in read_documents([tmp_path / "run" / place]))
        for place in ("text", "raw")
    )
    assert 0.8 * len(raw) < len(cleaned) < 0.95 * len(raw)
    assert "<email>" in cleaned
    assert "<email>" not in raw
    assert (tmp_path / "run" / "corpus" / "report.html").exists()
    assert RunFolder(tmp_path / "run" / "pretrained").last().step == 1


def test_bad_input_is_one_line_and_loses_nothing(finished, tmp_path, capsys):
    def quickstart(*words):
        return ["quickstart", *words, "--out", tmp_path / "run"]

    def leaves_nothing(message, content=None):
        if content is not None:
            (tmp_path / "bad.txt").write_bytes(content)
        fails(capsys, message, *quickstart(tmp_path / "bad.txt", *SMALL))
        assert not (tmp_path / "run").exists()

    leaves_nothing("does not exist")
    leaves_nothing("no text in", b"")
    leaves_nothing("is not UTF-8 text", np.random.default_rng(0).bytes(4096))
    leaves_nothing("NUL bytes", b"a\x00b" * 100)
    leaves_nothing("one context needs", b"too short\n" * 5)
    fails(capsys, "unknown setting 'sft.step'; did you mean 'sft.steps'?",
          *quickstart("--sft.step", 3))  # fmt: skip
    fails(capsys, "it takes at least 261", *quickstart(finished / "notes",
          "--tokenizer.vocab-size", "256"))  # fmt: skip
    (tmp_path / "bad.jsonl").write_text("{}\n")
    bad = ["--questions", tmp_path / "bad.jsonl"]
    fails(capsys, "line 1 needs", *quickstart(finished / "notes", *bad))
    assert not (tmp_path / "run").exists()
    fails(capsys, "run on other text", "quickstart", "--out", finished / "run", *SMALL)
    changed = [*again(finished, finished / "run"), "--train.steps", 13]
    fails(capsys, "run with other settings", *changed)
