"""Rules: each measures what it says, and the threshold in the recipe decides."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data import filters
from minillm.data.documents import Document, Rejected
from minillm.data.recipe import FilterConfig

PROSE = (
    "The keeper of the key had a book that nobody was allowed to open. Every evening she walked "
    "down to the harbour with it, and she looked for a ship with red sails among the others. "
    "When it came at last, the wind had turned, and there was no way to be heard from the shore. "
    "So she opened the book, and read aloud what her grandmother had written in it."
)
OFF = FilterConfig(**dict.fromkeys(field.name for field in dataclasses.fields(FilterConfig)))


def value(name: str, text: str) -> float:
    return filters.MEASURES[name].of(filters.Page(text))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("words", "one two  three\nfour", 4),
        ("word_length", "a bbb", 2),
        ("symbols", "# wait ... no … #", 4 / 6),
        ("bullet_lines", "- a\n• b\nc\n\n* d", 3 / 4),
        ("ellipsis_lines", "read more...\nit ends.\nor…", 2 / 3),
        ("alphabetic_words", "one 2 3a --", 2 / 4),
        ("stop_words", "The cat and THE dog", 2),
        ("duplicate_lines", "a\nb\na\n\na", 2 / 4),
        ("duplicate_paragraphs", "a\nb\n\nc\n\na\nb", 1 / 3),
        ("duplicate_line_letters", "aaa\nb\naaa", 3 / 7),
        ("duplicate_paragraph_letters", "aaa\n\nb\n\naaa", 3 / 7),
        ("curly_braces", "if (x) { y; } {", 2),
        ("lorem_ipsum", "Lorem ipsum dolor", 1),
        ("sentences", "One. Two! Is it three? e.g.this 3.14 no end", 3),
        ("boilerplate_lines", "Text.\nThis site uses cookies.\nSee our Privacy Policy.", 2 / 3),
        ("terminal_lines", "One.\nMenu\n“Two”\nHome", 2 / 4),
        ("short_lines", "Home\n" + "x" * 30, 1 / 2),
        ("code_lines", "int x;\nfor (;;) {\nIt is a sentence.\n}", 3 / 4),
        ("markup", "<b>no</b>", 7 / 9),
        ("top_2_grams", "a b c a b", 4 / 5),
        ("duplicate_5_grams", "a b c d e " * 2, 1),
    ],
)
def test_what_a_measure_is(name, text, expected):
    assert value(name, text) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_every_text_can_be_measured_and_shares_are_shares(text):
    for name, found in filters.measure_all(text).items():
        assert found >= 0
        if any(word in name for word in ("lines", "letters", "grams", "alphabetic", "markup")):
            assert found <= 1 + 1e-12, name


def test_every_setting_is_a_rule_of_a_measure_that_names_its_source():
    names = {field.name.partition("_")[2] for field in dataclasses.fields(FilterConfig)}
    assert names - {"", "boilerplate"} == set(filters.MEASURES)
    assert all(found.source and found.about for found in filters.MEASURES.values())


def test_prose_passes_and_the_first_rule_that_is_broken_rejects():
    page = Document(PROSE, "a")
    assert filters.check(page, FilterConfig()) is page
    short = Document("Lorem ipsum.", "b", {"url": "u"})
    found = filters.check(short, FilterConfig())
    assert found == Rejected(short, "min_words", 2)
    relaxed = dataclasses.replace(FilterConfig(), min_words=None, min_stop_words=None)
    assert filters.check(short, relaxed).rule == "max_lorem_ipsum"
    assert filters.check(short, OFF) is short


def test_a_threshold_itself_is_allowed():
    five = Document("one two three four five", "a")
    assert filters.check(five, dataclasses.replace(OFF, min_words=5, max_words=5)) is five
    assert filters.check(five, dataclasses.replace(OFF, min_words=5.5)).rule == "min_words"
    assert filters.check(five, dataclasses.replace(OFF, max_words=4.5)).value == 5


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("max_symbols", PROSE + " #tag" * 40),
        ("max_bullet_lines", "\n".join(f"- {part}" for part in PROSE.split(". "))),
        ("min_alphabetic_words", PROSE + " 100 200 300 400 500 600" * 4),
        ("max_curly_braces", PROSE + " {"),
        ("max_short_lines", PROSE + "\nHome.\nAbout.\nNews.\nLogin."),
        ("max_duplicate_lines", f"{PROSE}\n{PROSE}"),
        ("max_duplicate_paragraphs", "\n".join(PROSE.split(". ")) + ".\n\nx.\n\nx."),
        ("max_markup", "<p>" * 20 + PROSE),
    ],
)
def test_pages_of_each_kind_are_rejected_by_their_rule(rule, text):
    assert filters.check(Document(text, ""), FilterConfig()).rule == rule


def test_lines_of_boilerplate_go_and_the_rest_stays():
    text = f"Accept: this site uses cookies.\n{PROSE}\nAll rights reserved."
    assert filters.without_boilerplate(Document(text, "")).text == PROSE
    long = PROSE + " Javascript was mentioned here."
    assert filters.without_boilerplate(Document(long, "")).text == long
