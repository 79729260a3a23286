import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data.documents import Document
from minillm.data.repair import normalise, repair


def normal(text: str) -> str:
    return normalise(Document(text, "")).text


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normal(text)
    assert normal(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not set(once) & set("\r\x00\x85\u00a0\ufeff\u200b\u2028")
    assert "\n\n\n" not in once
    assert " \n" not in once


def test_what_is_seen_stays():
    text = "def f():\n\treturn 1  # eins\n\n\u0928\u0940 👨\u200d👩\u200d👧 می\u200cخواهم"
    assert normal(text) == text
    assert normal("a\x00b\x1bc\u00add\u3000e\x0bf") == "abcd e\nf"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("schÃ¶n und grÃ¼n", "schön und grün"),
        ("itâ€™s â€œfineâ€\x9d", "it’s “fine”"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
    ],
)
def test_wrongly_decoded_text_is_put_right(wrong, right):
    pytest.importorskip("ftfy")
    assert repair(Document(wrong, "")).text == right
    assert repair(Document(right, "")).text == right


def test_text_that_is_right_needs_no_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    for text in ("plain", "schön “fine” – Ça va", "日本語", "R&D"):
        assert repair(Document(text, "")).text == text
