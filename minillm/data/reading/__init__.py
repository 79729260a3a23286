"""Reading: from files of many formats to one kind of record.

`plan` finds the files and cuts them into pieces of about one size, each of which one worker reads
with `read`. Nothing is held but the document at hand. What cannot be read becomes a `Rejected` with
one line that says why, and the rest goes on.

    text.py      plain text and Markdown (a file, or what lies between marks, is a document), HTML
    jsonl.py     JSON Lines
    parquet.py   Parquet (needs pyarrow)
    warc.py      web archives, WARC and WET (needs warcio)
    streams.py   what they share: gzip and zstd, broken members, lines that are too long
"""

from minillm.data.reading.pieces import Piece, Plan, grouped, plan, read, read_documents

__all__ = ["Piece", "Plan", "grouped", "plan", "read", "read_documents"]
