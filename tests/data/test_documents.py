from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.documents import (
    Document,
    Rejected,
    from_line,
    read_kept,
    split_documents,
    to_line,
    write_documents,
)
from minillm.data.reading import read_documents
from minillm.errors import InputError


def test_a_folder_is_read_in_order_and_a_named_file_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name in ("b.md", "a.txt", "picture.png"):
        (tmp_path / "notes" / name).write_text(name)
    (tmp_path / "log").write_text("named")
    found = read_documents([tmp_path / "notes", tmp_path / "log"])
    assert [document.text for document in found] == ["a.txt", "b.md", "named"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "no text in"), (b"\xff\x00", "not UTF-8"), (b"a\x00b", "NUL bytes")],
)
def test_what_is_not_text_is_one_clear_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as error:
        read_documents([path])
    assert "odd.txt" in str(error.value)
    with pytest.raises(InputError, match="does not exist"):
        read_documents([tmp_path / "nowhere"])


@pytest.mark.parametrize("name", ["corpus.json", "table.CSV"])
def test_a_form_without_a_reader_says_which_have_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"text": "hello"}')
    with pytest.raises(InputError, match=r"no reader for \.(json|CSV) files; .* \.txt, .*\.jsonl"):
        read_documents([tmp_path / name])


@given(st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False))
def test_records_come_back_from_their_lines(text: str, value: float) -> None:
    document = Document(text, "a.txt", {"url": text})
    assert from_line(to_line(document)) == document
    assert to_line(document).count("\n") == 1
    rejected = Rejected(document, "min_words", value)
    assert from_line(to_line(rejected).encode()) == rejected


def test_among_kept_documents_a_rejected_one_is_an_error(tmp_path: Path) -> None:
    document, path = Document("Hi.", "a.txt"), tmp_path / "00000.jsonl"
    path.write_text(to_line(document))
    assert list(read_kept(path)) == [document]
    path.write_text(to_line(document) + to_line(Rejected(document, "min_words", 1)))
    with pytest.raises(InputError, match=r"a\.txt, rejected by min_words"):
        list(read_kept(path))


texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), max_size=40)


@settings(max_examples=30, deadline=None)
@given(texts, st.floats(0.05, 0.5))
def test_a_split_loses_nothing_and_depends_on_nothing_but_the_texts(
    texts: list[str], share: float
) -> None:
    documents = [Document(text, f"{i}") for i, text in enumerate(texts)]
    training, held = split_documents(documents, share)
    inked = sorted("".join("".join(d.text.split()) for d in (*training, *held)))
    assert inked == sorted("".join("".join(text.split()) for text in texts))
    moved = [Document(d.text, f"elsewhere/{d.source}") for d in documents]
    again, _ = split_documents(moved, share)
    assert [d.text for d in again] == [d.text for d in training]


def test_the_held_out_share_is_close_to_what_was_asked_for() -> None:
    documents = [Document("x" * (50 + i) + str(i), str(i)) for i in range(200)]
    training, held = split_documents(documents, 0.1)
    size = sum(len(d.text) for d in held)
    assert abs(size / sum(len(d.text) for d in documents) - 0.1) < 0.01
    assert not {d.text for d in training} & {d.text for d in held}


def test_of_few_documents_the_ends_are_held_out() -> None:
    document = Document("".join(f"line {i}\n" for i in range(100)), "one")
    training, held = split_documents([document], 0.1)
    assert training[0].text + held[0].text == document.text
    assert held[0].text.startswith("line 9")


def test_written_documents_are_read_again_in_order(tmp_path: Path) -> None:
    documents = [
        Document(f"text {i}", source) for i, source in enumerate(["os.path", "a/b c", "a"])
    ]
    folder = write_documents(tmp_path / "text", documents)
    assert [d.text for d in read_documents([folder])] == ["text 0", "text 1", "text 2"]
    write_documents(folder, documents[:1])
    assert len(read_documents([folder])) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
