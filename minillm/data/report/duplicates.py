"""Duplicates in the report: clusters, how large they are, and what the copies differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minillm.data.corpus import Shards, forget_files, shard_files
from minillm.data.dedup import similarities
from minillm.data.report import page
from minillm.errors import counted

CLUSTERS = 5  # shown word by word



def section(corpus: Path, recipe: Mapping[str, Any]) -> str:
    """How many clusters there are and how large, and the largest ones word by word.

    Args:
        corpus: its folder.
        recipe: as the manifest has it.
    """
    settings = recipe["duplicates"]
    if not settings["exact"] and settings["near"] is None:
        return page.paragraph("The recipe does not look for documents that are the same.")
    first = np.load(corpus / "judged" / "first.npy", mmap_mode="r")
    exact = np.load(corpus / "judged" / "exact.npy", mmap_mode="r")
    copies = np.flatnonzero(first != np.arange(len(first)))
    if not len(copies):
        return page.paragraph("No two documents are the same.")
    roots, counts = np.unique(first[copies], return_counts=True)
    near = Counter(first[copies[exact[copies] == copies]].tolist())
    out = page.paragraph(
        f"{counted(len(roots), 'cluster')} of documents that are the same, or nearly. One of each"
        f" is kept; {len(copies):,} copies go, of which {sum(near.values()):,} differ in letters."
    )
    sizes = Counter(str(size) for size in (counts + 1).tolist())
    rows = [(int(size), sizes[size]) for size in sorted(sizes, key=int)]
    out += page.details("How large they are", page.table(("documents", "clusters"), rows))
    shards = Shards(corpus / "clean", len(shard_files(corpus / "clean")))
    for at in np.lexsort((roots, -counts))[:CLUSTERS].tolist():
        members = copies[first[copies] == roots[at]]
        out += _cluster(shards, int(roots[at]), members, exact, settings)
    forget_files()
    return out


def _cluster(
    shards: Shards, root: int, members: np.ndarray, exact: np.ndarray, settings: Mapping[str, Any]
) -> str:
    """The document that is kept beside the first copy that differs from it, if any does."""
    kept = shards.document(root)
    differing = members[exact[members] == members]
    copy = shards.document(int(differing[0] if len(differing) else members[0]))
    others = f" and {len(members) - 1:,} more" if len(members) > 1 else ""
    out = f"<h3>{page.escape(kept.source)} is kept, {page.escape(copy.source + others)} not</h3>\n"
    if not len(differing):
        return out + page.example("All are the same, letter by letter:", page.shortened(kept.text))
    alike = similarities([kept.text, copy.text], np.array([[0, 1]]), settings["ngram"])[0]
    said = f"The two share {alike:.1%} of their runs of {settings['ngram']} words."
    if settings["near"] is not None and alike < settings["near"]:
        said += " That is less than was asked for: others of the cluster stand between them."
    return out + page.paragraph(said) + page.side_by_side(kept.text, copy.text)
