"""How long work on data takes: lines that say so, and a bar that says the same."""

import io

import pytest

from minillm.data import progress
from minillm.data.progress import BarProgress, Progress


@pytest.fixture
def clock(monkeypatch):
    """A list whose last number is the time."""
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def test_a_line_every_few_seconds_and_one_at_the_end(clock, capsys):
    report = Progress()
    report.begin("clean", 3, 6_000_000)
    clock.append(102.0)
    report.shard(1_000_000, 10)
    assert capsys.readouterr().out == ""
    clock.append(106.0)
    report.shard(2_000_000, 20)
    line = "clean: 3.0 of 6.0 MB  0.5 MB/s  30 documents  5/s  left 6.0 s\n"
    assert capsys.readouterr().out == line
    clock.append(190.0)
    report.shard(3_000_000, 0)
    report.end()
    line = "clean: 6.0 of 6.0 MB  0.1 MB/s  30 documents  0/s  in 1:30\n"
    assert capsys.readouterr().out == line


def test_bytes_within_a_shard_come_and_may_be_in_vain(clock, capsys):
    report = Progress()
    report.begin("a.txt", 1, 4_000_000)
    clock.append(108.0)
    report.advance(3_000_000)
    report.advance(-1_000_000)
    assert report.figures() == "2.0 of 4.0 MB  0.2 MB/s  left 8.0 s"
    assert capsys.readouterr().out == "a.txt: 3.0 of 4.0 MB  0.4 MB/s  left 2.7 s\n"


def test_without_a_known_size_no_time_is_foretold(clock):
    report = Progress()
    report.begin("a.txt", 1, 0)
    clock.append(102.0)
    report.advance(3_000_000)
    assert report.figures() == "3.0 MB  1.5 MB/s  in 2.0 s"


@pytest.mark.parametrize("size", [4_000_000, 0])
def test_the_bar_shows_the_same_figures_and_goes_away(size):
    from rich.console import Console

    report = BarProgress()
    report.console = report._bar.live.console = Console(
        file=io.StringIO(), force_terminal=True, width=100, highlight=False
    )
    with report:
        report.begin("a.txt", 1, size)
        report.advance(3_000_000)
        (task,) = report._bar.tasks
        assert (task.total, task.completed) == (size or None, 3_000_000)
        assert task.fields["figures"].startswith("3.0 of 4.0 MB" if size else "3.0 MB")
        report.shard(1_000_000, 0)
        report.end()
        assert not report._bar.tasks
    assert "a.txt: 4.0" in report.console.file.getvalue().splitlines()[-1]
