"""`minillm chat`: answers, what is remembered of a conversation, and what is forgotten."""

import argparse
import io

import pytest

from minillm.cli import chat as command
from minillm.cli.chat import Chat
from minillm.inference.generate import Token
from minillm.training.checkpoint import load_run

from .answering import fails, run


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


@pytest.fixture
def prompts(monkeypatch):
    """The prompts that the model is given; whatever they are, it answers "Yes."."""
    seen = []

    def stream(model, prompts, *_, **__):
        seen.append(prompts[0])
        yield Token(0, 0, "Yes.", "stop")

    monkeypatch.setattr(command, "stream", stream)
    return seen


def conversation(finished, max_tokens=4, system=None):
    model, tokenizer, _ = load_run(finished / "run")
    plain = {"temperature": 0.0, "top_k": None, "top_p": None, "min_p": None,
             "repetition_penalty": 1.0, "greedy": True}  # fmt: skip
    settings = argparse.Namespace(**plain, seed=0, max_tokens=max_tokens, system=system)
    return Chat(model, tokenizer, settings), tokenizer


def test_what_was_said_stands_before_the_next_question(finished, prompts):
    chat, tokenizer = conversation(finished, system="Hm")
    chat.ask("A?")
    chat.ask("B?")
    text = tokenizer.decode(prompts[1])
    assert [text.index(said) for said in ("Hm", "A?", "Yes.", "B?")] == sorted(
        text.index(said) for said in ("Hm", "A?", "Yes.", "B?")
    )
    chat.forget()
    chat.ask("B?")
    text = tokenizer.decode(prompts[2])
    assert "Hm" in text and "A?" not in text


def test_the_oldest_is_forgotten_where_an_answer_would_not_fit(finished, prompts):
    chat, tokenizer = conversation(finished)
    for question in ("first", "second", "third", "last"):
        chat.ask(question)
    assert all(len(prompt) <= chat.model.config.block_size - 4 for prompt in prompts)
    text = tokenizer.decode(prompts[-1])
    assert "last" in text and "first" not in text


def test_an_answer_as_long_as_the_context_leaves_half_of_it_to_what_was_said(finished, prompts):
    chat, tokenizer = conversation(finished, max_tokens=200)
    for question in ("a", "b", "c", "d", "e"):
        chat.ask(question)
    text = tokenizer.decode(prompts[-1])
    assert ">d<" in text and ">a<" not in text
    assert len(prompts[-1]) <= chat.model.config.block_size // 2


def test_a_model_without_turns_cannot_chat(finished, capsys, monkeypatch):
    monkeypatch.setattr(command, "SPECIAL_TOKENS", ("<|nobody|>",))
    fails(capsys, "its vocabulary has no <|nobody|>; `minillm generate`", "chat", finished / "run")
