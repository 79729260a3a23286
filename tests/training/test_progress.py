"""What is said during a run: plain lines without a terminal, a bar on one."""

import io

from minillm import jit
from minillm.training.progress import BarReporter, Reporter, duration, reporter

LINE = {
    "step": 1, "loss": 2.0, "perplexity": 7.389, "bits_per_byte": 2.885, "lr": 1e-3,
    "grad_norm": 0.5, "tokens_per_second": 12345.6, "mfu": 0.375,
}  # fmt: skip
SHOWN = ("loss 2.0000", "bits/byte 2.885", "lr 1.0e-03", "norm 0.50", "12,346 tokens/s", "mfu 38%")


def test_plain_lines_are_few(capsys):
    with reporter() as report:  # pytest's output is no terminal
        assert type(report) is Reporter
        report.begin(0, 1000)
        for step in range(1, 1001):
            report.step(LINE | {"step": step})
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2  # the first and the last; the rest took less than a few seconds
    assert all(words in out[0] for words in SHOWN)
    assert out[0].startswith("step 1/1000")
    assert out[1].startswith("step 1000/1000")
    assert "left 0:00" in out[1]


def test_compiling_is_told_once(capsys):
    with Reporter():
        jit.on_compile("softmax.forward", True)
        jit.on_compile("matmul.forward", True)
    out = capsys.readouterr().out
    assert out.count("compiling kernels") == out.count("only the first run") == 1
    assert jit.on_compile is None


def test_compiling_what_cannot_be_kept_is_told_as_that(capsys):
    with Reporter():
        jit.on_compile("softmax.forward", False)
    out = capsys.readouterr().out
    assert "cannot be kept" in out and "NUMBA_CACHE_DIR" in out


def test_the_bar_shows_the_figures_and_keeps_the_lines():
    with BarReporter() as report:
        report.console.file = io.StringIO()
        report.console._force_terminal = True
        report.console.width = 100
        report.begin(0, 10)
        report.step(LINE)
        report.status("evaluating")
        report.say("[a line in brackets]")
        report.compiling("softmax.forward")
    out = report.console.file.getvalue()
    for words in (*SHOWN, "1/10", "left", "[a line in brackets]", "compiling softmax.forward"):
        assert words in out


def test_durations():
    assert [duration(s) for s in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "1:00:00"]
