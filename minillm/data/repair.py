"""Unicode repair and normalisation: one spelling for what looks and means the same.

What is done, in this order:

* text that was decoded with the wrong table (`schÃ¶n` for `schön`) is put right, by ftfy;
* composed characters (NFC, Unicode Standard Annex 15), so that é is one character however typed;
* line ends become `\\n`, all other spaces a plain one; tabs stay;
* characters that are not seen are left out: control characters, byte order marks, soft hyphens,
  zero-width spaces. Joiners stay: emoji and Persian need them;
* lines lose trailing spaces, and more than one empty line in a row becomes one.
"""

from __future__ import annotations

import re
import unicodedata

from minillm.data.documents import Document
from minillm.data.extras import needed

_LINE_ENDS = dict.fromkeys(map(ord, "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), "\n")
_SPACES = dict.fromkeys(
    map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
             "\u202f\u205f\u3000"), " ",
)  # fmt: skip
_UNSEEN = [
    *(code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"),
    0xAD, 0x200B, 0x2060, 0xFEFF, 0xFFFE, 0xFFFF,
]  # fmt: skip
_TABLE = {**dict.fromkeys(_UNSEEN), **_LINE_ENDS, **_SPACES}
_ODD = re.compile("[" + "".join(map(re.escape, map(chr, _TABLE))) + "]")
_EMPTY_LINES = re.compile(r"\n{3,}")
# UTF-8 read with a table of single bytes: the first byte of a character and one that follows it.
_MISREAD = re.compile("[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u203a€™]")
_MARKS = re.compile(r"&(?:amp|lt|gt|quot|nbsp|#\d+);")


def repair(document: Document) -> Document:
    """The document with wrongly decoded text put right (see the head of this file).

    Most texts have nothing to repair, and a look is enough to know. Raises `InputError` where ftfy
    is not installed.
    """
    text = document.text
    misread = not text.isascii() and _MISREAD.search(text) is not None
    if not misread and _MARKS.search(text) is None:
        return document
    ftfy = needed("ftfy", "the repair of text")
    settings = ftfy.TextFixerConfig(
        explain=False,
        unescape_html="auto",  # not where the text has tags
        fix_encoding=misread,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        fix_line_breaks=False,
        normalization=None,
    )
    return Document(ftfy.fix_text(text, settings), document.source, document.metadata)


def normalise(document: Document) -> Document:
    """The document in one spelling (see the head of this file).

    >>> normalise(Document("cafe\\u0301\\u00a0\\r\\n\\r\\n\\r\\n\\r\\nend ", "")).text
    'café\\n\\nend'
    """
    text = document.text
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _ODD.search(text) is not None:
        text = text.translate(_TABLE)
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    if "\n\n\n" in text:
        text = _EMPTY_LINES.sub("\n\n", text)
    return Document(text.strip(" \t\n"), document.source, document.metadata)
