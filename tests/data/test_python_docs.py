"""Python's documentation, of a small library made here and of the Python that runs the tests."""

from pathlib import Path

import pytest

from minillm.data import python_docs
from minillm.data.questions import make_questions
from minillm.errors import InputError

TOPICS = '''topics = {"for": """The "for" statement
*******************

The "for" statement is used to iterate over the elements of a sequence.
""", "compound": """Compound statements
*******************

Compound statements contain other statements.

The "for" statement is used to iterate over the elements of a sequence.

str.join(iterable)

   Return a string which is the concatenation of the strings in
   *iterable*.

object.__lt__(self, other)
object.__le__(self, other)

   These are the so-called rich comparison methods.
"""}
'''
MODULE = '''"""Operations on paths of files."""
import somewhere_that_does_not_exist

def join(a, *p, strict=False, **rest):
    """Join two or more paths. If one is absolute, it wins."""

class Path:
    """A path that knows its parts."""
    def parent(self, levels):
        """Return the folder that holds the path."""

def _secret():
    """Do what nobody may ask for."""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    files = {
        "pydoc_data/topics.py": TOPICS,
        "posixpath.py": MODULE,
        "json/__init__.py": '"""Read and write JSON texts."""',
        "json/_hidden.py": 'def dumps(o):\n    """Return a JSON text of an object."""',
        "test/test_json.py": '"""Tests of reading and writing JSON texts."""',
        "broken.py": "def (:",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_entries_have_public_names_headings_and_summaries(library: Path) -> None:
    found = {entry.name: entry for entry in python_docs.collect(library)}
    assert found["os.path.join"].heading == "os.path.join(a, *p, strict, **rest)"
    assert found["os.path.join"].summary == "Join two or more paths."
    assert found["os.path.Path.parent"].heading == "os.path.Path.parent(levels)"
    assert found["json.dumps"].document == "json"
    assert found["str.join"].summary == (
        "Return a string which is the concatenation of the strings in iterable."
    )
    assert found["for"].kind == "topic"
    assert found["object.__lt__"].kind == "functions"
    assert not any("test" in name for name in found)


def test_documents_hold_every_paragraph_as_often_as_it_was_said(library: Path) -> None:
    documents = {d.source: d.text for d in python_docs.documents(python_docs.collect(library))}
    assert documents["os.path"].startswith("The os.path module\nOperations on paths of files.\n\n")
    everything = "\n".join(documents.values())
    assert everything.count("used to iterate over the elements") == 2
    assert "topic compound" in documents


def test_a_python_without_sources_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name files or folders of text"):
        python_docs.collect(tmp_path)


def test_this_pythons_own_documentation() -> None:
    entries = python_docs.collect()
    documents = python_docs.documents(entries)
    assert sum(len(document.text) for document in documents) > 1_000_000
    assert len({document.source for document in documents}) == len(documents) > 300
    questions = {question.ways[0]: question for question in make_questions(entries)}
    assert len(questions) > 700
    assert questions["What does os.path.join do?"].answer == (
        "Join two or more pathname components, inserting '/' as needed."
    )
    assert questions["What does str.upper do?"].answer.startswith("Return a copy of the string")
    assert python_docs.collect() == entries
