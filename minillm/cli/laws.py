"""`minillm laws`: check what must always hold, and print the largest difference found."""

from __future__ import annotations

import argparse
from pathlib import Path

from minillm.evaluation.laws import LAWS, Finding, check_all
from minillm.evaluation.subjects import Subject, small_subjects
from minillm.training.checkpoint import load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm laws`."""
    parser.add_argument(
        "run_folder",
        nargs="?",
        type=Path,
        help="a run whose model and tokenizer to check; left out: a small GPT and a small Llama",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check every law; 1 where one is broken."""
    findings = []
    for finding in check_all(_subjects(arguments.run_folder)):
        findings.append(finding)
        print(line(finding), flush=True)
    broken = [finding for finding in findings if finding.broken]
    skipped = sum(finding.difference is None for finding in findings)
    checked = len(findings) - skipped
    print(
        f"{checked - len(broken)} of {checked} hold" + f", {skipped} do not apply" * (skipped > 0)
    )
    return 1 if broken else 0


def _subjects(folder: Path | None) -> list[Subject]:
    if folder is None:
        return small_subjects()
    model, tokenizer, info = load_run(folder)
    return [Subject(info.run.path.name, model, tokenizer)]


def line(finding: Finding) -> str:
    """One finding on one line."""
    width = max(len(law.name) for law in LAWS)
    start = f"{finding.law.name:<{width}}  {finding.subject.name:<6}"
    if finding.difference is None:
        return f"--      {start}  {finding.reason}"
    verdict = "BROKEN" if finding.broken else "holds "
    allowed = f"up to {finding.law.allowed:.0e}" if finding.law.allowed else "none"
    return f"{verdict}  {start}  largest difference {finding.difference:7.1e}  allowed {allowed}"
