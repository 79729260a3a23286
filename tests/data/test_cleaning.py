from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data import cleaning

DOCSTRING = """Join two or more pathname components, inserting '/' as
needed.  If any component is an absolute path, all previous
path components will be discarded.

    >>> join("a", "b")
    'a/b'

Options:

    name      the name to show
    value     what it is worth

  * the first item of a list,
    which goes on in a second line
  * the second item of the list

for_stmt ::= "for" target_list
"""
JOINED = (
    "Join two or more pathname components, inserting '/' as needed. If any component is an "
    "absolute path, all previous path components will be discarded."
)


def test_prose_keeps_sentences_and_leaves_out_code_tables_and_grammar() -> None:
    assert cleaning.prose(DOCSTRING) == [
        JOINED,
        "* the first item of a list, which goes on in a second line",
        "* the second item of the list",
    ]


def test_headings_lose_their_underline() -> None:
    assert cleaning.prose("The for statement\n=================\n\nIt loops.") == [
        "The for statement"
    ]


def test_plain_quotes_and_dashes_and_no_emphasis() -> None:
    text = "“A” – the object’s *name* [4], not 2 * x * y or **kwargs"
    assert cleaning.plain(text) == '"A" - the object\'s name, not 2 * x * y or **kwargs'


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300))
def test_prose_is_in_lines_of_its_own_and_cleaning_twice_changes_nothing(text: str) -> None:
    once = cleaning.prose(text)
    assert all(paragraph == " ".join(paragraph.split()) for paragraph in once)
    for paragraph in once:
        assert cleaning.prose(paragraph) in ([paragraph], [])


def test_first_sentences() -> None:
    first = cleaning.first_sentence
    assert first("Return the sum. Then stop.") == "Return the sum."
    assert first("Use e.g. Unix paths, i.e. Strings. More.") == "Use e.g. Unix paths, i.e. Strings."
    assert first("Written by J. Doe. He is dead.") == "Written by J. Doe."
    assert first("Test whether a path is absolute") == "Test whether a path is absolute."
    assert first("It is used to loop over elements:") == "It is used to loop over elements."
    assert first("Is it? Yes.") == "Is it?"
