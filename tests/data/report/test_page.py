"""The pieces of a page: nothing in a text becomes markup, and bars are as high as their counts."""

import re
from html.parser import HTMLParser

import pytest

from minillm.data.report import page

ODD = "<script>alert(1)</script> & \"quotes\" '\x00\x1b[31m\u202egnp\ud800\ufffe </pre>"


class Reader(HTMLParser):
    """The tags of a page, in order, and its text; complains where they do not close."""

    VOID = ("meta", "line", "rect", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


PIECES = {
    "paragraph": page.paragraph,
    "example": lambda text: page.example(text, text),
    "details": lambda text: page.details(text, ""),
    "table": lambda text: page.table([text, "n"], [[text, 3]]),
    "histogram": lambda text: page.histogram(text, [text, "b"], [3, 1], [2, 1]),
    "pair": lambda text: page.side_by_side(f"same {text} left", f"same {text} right"),
    "page": lambda text: page.page(text, "", {text: ""}),
}


@pytest.mark.parametrize("name", PIECES)
def test_no_text_becomes_markup(name):
    plain, odd = (Reader(PIECES[name](text)) for text in ("word", ODD))
    assert [tag for tag, _ in odd.tags] == [tag for tag, _ in plain.tags]
    assert "<script>alert(1)</script>" in "".join(odd.text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800\ufffe]", PIECES[name](ODD))
    PIECES[name](ODD).encode()


def test_a_page_loads_nothing_and_allows_nothing():
    text = page.page("Title", "", {"One": "", "Two": ""})
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|src=|@import|url\(", text)
    reader = Reader(text)
    links = [attributes["href"][1:] for tag, attributes in reader.tags if tag == "a"]
    assert links == [attributes["id"] for tag, attributes in reader.tags if tag == "section"]
    assert len(set(links)) == 2


def test_bars_are_as_high_as_their_counts():
    text = page.histogram("Lengths", ["a", "b", "c"], [4, 0, 2], [1, 0, 2])
    bars = [(attributes["class"], float(attributes["height"]))
            for tag, attributes in Reader(text).tags if tag == "rect"]  # fmt: skip
    unit = page.HEIGHT / 4
    assert bars == [("came", 4 * unit), ("kept", unit), ("came", 2 * unit), ("kept", 2 * unit)]
    assert "a: 4 came in, 1 kept" in text
    assert "Lengths: none." in page.histogram("Lengths", [], [], [])
    assert "b: 7<" in page.histogram("Tokens", ["a", "b"], [], [0, 7])


def marked(text):
    """The marked words of the left and of the right text."""
    sides = text.split("</pre>")[:2]
    return [re.findall("<mark>(.*?)</mark>", side) for side in sides]


def test_words_that_differ_are_marked_on_both_sides():
    left, right = "the key was in the old box", "the key is in the box of wood"
    assert marked(page.side_by_side(left, right)) == [["was", "old"], ["is", "of", "wood"]]
    assert marked(page.side_by_side("a b", "a  b\n")) == [[], []]
    assert marked(page.side_by_side("", "a")) == [[], ["a"]]


def test_of_long_texts_the_part_that_differs_is_shown():
    same = " ".join(f"w{i}" for i in range(5000))
    text = page.side_by_side(f"{same} left {same}", f"{same} right {same}")
    assert marked(text) == [["left"], ["right"]]
    assert "the first 4,985 words are the same" in text
    assert len(text) < 10_000
    assert len(page.side_by_side("x" * 10**6, "y" * 10**6)) < 1000
