"""Deduplication: documents that are the same, nearly the same, or share long passages."""

from minillm.data.dedup.bands import choose_bands, s_curve, show_s_curve
from minillm.data.dedup.exact import exact_duplicates
from minillm.data.dedup.jaccard import similarities
from minillm.data.dedup.minhash import agreement, sketch
from minillm.data.dedup.near import near_duplicates
from minillm.data.dedup.passages import cut_passages, repeated_passages, repeated_runs
from minillm.data.dedup.prints import earlier_sharers, texts_before, write_fingerprints
from minillm.data.dedup.signature_files import near_duplicates_of_files, write_signatures
from minillm.data.dedup.suffixes import common_prefixes, suffix_array

__all__ = [
    "agreement",
    "choose_bands",
    "common_prefixes",
    "cut_passages",
    "earlier_sharers",
    "exact_duplicates",
    "near_duplicates",
    "near_duplicates_of_files",
    "repeated_passages",
    "repeated_runs",
    "s_curve",
    "show_s_curve",
    "similarities",
    "sketch",
    "suffix_array",
    "texts_before",
    "write_fingerprints",
    "write_signatures",
]
