"""Every format, and every way in which one is broken: one clear line, and the rest goes on."""

import gzip
import json
from pathlib import Path

import pytest

from minillm.data.documents import UNREADABLE, Document, Rejected
from minillm.data.reading import plan, read
from minillm.data.recipe import ReadingConfig
from minillm.errors import InputError


def everything(path: Path, **settings) -> list[Document | Rejected]:
    config = ReadingConfig(**settings)
    return [found for piece in plan({"": [path]}, config).pieces for found in read(piece, config)]


def parted(found: list[Document | Rejected]) -> tuple[list[str], list[str]]:
    """The texts, and what is said of the rest: each one line."""
    refused = [record for record in found if isinstance(record, Rejected)]
    for record in refused:
        assert record.rule == UNREADABLE
        assert "\n" not in record.value
    texts = [record.text for record in found if isinstance(record, Document)]
    return texts, [record.value for record in refused]


def lines_of(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


# ------------------------------------------------------------------------------ JSON Lines


def test_a_json_object_is_a_text_and_what_stands_beside_it(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 3, "text": "Hi.", "metadata": {"url": "u", "tags": [1]}, "x": null}\n')
    (document,) = everything(path)
    assert document == Document("Hi.", "a.jsonl@0", {"id": "3", "metadata.url": "u"})


def test_fields_with_the_names_of_our_notes_are_not_taken_for_them(tmp_path):
    fields = {"quality": "good", "weight": 2000, "language": "?", "markup": "html", "split": "x",
              "collection": "mine"}  # fmt: skip
    expected = {f"source.{name}": str(value) for name, value in fields.items()}
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Hi."} | fields))
    row = {"text": "Hi."} | fields
    table = pytest.importorskip("pyarrow").Table.from_pylist([row])
    pq.write_table(table, tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        (document,) = everything(tmp_path / name)
        assert document.metadata == expected


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"text": "cut sho', "is not JSON: Unterminated string"),
        (b'{"body": "x"}', "no object with a text under 'text' or 'content', but an object with b"),
        (b'{"text": null}', "no object with a text"),
        (b"[1]", "but none"),
        (b"[" * 100_000, "not JSON"),
        (b'{"text": "\xff"}', "not JSON"),
        (b"\0\0\0\0", "not JSON"),
        (b'{"text": "' + b"x" * 3000 + b'"}', "a line of 3,012 bytes; at most 2,000 are read"),
    ],
)
def test_a_bad_line_costs_one_line(tmp_path, line, complaint):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of("one") + line + b"\n\n" + lines_of("two"))
    most = 2000 if b"xxx" in line else 1_000_000
    found = everything(path, max_bytes=most)
    texts, (why,) = parted(found)
    assert texts == ["one", "two"]
    assert complaint in why
    assert found[1].document.source == "a.jsonl@16"
    assert found[1].document.text.encode("utf-8", "replace")[:10] in line + b"\xef\xbf\xbd"


def test_half_a_surrogate_pair_is_no_trouble_later(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b \\ud83d\\ude00"}')
    (document,) = everything(tmp_path / "a.jsonl")
    assert document.text == "a\ufffdb 😀"


def test_a_line_in_a_broken_gzip_member(tmp_path):
    members = [gzip.compress(lines_of(*(f"{i} " * 3000 for i in ids))) for ids in ((1, 2), (3, 4))]
    half = members[0][: len(members[0]) // 2]
    (tmp_path / "a.jsonl.gz").write_bytes(half + members[1])
    texts, whys = parted(everything(tmp_path / "a.jsonl.gz"))
    assert [text[0] for text in texts][-2:] == ["3", "4"]
    assert len(whys) == 1
    assert "the gzip member at byte 0 is" in whys[0]


# ------------------------------------------------------------------------------------ text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff\x00\xfe", "not UTF-8 text (byte 0 is 0xff)"),
        (b"\xff\xfe\x00", "not UTF-16 text"),
        (b"\0" * 1000, "holds NUL bytes (1,000 of 1,000): it is a binary file, not text"),
        (b"x" * 5001, "more than 5,000 bytes"),
    ],
)
def test_a_file_that_is_no_text_costs_that_file(tmp_path, content, complaint):
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.txt").write_bytes(content)
    (tmp_path / "c.md").write_text("# last")
    texts, (why,) = parted(everything(tmp_path, max_bytes=5000))
    assert texts == ["first", "# last"]
    assert complaint in why


def test_utf16_says_so_itself_and_a_nul_among_text_is_no_reason(tmp_path):
    (tmp_path / "a.txt").write_bytes("grüße".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + b"text " * 100 + b"\0")
    texts, whys = parted(everything(tmp_path))
    assert (texts[0], texts[1][:4], whys) == ("grüße", "text", [])


def test_marks_part_a_file_into_documents(tmp_path):
    (tmp_path / "stories.txt").write_text("One.\nMore.\n<|endoftext|>\nTwo.\n<|endoftext|>\n")
    (tmp_path / "wiki.txt").write_text(" = A = \n\nIt is.\n = = Part = = \nSo.\n = B = \nIt is not.")
    settings = {"separator": r"<\|endoftext\|>", "heading": r" = [^=].* = "}
    found = everything(tmp_path, **settings)
    assert [d.text for d in found] == [
        "One.\nMore.", "Two.", " = A = \n\nIt is.\n = = Part = = \nSo.", " = B = \nIt is not.",
    ]  # fmt: skip
    assert [d.source for d in found][:2] == ["stories.txt@0", "stories.txt@11"]


def test_pages_keep_their_markup_and_find_their_charset(tmp_path):
    said = "<html><head><meta charset='iso-8859-2'></head><p>łódź</p>"
    (tmp_path / "a.html").write_bytes(said.encode("iso-8859-2"))
    (tmp_path / "b.html").write_bytes("<p>schön</p>".encode("cp1252"))
    (tmp_path / "c.htm").write_bytes("<p>schön</p>".encode())
    (tmp_path / "d.xhtml").write_bytes("<p>schön</p>".encode("utf-16"))
    texts, whys = parted(found := everything(tmp_path))
    assert not whys
    assert "łódź" in texts[0]
    assert texts[1:] == ["<p>schön</p>"] * 3
    assert all(document.metadata == {"markup": "html"} for document in found)


# --------------------------------------------------------------------------------- Parquet


def write_table(path: Path, columns: dict, **settings) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, **settings)


def test_a_table_is_read_with_what_stands_beside_its_texts(tmp_path):
    texts = [f"text {i}" for i in range(7)]
    write_table(tmp_path / "a.parquet", {"text": texts, "url": ["u"] * 7}, row_group_size=3)
    found = everything(tmp_path / "a.parquet")
    assert [d.text for d in found] == texts
    assert found[4] == Document("text 4", "a.parquet@4", {"url": "u"})
    assert everything(tmp_path / "a.parquet", piece_bytes=1) == found


def test_rows_that_are_lines_are_parted_as_in_a_text_file(tmp_path):
    lines = [" = A = \n", "", " It is . \n", " = = Part = = \n", " So . \n", " = B = \n", " No . \n"]
    write_table(tmp_path / "a.parquet", {"text": lines}, row_group_size=2)
    marks = {"rows": "lines", "heading": " = [^=].* = "}
    found = everything(tmp_path / "a.parquet", **marks)
    assert [d.text for d in found] == [
        " = A = \n\n It is . \n = = Part = = \n So . ", " = B = \n No . ",
    ]  # fmt: skip
    assert [d.source for d in found] == ["a.parquet@0", "a.parquet@5"]
    assert everything(tmp_path / "a.parquet", piece_bytes=1, **marks) == found
    with pytest.raises(InputError, match="lines need reading.separator or reading.heading"):
        everything(tmp_path / "a.parquet", rows="lines")


def test_a_table_that_cannot_be_read_costs_that_table(tmp_path):
    write_table(tmp_path / "a.parquet", {"body": ["x"], "n": [1]})
    write_table(tmp_path / "b.parquet", {"text": ["good", None]})
    (tmp_path / "c.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-9])
    (tmp_path / "d.txt").write_text("last")
    texts, whys = parted(everything(tmp_path))
    assert texts == ["good", "last"]
    assert whys[0] == "no column 'text' or 'content', but body, n"
    assert "holds NoneType, no text" in whys[1]
    assert whys[2].startswith("no Parquet file")


def test_a_table_whose_few_bytes_are_many_long_texts(tmp_path, monkeypatch):
    monkeypatch.setattr("minillm.data.reading.parquet.FREE", 1 << 20)
    write_table(tmp_path / "a.parquet", {"text": ["x" * 10_000] * 20_000})  # 200 MB
    texts, (why,) = parted(everything(tmp_path / "a.parquet"))
    assert len(texts) < 1000
    assert "archive bomb" in why


# ------------------------------------------------------------------------------------ WARC


def record(kind: str, content: bytes, content_type: str = "text/plain", http: bytes = b"") -> bytes:
    body = http + content
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://x.org/\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def page(content: bytes, content_type: str, more: bytes = b"") -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type.encode() + b"\r\n" + more + b"\r\n"
    return record("response", content, "application/http; msgtype=response", http)


RECORDS = [
    record("warcinfo", b"software: x"),
    page("<p>schön</p>".encode("latin-1"), "text/html; charset=ISO-8859-1"),
    record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
    page(gzip.compress(b"<p>packed</p>"), "text/html", b"Content-Encoding: gzip\r\n"),
    page(b"\x89PNG", "image/png"),
    record("conversion", b"a text"),
]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_archive_is_pages_and_texts(tmp_path, suffix):
    pytest.importorskip("warcio")
    data = b"".join(gzip.compress(r) if suffix else r for r in RECORDS)
    (tmp_path / f"a.warc{suffix}").write_bytes(data)
    html, packed, picture, text = everything(tmp_path)
    assert (html.text, packed.text, text.text) == ("<p>schön</p>", "<p>packed</p>", "a text")
    assert html.metadata == {"url": "http://x.org/", "markup": "html"}
    assert (picture.rule, picture.value) == ("no_text", "image/png")


def test_a_broken_record_costs_that_record(tmp_path):
    pytest.importorskip("warcio")
    packed = [gzip.compress(r) for r in RECORDS]
    packed[1] = packed[1][:60]
    packed[3] = gzip.compress(b"this is no record at all\r\n")
    (tmp_path / "a.warc.gz").write_bytes(b"".join(packed))
    (tmp_path / "b.warc").write_bytes(RECORDS[5] + RECORDS[5][:-8])
    found = [r for r in everything(tmp_path) if getattr(r, "rule", UNREADABLE) == UNREADABLE]
    texts, whys = parted(found)
    assert texts == ["a text", "a text"]
    assert "the gzip member at byte" in whys[0]
    assert "no record" in whys[1]
    assert "cut off" in whys[2]
    assert len({r.document.source if isinstance(r, Rejected) else r.source for r in found}) == 5


# --------------------------------------------------------------------------------- folders


def test_a_folder_is_read_in_order_and_says_what_it_left_out(tmp_path):
    for name in ("b.md", "a.txt", "picture.png", ".hidden.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "c.jsonl").write_bytes(lines_of("c.jsonl"))
    made = plan({"notes": [tmp_path]}, ReadingConfig())
    assert made.left_out == {".png": 1}
    (piece,) = made.pieces
    found = list(read(piece, ReadingConfig()))
    assert [document.text for document in found] == ["a.txt", "b.md", "c.jsonl"]
    assert found[2].source == "inside/c.jsonl@0"
    assert found[2].metadata == {"collection": "notes"}


def test_a_file_that_vanished_costs_that_file(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (piece,) = plan({"": [tmp_path]}, ReadingConfig()).pieces
    (tmp_path / "a.txt").unlink()
    texts, (why,) = parted(list(read(piece, ReadingConfig())))
    assert (texts, why) == (["b.txt"], "it cannot be read: No such file or directory")
    with pytest.raises(InputError, match="does not exist"):
        plan({"": [tmp_path / "nowhere"]}, ReadingConfig())


@pytest.mark.parametrize("size", [1, 7, 40, 100, 1000])
def test_the_documents_do_not_depend_on_the_pieces(tmp_path, size):
    (tmp_path / "a.jsonl").write_bytes(lines_of(*(f"line {i}" * (i % 4) for i in range(20))))
    (tmp_path / "b.txt").write_text("".join(f"part {i}\n" * (i % 3) + "---\n" for i in range(20)))
    (tmp_path / "c.txt").write_text("---\nthe end")
    found = everything(tmp_path, separator="---", piece_bytes=size)
    assert found == everything(tmp_path, separator="---")
    assert len(found) == 20 + 14 - 1 + 1


def test_a_missing_package_is_one_clear_line(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.txt.zst").write_bytes(b"")
    with pytest.raises(InputError, match=r"the package zstandard, which comes with pip install 'minillm"):
        everything(tmp_path / "a.txt.zst")


def test_the_letters_of_a_suffix_may_be_large(tmp_path):
    lines = "".join(json.dumps({"text": f"line {number}"}) + "\n" for number in range(50))
    (tmp_path / "A.JSONL.GZ").write_bytes(gzip.compress(lines.encode()))
    found = everything(tmp_path, piece_bytes=40)
    assert found == everything(tmp_path)
    assert len(found) == 50
