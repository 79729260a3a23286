"""The main text of pages: the article, and nothing that stands around it."""

import pytest

from minillm.data.documents import Document, Rejected
from minillm.data.extraction import extract
from minillm.data.recipe import ExtractionConfig

KEEPER = (
    "The keeper of the key had a book that nobody was allowed to open, and every evening she "
    "walked down to the harbour with it to look for a ship with red sails among the others."
)
SHIP = (
    "When it came at last, the wind had turned, and there was no way to be heard from the shore, "
    "so she opened the book and read aloud what her grandmother had written in it."
)
PAGE = f"""<!doctype html><html><head><title>Harbour</title><style>p {{ color: red }}</style>
<script>var tracker = "do not read me";</script></head><body>
<nav><ul><li><a href="/">Home page of it all</a></li><li><a href="/x">Other news</a></li></ul></nav>
<div id="cookie-banner" class="cookie-consent">We use cookies to improve your visit. Accept all</div>
<main><article><h1>The keeper</h1><p>{KEEPER}</p><p>{SHIP}</p></article></main>
<footer>Copyright 2020, terms and conditions</footer>
<script>document.write("neither me")</script></body></html>"""

libraries = pytest.mark.parametrize("library", ["trafilatura", "resiliparse"])


def page(text: str) -> Document:
    return Document(text, "a.html", {"markup": "html", "url": "u"})


@libraries
def test_the_article_stays_and_the_rest_goes(library):
    pytest.importorskip(library)
    found = extract(page(PAGE), ExtractionConfig(library=library))
    assert isinstance(found, Document)
    assert found.metadata == {"url": "u"}
    assert KEEPER in found.text
    assert SHIP in found.text
    for outside in ("tracker", "neither me", "color: red", "Other news", "cookies", "Copyright"):
        assert outside not in found.text


@libraries
@pytest.mark.parametrize("empty", ["", "<html><script>x()</script></html>", "<p></p>", "\0<<<"])
def test_a_page_without_text_is_rejected_whole(library, empty):
    pytest.importorskip(library)
    pytest.importorskip("resiliparse")
    found = extract(page(empty), ExtractionConfig(library=library))
    if isinstance(found, Rejected):
        assert (found.rule, found.document.text) == ("no_main_text", empty)
    else:
        assert found.text.strip()


def test_text_is_no_page():
    plain = Document("<b>text</b>", "a.txt")
    assert extract(plain, ExtractionConfig()) is plain


@pytest.mark.slow
@libraries
def test_ten_megabytes_on_one_line(library):
    pytest.importorskip(library)
    long = "<p>" + "word " * 2_000_000 + "</p>"
    found = extract(page(f"<html><body>{long}</body></html>"), ExtractionConfig(library=library))
    assert isinstance(found, Document | Rejected)
