import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data.documents import Document
from minillm.data.masking import mask

KEY = "abcdefghijklmnopqrstuvwxyz0123456789"


def masked(text: str) -> str:
    return mask(Document(text, "a", {"b": "c"}))[0].text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada.lovelace+x@mail.example.org, yes", "<email>, yes"),
        ("<ada@example.org>", "<<email>>"),
        ("call 555-123-4567 or 555.123.4567.", "call <phone> or <phone>."),
        ("(555) 123-4567", "<phone>"),
        ("+49 (30) 1234-5678", "<phone>"),
        ("Tel. 030 12345678", "Tel. <phone>"),
        ("01 23 45 67 89", "<phone>"),
        ("at 8.8.8.8 today", "at <ip> today"),
        ("2001:4860:4860::8888", "<ip>"),
        ("AKIAIOSFODNN7EXAMPLE", "<key>"),
        (f"token ghp_{KEY}!", "token <key>!"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "<key>"),
    ],
)
def test_what_is_masked(text, expected):
    assert masked(text) == expected
    assert masked(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "on 03/16/2016, 2020-01-14 and 14.01.2020", "ISBN 978-3-16-148410-0", "1,234,567.89",
        "127.0.0.1 and 192.168.1.1", "version 1.2.300.4", "999.999.999.999", "10:30:45", "a::b",
        "@decorator", "user@host", "3.14159265358979", "in 1914-1918 and 2000-2010",
        "1 000 000 000", "std::vector<int>", "sk-ip", "12 34 56", "0 1 2 3 4 5 6 7 8 9",
    ],
)  # fmt: skip
def test_what_stays(text):
    assert masked(text) == text


def test_what_was_found_is_counted_and_the_rest_of_the_document_stays():
    document = Document("a@b.org c@d.org 8.8.8.8", "s", {"url": "u"})
    found, counts = mask(document)
    assert found == Document("<email> <email> <ip>", "s", {"url": "u"})
    assert counts == {"email": 2, "ip": 1}


@given(st.text(st.sampled_from("0123456789.:@+-() abAK_/"), max_size=80))
def test_masking_twice_changes_nothing(text):
    once = masked(text)
    assert masked(once) == once
