"""The table of what came in and what each step removed, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from minillm.data.tally import Step, Tally

KEPT = "kept for "  # the steps of a tally that count what is left, by split
TOKENS = "tokens for "


def table(tally: Tally, rules: bool = True) -> Iterator[str]:
    """A line for each step that removed or changed something, and below it its rules."""
    yield f"{'step':<30}{'documents':>12}{'removed':>12}{'characters':>16}{'removed':>9}"
    for name, step in tally.steps.items():
        if name.startswith((KEPT, TOKENS)):
            continue
        gone = step.rejected.total()
        cut = step.removed.total()
        if name != "read" and not gone and not step.notes:
            continue
        yield _row(name, step.documents, gone, step.characters, cut)
        if rules:
            for rule, count in step.rejected.most_common():
                yield _row(f"  {rule}", None, count, None, step.removed[rule], step.characters)
        for note, count in sorted(step.notes.items()):
            yield f"  {note}: {count:,}"
    for name, step in tally.steps.items():
        if name.startswith(KEPT):
            yield _row(name, step.documents, None, step.characters, None)
        elif name.startswith(TOKENS):
            yield f"{name:<30}{step.documents:>12,}{'':12}{step.notes['tokens']:>16,} tokens"


def _row(
    name: str,
    documents: int | None,
    gone: int | None,
    characters: int | None,
    cut: int | None,
    of: int | None = None,
) -> str:
    share = "" if cut is None else f"{cut / max(1, of or characters or 1):.2%}"
    shown = ["" if n is None else f"{n:,}" for n in (documents, gone, characters)]
    return f"{name:<30}{shown[0]:>12}{shown[1]:>12}{shown[2]:>16}{share:>9}".rstrip()


def kept(tally: Tally) -> Step:
    """What is left, of all splits together."""
    whole = Step()
    for name, step in tally.steps.items():
        if name.startswith(KEPT):
            whole.documents += step.documents
            whole.characters += step.characters
    return whole
