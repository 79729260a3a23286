"""`minillm generate`: what is written, and what cannot be."""

import shutil

import pytest

from .answering import fails, run


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


def test_an_empty_prompt_begins_a_text_from_nothing_as_no_prompt_does(finished, capsys):
    words = ["generate", finished / "run" / "pretrained", "--max-tokens", 12]
    status, without, _ = run(capsys, *words)
    assert (status, len(without) > 1) == (0, True)
    assert run(capsys, *words, "--prompt", "")[1] == without
    fails(capsys, "prompt 0 is empty; give at least one token", *words, "--ids", "")
