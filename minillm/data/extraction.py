"""Extraction: the main text of a web page, without navigation, scripts, banners and boilerplate.

Two libraries can do it, measured side by side in `benchmarks/extraction.py`. trafilatura leaves
out nearly all that is not the article; resiliparse is several times as fast, lets more of the
page's frame through, and misses whole articles now and then. The recipe chooses. What neither finds
text in is rejected, page and all.
"""

from __future__ import annotations

import logging

from minillm.data.documents import Document, Rejected
from minillm.data.extras import needed
from minillm.data.recipe import ExtractionConfig

MARKUP = "markup"  # the key in a document's metadata that says its text is a page


def extract(document: Document, config: ExtractionConfig) -> Document | Rejected:
    """The document with the main text of its page; one that is no page comes back as it is."""
    if document.metadata.get(MARKUP) != "html":
        return document
    text = main_text(document.text, config)
    if not text.strip():
        return Rejected(document, "no_main_text", len(document.text))
    about = {key: value for key, value in document.metadata.items() if key != MARKUP}
    return Document(text, document.source, about)


def main_text(page: str, config: ExtractionConfig) -> str:
    """The main text of an HTML page; "" where there is none.

    Raises `InputError` where the library is not installed.
    """
    if not page.strip():
        return ""
    if config.library == "resiliparse":
        return _resiliparse(page)
    return _trafilatura(page, config.precision) or _resiliparse(page)


def _trafilatura(page: str, precision: bool) -> str:
    library = needed("trafilatura", "the main text of a page")
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # a page without text is no news
    try:
        found = library.extract(
            page, include_comments=False, include_tables=True, favor_precision=precision
        )
    except Exception:  # noqa: BLE001 - a page may break any parser; the other one may manage
        return ""
    return found or ""


def _resiliparse(page: str) -> str:
    library = needed("resiliparse.extract.html2text", "the main text of a page")
    return library.extract_plain_text(
        page, main_content=True, alt_texts=False, links=False, form_fields=False, noscript=False
    )
