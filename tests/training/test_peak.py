"""The peak is the best of all trials, in the run's precision, and nothing is above it."""

import time

import numpy as np
import pytest

from minillm import backend, jit
from minillm.kernels import matmul
from minillm.training import peak as peaks
from minillm.training.peak import Peak, peak

from . import small


@pytest.fixture
def trials(monkeypatch):
    """The clock stands still but for the products, whose seconds are taken from this list."""
    seconds, now = [], [0.0]

    def product(a, b):
        now[0] += seconds.pop(0)
        return np.ones((1, 1))

    monkeypatch.setattr(peaks, "SHAPE", (10, 10, 10))  # 2000 operations
    monkeypatch.setattr(peaks, "_products", lambda precision: [product])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return seconds


def test_the_best_trial_counts(trials):
    trials += [50.0, 3.0, 2.0, 1.0, 4.0]  # the first, which may compile, does not count
    assert Peak(seconds=5.0).flops == 2000.0
    assert trials == [4.0]  # it took long enough, and there were three


def test_a_machine_that_was_busy_at_first_is_found_out_later(trials):
    trials += [20.0] * 4
    found = Peak(seconds=1.0)
    assert found.flops == 100.0
    assert found.share(50.0) == 0.5
    trials += [10.0] * 4
    assert found.share(160.0) == 160 / 200  # measured again: it is 200
    trials += [10.0] * 4
    assert found.share(400.0) == 1.0  # nothing is faster than itself
    assert found.share(100.0) == 0.25
    assert not trials


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_is_measured_in_the_precision_of_the_run(monkeypatch, precision):
    if not backend.fast():
        pytest.skip("the backend in use has one product for all")
    seen, product = set(), matmul.product
    monkeypatch.setattr(peaks, "SHAPE", (64, 64, 64))

    def watched(a, b, bfloat16=False):
        seen.add(bfloat16)
        return product(a, b, bfloat16=bfloat16)

    monkeypatch.setattr(matmul, "product", watched)
    monkeypatch.setattr(jit, "disabled", lambda: False)
    assert 1e5 < Peak(precision, seconds=0.0).flops < 1e17
    assert seen == {False, precision == "bfloat16"}


def test_it_is_measured_once(monkeypatch):
    monkeypatch.setattr(peaks, "_known", {})
    monkeypatch.setattr(peaks, "SHAPE", (8, 8, 8))
    other = "numba" if backend.name() == "numpy" else "numpy"
    first = peak()
    assert peak() is first
    assert peak("bfloat16") is not first
    with backend.use(other):
        assert peak() is not first


def test_a_run_reports_no_more_than_the_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(peaks, "_known", {("numpy", backend.threads(), "float32"): _Slow()})
    with backend.use("numpy"):
        small.run(tmp_path / "run", small.shards(tmp_path / "data"), 5)
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text.count('"mfu": 1.0') >= 1
    assert all(0 < float(part.split("}")[0].split(",")[0]) <= 1 for part in text.split('"mfu": ')[1:])


class _Slow(Peak):
    """A peak that every step passes."""

    def measure(self) -> None:
        self.flops = max(self.flops, 1.0)
