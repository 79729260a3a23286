"""Text that is shown is whole characters, and never part of a stop string."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.errors import InputError
from minillm.inference.stopping import TextOut
from minillm.tokenizer import BPETokenizer

BYTES = BPETokenizer.of_bytes()


def shown(text: bytes, stop=()):
    """The pieces that come out for the bytes of `text`, and whether a stop string ended it."""
    out, pieces = TextOut(BYTES, stop), []
    for byte in text:
        piece, stopped = out.push(byte)
        pieces.append(piece)
        if stopped:
            return [*pieces, out.finish()], True
    return [*pieces, out.finish()], False


@settings(deadline=None, max_examples=100)
@given(
    st.text("abé🙂", max_size=12), st.lists(st.text("abé🙂", min_size=1, max_size=4), max_size=3)
)
def test_the_pieces_are_the_text_up_to_the_first_stop_string(text, stop):
    pieces, stopped = shown(text.encode(), stop)
    ends = [next((n for n in range(len(text) + 1) if s in text[:n]), None) for s in stop]
    ends = [end for end in ends if end is not None]
    assert stopped == bool(ends)
    if ends:  # the first string to be complete decides
        head = text[: min(ends)]
        text = head[: min(head.find(s) for s in stop if s in head)]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_what_may_begin_a_stop_string_waits():
    assert shown(b"xxstop", ["stop"])[0] == ["x", "x", "", "", "", "", ""]
    assert shown(b"stox", ["stop"])[0] == ["", "", "", "stox", ""]
    assert shown(b"sto", ["stop"])[0] == ["", "", "", "sto"]


def test_bytes_that_are_no_characters_are_replaced():
    assert "".join(shown(b"a\xff\xe2\x82")[0]) == "a\ufffd\ufffd"


def test_without_a_tokenizer_there_is_no_text():
    assert TextOut(None).push(7) == ("", False) and TextOut(None).finish() == ""


@pytest.mark.parametrize("stop", ["text", [""], ["a", ""]])
def test_bad_stop_strings_raise(stop):
    with pytest.raises(InputError, match="it takes a list of strings that are not empty"):
        TextOut(BYTES, stop)
