from pathlib import Path

import pytest

from minillm.data import questions
from minillm.data.python_docs import Entry
from minillm.data.questions import Question, make_questions
from minillm.errors import InputError


def entry(name: str, summary: str, kind: str = "function", document: str = "os.path") -> Entry:
    return Entry(name, kind, name, summary, (), document)


def test_a_question_is_asked_in_several_ways_of_which_one_is_not_taught() -> None:
    (made,) = make_questions([entry("os.path.join", "Join two or more paths.")])
    assert made.ways[0] == "What does os.path.join do?"
    assert made.unseen == "Tell me what os.path.join does."
    assert made.unseen not in made.ways


@pytest.mark.parametrize(
    "odd",
    [
        entry("os.path._private", "Join two or more paths."),
        entry("os.path.Path.method", "Join two or more paths."),
        entry("obscure.join", "Join two or more paths.", document="obscure"),
        entry("os.path.short", "Join paths."),
        entry("os.path.long", "Join " + "very " * 30 + "many paths."),
        entry("os.path.new", "Changed in version 3.4: it joins paths."),
        entry("for", "It goes over a sequence.", kind="topic", document="topic for"),
    ],
    ids=lambda odd: odd.name,
)
def test_what_makes_no_question(odd: Entry) -> None:
    assert make_questions([odd]) == []


def test_a_name_is_asked_about_once() -> None:
    two = [entry("os.path.join", "Join two paths."), entry("os.path.join", "Join many paths.")]
    assert [question.answer for question in make_questions(two)] == ["Join two paths."]


def test_questions_come_back_from_their_file(tmp_path: Path) -> None:
    made = [
        Question(("Who?", "Who is it?"), "Ada – of course.", "Whom?"),
        Question(("Why?",), "So."),
    ]
    questions.save(made, tmp_path / "q.jsonl")
    assert questions.load(tmp_path / "q.jsonl") == made


def test_a_users_file_needs_a_question_and_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Who?", "answer": "Ada."}\n\n')
    assert questions.load(path) == [Question(("Who?",), "Ada.")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no questions"),
        ('{"question": "Who?", "answer": "Ada."}\n{"question": 3}', "line 2 needs"),
        ("who?", "line 1 is not JSON"),
        ("[1]", "line 1 needs"),
        ('{"question": [], "answer": "Ada."}', "line 1 needs"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint):
        questions.load(path)
