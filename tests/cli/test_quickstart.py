"""`minillm quickstart`: from text to answers; `generate` and `chat` with the result."""

import io
import json
import shutil

import numpy as np
import pytest

from minillm.cli import stages
from minillm.cli.main import main
from minillm.training.checkpoint import RunFolder, load_run

TEXT = "Ada keeps the key. Bob keeps the book. " * 40
QUESTIONS = [{"question": "Who keeps the key?", "answer": "Ada."},
             {"question": "Who keeps the book?", "answer": "Bob."}]  # fmt: skip
SMALL = [
    "--tokenizer.vocab-size", "270", "--model.block-size", "32", "--model.n-layer", "1",
    "--model.d-model", "32", "--model.n-head", "2", "--model.n-kv-head", "1", "--model.d-ff", "64",
    "--train.steps", "12", "--train.batch-size", "4", "--train.warmup", "2",
    "--sft.steps", "60", "--sft.batch-size", "4", "--sft.warmup", "2", "--sft.lr", "1e-2",
]  # fmt: skip


def write_input(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "keys.txt").write_text(TEXT)
    lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
    (folder / "lessons.jsonl").write_text(lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a quickstart on a user's text and questions."""
    folder = tmp_path_factory.mktemp("quickstart")
    write_input(folder)
    words = ["quickstart", folder / "notes", "--questions", folder / "lessons.jsonl"]
    assert main([str(word) for word in [*words, "--out", folder / "run", *SMALL]]) == 0
    return folder


def run(capsys, *words):
    """Exit status, standard output, standard error."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    return (status, *capsys.readouterr())


def fails(capsys, message, *words):
    """The command fails with one line that contains `message`."""
    status, _, err = run(capsys, *words)
    assert (status, err.count("\n")) == (2, 1), err
    assert message in err


def again(finished, out):
    """The words that make the same run in another folder."""
    words = ["quickstart", finished / "notes", "--questions", finished / "lessons.jsonl"]
    return [*words, "--out", out, *SMALL]


# ---------------------------------------------------------------------------------- quickstart


def test_a_run_that_is_done_is_shown_again_and_not_made_again(finished, capsys):
    before = RunFolder(finished / "run").last().path.stat().st_mtime_ns
    status, out, _ = run(capsys, *again(finished, finished / "run"))
    assert status == 0
    assert "1. collect text" in out
    assert "7. examine" in out
    assert "right answers, word for word: 2 of 2 (100.0%)" in out
    assert "bits/byte" in out
    assert RunFolder(finished / "run").last().path.stat().st_mtime_ns == before


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(
    finished, tmp_path, capsys, monkeypatch
):
    def pull_the_plug(*_, **__):
        raise KeyboardInterrupt

    for stage in ("prepare", "train", "ChatBatches"):  # before each, and all before it done
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
        for words in (["eval", place], ["info", place], ["train", place, "--resume"],
                      ["generate", place, "--max-tokens", 5], ["chat", place, "Who?"]):  # fmt: skip
            status, out, err = run(capsys, *words)
            assert status == 0, err
            assert out


@pytest.mark.slow
def test_the_documentation_is_the_text_where_there_is_no_other(tmp_path, capsys):
    tiny = [*SMALL, "--train.steps", "1", "--sft.steps", "1", "--model.block-size", "256"]
    status, out, _ = run(capsys, "quickstart", "--out", tmp_path / "run", *tiny)
    assert status == 0
    assert "What does os.path.join do?" in out
    assert (tmp_path / "run" / "text").is_dir()
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


# ---------------------------------------------------------------------------------- generate


def test_generating_goes_on_from_the_prompt_the_same_for_the_same_seed(finished, capsys):
    place = finished / "run" / "pretrained"
    words = ["generate", place, "--prompt", "Ada ", "--max-tokens", 12]
    _, first, _ = run(capsys, *words)
    assert first.startswith("Ada ")
    assert run(capsys, *words)[1] == first
    assert run(capsys, *words, "--seed", 1)[1] != first
    greedy = run(capsys, *words, "--greedy")[1]
    assert run(capsys, *words, "--temperature", 0, "--seed", 5)[1] == greedy
    assert run(capsys, *words, "--top-k", 1)[1] == greedy


def test_several_prompts_and_samples_are_parted_by_lines(finished, capsys):
    place = finished / "run" / "pretrained"
    words = ["generate", place, "--prompt", "Ada", "--prompt", "Bob", "--max-tokens", 4]
    texts = run(capsys, *words, "--samples", 2)[1].split("\n---\n")
    assert [text[:3] for text in texts] == ["Ada", "Ada", "Bob", "Bob"]


def test_a_stop_string_ends_the_text_and_is_not_shown(finished, capsys):
    place = finished / "run" / "pretrained"
    words = ["generate", place, "--prompt", "Ada", "--max-tokens", 40]
    whole = run(capsys, *words)[1]
    letter = next(c for c in whole[3:] if c.isalpha())
    assert run(capsys, *words, "--stop", letter)[1] == whole[: whole.index(letter, 3)] + "\n"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("'--top-k' takes a whole number, not 'many'", ["--top-k", "many"]),
        ("top_p=3.0; it takes a probability", ["--top-p", "3"]),
        ("unknown argument '--temprature'; did you mean '--temperature'?", ["--temprature", "1"]),
        ("block_size is 32", ["--prompt", "key " * 90]),
        ("99999, but vocab_size is 270", ["--ids", "5 99999"]),
        ("--ids takes whole numbers, not '5 x'", ["--ids", "5 x"]),
        ("max_tokens=-1", ["--max-tokens", "-1"]),
    ],
)
def test_what_cannot_be_generated_is_one_line(finished, capsys, message, words):
    fails(capsys, message, "generate", finished / "run", *words)
    fails(capsys, "is no run folder", "generate", finished / "notes")


def test_a_run_without_tokenizer_speaks_in_ids(finished, tmp_path, capsys):
    bare = shutil.copytree(finished / "run", tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    fails(capsys, "give --ids", "generate", bare)
    fails(capsys, "give --ids", "generate", bare, "--ids", "1", "--prompt", "Ada")
    status, out, _ = run(capsys, "generate", bare, "--ids", "1,2", "--max-tokens", 3)
    assert (status, out[:3], len(out.split())) == (0, "1,2", 4)
    fails(capsys, "cannot chat", "chat", bare, "Who?")


# ---------------------------------------------------------------------------------- chat


def test_a_question_on_the_command_line_is_answered(finished, capsys):
    assert run(capsys, "chat", finished / "run", "Who", "keeps the key?")[1] == "Ada.\n"


def test_questions_from_a_pipe_are_answered_line_by_line(finished, capsys, monkeypatch):
    lines = "Who keeps the book?\n\nWho keeps the key?\n/new\nWho keeps the key?\n/quit\nWho?\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert run(capsys, "chat", finished / "run")[1] == "Bob.\nAda.\nAda.\n"


def test_a_question_that_does_not_fit_ends_nothing(finished, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("key " * 90 + "\nWho keeps the key?\n"))
    status, out, _ = run(capsys, "chat", finished / "run")
    assert status == 0
    assert "but block_size is 32" in out
    assert out.endswith("Ada.\n")
