"""`minillm laws`: one line for each law, and a status that says whether all hold."""

import dataclasses

import pytest

from minillm.cli import laws as command
from minillm.cli.laws import line
from minillm.evaluation.laws import LAWS, Finding
from minillm.evaluation.subjects import Subject, small_subjects

from .answering import fails, run

SUBJECT = small_subjects()[0]


def findings(*differences):
    """A finding of each difference, the first laws' in turn."""
    exact = [dataclasses.replace(law, allowed=0.0) for law in LAWS]
    return [
        Finding(law, SUBJECT, found, "" if found is not None else "no PyTorch here")
        for law, found in zip(exact, differences, strict=False)
    ]


@pytest.mark.parametrize(
    ("differences", "status", "last"),
    [
        ((0.0, 0.0), 0, "2 of 2 hold"),
        ((0.0, 1e-3, None), 1, "1 of 2 hold, 1 do not apply"),
        ((float("nan"),), 1, "0 of 1 hold"),
        ((None,), 0, "0 of 0 hold, 1 do not apply"),
    ],
)
def test_a_broken_law_is_the_status(capsys, monkeypatch, differences, status, last):
    monkeypatch.setattr(command, "check_all", lambda subjects: iter(findings(*differences)))
    found, out, err = run(capsys, "laws")
    assert (found, out.splitlines()[-1], err) == (status, last, "")
    assert len(out.splitlines()) == len(differences) + 1


def test_a_line_says_what_was_found_and_what_is_allowed():
    holds, broken, skipped = map(line, findings(0.0, 0.5, None))
    assert holds.startswith("holds ") and holds.endswith("allowed none")
    assert broken.startswith("BROKEN") and "5.0e-01" in broken
    assert skipped.startswith("--") and skipped.endswith("no PyTorch here")
    assert "allowed up to 2e-05" in line(Finding(LAWS[0], SUBJECT, 0.0))


def test_a_run_is_the_subject_where_one_is_given(finished, capsys, monkeypatch):
    seen: list[Subject] = []
    monkeypatch.setattr(command, "check_all", lambda subjects: seen.extend(subjects) or [])
    assert run(capsys, "laws", finished / "run")[0] == 0
    assert [(s.name, s.model.config.block_size) for s in seen] == [("run", 32)]
    assert seen[0].tokenizer.vocab_size == 270
    fails(capsys, "is no run folder", "laws", finished / "notes")
