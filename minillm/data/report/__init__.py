"""The report on a corpus: what came in, what each step removed, and examples of it, as a page.

Counts are those of the manifest. Examples come from the files beside it: rejected documents are
read once, one after the other, and of those that a rule rejected the ones with the smallest hashes
are shown. That is a fair sample which depends neither on how the input was cut nor on who did the
work, so the same corpus gives the same page to the last byte. In memory are the examples, and eight
bytes for each document while clusters of duplicates are counted.

    sections.py     one function for each section
    duplicates.py   the one about documents that are the same
    page.py         HTML: tables, bars, words compared; text that cannot become markup
"""

from minillm.data.report.sections import REPORT, render, write_report

__all__ = ["REPORT", "render", "write_report"]
