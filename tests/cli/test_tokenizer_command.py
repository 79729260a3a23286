"""`minillm tokenizer`: every subcommand, and its mistakes in one line."""

import io
from types import SimpleNamespace

import pytest

from minillm.cli.main import main

TEXT = "The theatre is there; the thief is not.\n" * 30


@pytest.fixture
def trained(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    path = tmp_path / "tokenizer.json"
    words = ["tokenizer", "train", str(tmp_path / "text.txt"), "--vocab-size", "300"]
    assert main([*words, "--out", str(path)]) == 0
    assert "saved to" in capsys.readouterr().out
    return path


def run(capsys, *words):
    status = main(["tokenizer", *map(str, words)])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_encode_and_decode(trained, capsys, monkeypatch):
    _, ids, _ = run(capsys, "encode", trained, "the thief")
    assert run(capsys, "decode", trained, *ids.split())[1] == "the thief\n"
    stdin = SimpleNamespace(buffer=io.BytesIO(b"the thief"), read=lambda: ids)
    monkeypatch.setattr("sys.stdin", stdin)
    assert run(capsys, "encode", trained)[1] == ids
    assert run(capsys, "decode", trained)[1] == "the thief\n"
    _, special, _ = run(capsys, "encode", trained, "<|end|>", "--allow-special")
    assert len(special.split()) == 1


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "char", "word"])
def test_other_kinds(kind, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    path = tmp_path / "t.json"
    run(capsys, "train", tmp_path / "text.txt", "--kind", kind, "--vocab-size", "60", "--out", path)
    _, ids, _ = run(capsys, "encode", path, "the thief")
    assert run(capsys, "decode", path, *ids.split())[1] == "the thief\n"


def test_show(trained, capsys):
    _, out, _ = run(capsys, "show", trained, "the thief\n", "--no-colour")
    assert "|" in out and "⏎" in out and "tokens:" in out
    _, out, _ = run(capsys, "show", trained, "the")
    assert "\x1b[30;44m" in out
    _, out, _ = run(capsys, "show", trained, "--merges", " the")
    lines = out.splitlines()
    assert lines[0].split() == ["'", "'", "'t'", "'h'", "'e'"] and "merge" in lines[-1]


def test_convert_and_compare(trained, tmp_path, capsys):
    outs = {"hf": tmp_path / "hf.json", "tiktoken": tmp_path / "r.tiktoken", "gpt2": tmp_path / "g"}
    for name, out in outs.items():
        assert run(capsys, "convert", trained, out, "--to", name)[0] == 0
    _, out, _ = run(
        capsys, "compare", trained, *outs.values(), tmp_path / "text.txt", "--pattern", "gpt4"
    )
    rows = [line.split() for line in out.splitlines()[1:]]
    assert len(rows) == 4 and len({row[2] for row in rows}) == 1


def test_mistakes_are_one_line(trained, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "cut.json").write_text(trained.read_text()[:100])
    (tmp_path / "random.bin").write_bytes(b"\xff\xfe random \x80")
    (tmp_path / "r.tiktoken").write_text("")
    for words, message in (
        (["train", tmp_path / "empty.txt"], "empty"),
        (["train", tmp_path / "missing.txt"], "cannot read"),
        (["train", tmp_path / "random.bin"], "is not UTF-8"),
        (["train", tmp_path / "text.txt", "--vocab-size", "100"], "too small"),
        (["train", tmp_path / "text.txt", "--pattern", "("], "neither a name"),
        (["encode", tmp_path / "cut.json", "x"], "damaged or cut off"),
        (["encode", tmp_path / "r.tiktoken", "x"], "give a pattern"),
        (["decode", trained, "5", "999999"], "token id 999999"),
        (["decode", trained, "five"], "not 'five'"),
        (["compare", trained, tmp_path / "empty.txt"], "nothing to compare"),
    ):
        status, out, err = run(
            capsys, *words, *(["--out", tmp_path / "o"] if "train" in words else [])
        )
        assert status == 2 and not out, words
        assert message in err and err.count("\n") == 1, err
