"""The profile counts every kernel call once, its work rightly, and changes nothing."""

import json
import time
import tracemalloc

import numpy as np
import pytest

from minillm.kernels import (
    adamw,
    attention,
    cross_entropy,
    embedding,
    feed_forward,
    linear,
    linear_cross_entropy,
    matmul,
    relu,
    softmax,
)
from minillm.kernels.attention import visible_keys
from minillm.lens import profile as profiles
from minillm.lens.profile import Ceilings, ceilings, kernel_modules, profile
from minillm.lens.training import profile_steps
from minillm.models.registry import build, preset
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.step import update

CONFIG = TrainConfig(steps=20, warmup=2, lr=1e-2)


class Noise:
    """Batches of random tokens."""

    def batch(self, step):
        return tuple(
            np.random.default_rng([step, side]).integers(0, 256, (2, 8)) for side in (0, 1)
        )


def f32(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def row(seen, name):
    return next(row for row in seen.rows() if row["name"] == name)


def test_calls_are_counted_and_times_add_up():
    x = f32(4, 8)
    with profile() as seen:
        for _ in range(3):
            softmax.forward(x)
        linear.forward(x, f32(5, 8))
    assert row(seen, "softmax.forward")["calls"] == 3
    assert row(seen, "softmax.forward")["traffic"] == 3 * 2 * x.nbytes  # x in, y out
    assert sum(row["seconds"] for row in seen.rows()) == pytest.approx(seen.seconds)
    assert sum(row["share"] for row in seen.rows()) == pytest.approx(1)


def test_a_kernel_inside_a_kernel_counts_for_the_outer_one(monkeypatch):
    plain = softmax.forward
    monkeypatch.setattr(linear, "forward", lambda x, weight: softmax.forward(x))
    with profile() as seen:
        linear.forward(f32(4, 8), f32(5, 8))
    assert {event.name: event.depth for event in seen.events} == {
        "softmax.forward": 1, "linear.forward": 0,
    }  # fmt: skip
    assert [row["name"] for row in seen.rows() if row["calls"]] == ["linear.forward"]
    assert softmax.forward is plain


def test_the_kernels_are_themselves_again_even_after_an_error():
    before = [(module, vars(module).copy()) for _, module in kernel_modules()]
    with pytest.raises(ZeroDivisionError), profile():
        raise ZeroDivisionError
    with pytest.raises(TypeError), profile() as seen:
        softmax.forward()
    assert not seen.events
    for module, attributes in before:
        for entry in ("forward", "backward", "update"):
            assert getattr(module, entry, None) is attributes.get(entry)


def test_operations_are_those_of_the_formulas():
    x, weight = f32(2, 3, 8), f32(5, 8)
    a, b = f32(4, 1, 2, 3), f32(6, 3, 5)
    q, k = f32(2, 4, 7, 8), f32(2, 2, 9, 8)
    first, last = visible_keys(7, 9, window=3)
    with profile() as seen:
        y = linear.forward(x, weight)
        linear.backward(y, x, weight, False)
        matmul.forward(a, b)
        out, lse = attention.forward(q, k, k, first, last, 0.5)
        attention.backward(out, q, k, k, out, lse, first, last, 0.5)
        targets, scale = np.zeros(6, np.int64), np.ones(6, np.float32)
        rows = x.reshape(6, 8)
        linear_cross_entropy.forward(rows, weight, targets, scale=scale, wanted=(False, False))
        up, down = f32(32, 8), f32(8, 32)
        y, u = feed_forward.forward(x, up, None, down, None)
        feed_forward.backward(y, x, u, up, down, with_bias=False, wanted=(False, True, True))
    assert row(seen, "linear_cross_entropy.forward")["flops"] == 2 * 6 * 8 * 5  # no gradients
    assert row(seen, "linear.forward")["flops"] == 2 * 6 * 8 * 5
    assert row(seen, "linear.backward")["flops"] == 2 * 2 * 6 * 8 * 5
    assert row(seen, "feed_forward.forward")["flops"] == 2 * (2 * 6 * 8 * 32)
    assert row(seen, "feed_forward.backward")["flops"] == 3 * (2 * 6 * 8 * 32)  # all but dx
    assert row(seen, "matmul.forward")["flops"] == 2 * 4 * 6 * 2 * 3 * 5
    pairs = 2 * 4 * 7 * 3  # rows, heads, queries, keys in the window
    assert row(seen, "attention.forward")["flops"] == 2 * 2 * pairs * 8
    assert row(seen, "attention.backward")["flops"] == 5 * 2 * pairs * 8


def test_traffic_is_what_has_to_be_read_and_written():
    weight, m, v = f32(100, 8), f32(100, 8), np.ones((100, 8), np.float32)
    ids, dout = np.arange(6), f32(6, 8)
    logits, targets = f32(6, 100), np.arange(6)
    q, k = f32(2, 4, 7, 8), f32(2, 2, 7, 8)
    visible = visible_keys(7, 7)
    with profile() as seen:
        adamw.update(weight, f32(100, 8), m, v, 0.1, 0.9, 0.99, 1e-8, 0.0, step=1)
        embedding.forward(weight, ids)
        embedding.backward(dout, ids, weight)
        _, lse = cross_entropy.forward(logits, targets)
        cross_entropy.backward(dout[:, 0], logits, targets, lse, out=logits)
        out, log_sums = attention.forward(q, k, k, *visible, 0.5)
        into = np.empty_like(q), np.empty_like(k), np.empty_like(k)
        attention.backward(out, q, k, k, out, log_sums, *visible, 0.5, into=into)

    def traffic(name):
        return row(seen, name)["traffic"]

    assert traffic("adamw.update") == 7 * weight.nbytes
    assert traffic("embedding.forward") == ids.nbytes + 2 * dout.nbytes  # six rows of the table
    assert traffic("embedding.backward") == ids.nbytes + 3 * dout.nbytes
    numbers = dout[:, 0].nbytes + targets.nbytes + lse.nbytes
    assert traffic("cross_entropy.backward") == numbers + 2 * logits.nbytes
    read = 3 * q.nbytes + 2 * k.nbytes + log_sums.nbytes + sum(part.nbytes for part in visible)
    assert traffic("attention.backward") == read + q.nbytes + 2 * k.nbytes


def test_what_the_profile_does_itself_takes_no_time_of_the_step(monkeypatch):
    now = [0.0]

    def taking(seconds):
        def call(*given):
            now[0] += seconds
            return 1.0

        return call

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(softmax, "forward", taking(2.0))
    monkeypatch.setitem(profiles._FLOPS, "softmax.forward", taking(100.0))
    with profile() as seen:
        for _ in range(3):
            softmax.forward(f32(4, 8))
            now[0] += 1.0  # between kernels
    assert [(event.start, event.duration) for event in seen.events] == [(0, 2), (3, 2), (6, 2)]
    assert seen.seconds == 9.0
    assert row(seen, "between kernels")["seconds"] == 3.0


def test_the_bandwidth_is_that_of_the_best_update(monkeypatch):
    now, seconds = [0.0], [9.0, 0.5, 0.25, 0.125, 1.0, 1.0]

    def update(*given):
        now[0] += seconds.pop(0)

    monkeypatch.setattr(adamw, "update", update)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(profiles, "peak", lambda precision: Ceilings(5.0, 0.0))
    found = ceilings(megabytes=4)
    assert found == Ceilings(flops=5.0, bandwidth=7 * 2**20 / 0.125)


def test_counting_memory_leaves_the_callers_count_as_it_was():
    tracemalloc.start()
    try:
        with profile(memory=True):
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    with profile(memory=True):
        pass
    assert not tracemalloc.is_tracing()


def test_memory_is_what_a_call_leaves_behind():
    x = f32(256, 1024)
    softmax.forward(x)  # compiled before it is looked at
    with profile(memory=True) as seen:
        kept = softmax.forward(x)
    assert row(seen, "softmax.forward")["grown"] == pytest.approx(kept.nbytes, rel=0.05)
    assert row(seen, "softmax.forward")["peak"] >= kept.nbytes
    assert "softmax.forward" in seen.table() and "between kernels" not in seen.table()


def test_the_peak_of_a_kernel_is_not_lost_in_one_that_it_calls(monkeypatch):
    def forward(x):
        held = np.ones(1 << 20)
        del held
        return softmax.forward(x)

    monkeypatch.setattr(relu, "forward", forward)
    softmax.forward(f32(4, 8))  # compiled before it is looked at
    with profile(memory=True) as seen:
        relu.forward(f32(4, 8))
    assert row(seen, "relu.forward")["peak"] >= 8 << 20


def test_arrays_that_are_given_by_name_count_as_well():
    x, weight, residual = f32(4, 8), f32(5, 8), f32(4, 5)
    with profile() as seen:
        linear.forward(x, weight, residual=residual)
    wanted = x.nbytes + weight.nbytes + 2 * residual.nbytes  # with the result, as large
    assert row(seen, "linear.forward")["traffic"] == wanted


def test_the_table_and_the_trace_show_every_kernel(tmp_path):
    with profile() as seen:
        linear.forward(f32(64, 64), f32(64, 64))
        softmax.forward(f32(4, 8))
    table = seen.table(Ceilings(flops=1e9, bandwidth=1e9))
    assert "linear.forward" in table and "%)" in table and "whole block" in table
    seen.write_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["linear.forward", "softmax.forward"]
    assert events[0]["args"]["flops"] == 2 * 64**3
    assert events[0]["ts"] + events[0]["dur"] <= events[1]["ts"]


def test_an_empty_block_has_a_table_too():
    with profile() as seen:
        pass
    assert "between kernels" in seen.table() and not seen.events


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_steps_under_the_profile_are_the_steps_of_training(name):
    model, plain = (build(preset(name, block_size=8), np.random.default_rng(0)) for _ in range(2))
    time, memory = profile_steps(model, Noise(), CONFIG, steps=2)
    optimizer = AdamW(
        plain.named_parameters(), CONFIG.lr, (CONFIG.beta1, CONFIG.beta2), CONFIG.eps,
        CONFIG.weight_decay,
    )  # fmt: skip
    for step in range(5):  # two before, two measured, one for memory
        update(plain.train(), optimizer, Noise().batch(step), step, CONFIG)
    for parameter, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert parameter.array.tobytes() == other.array.tobytes()
    count = len(list(plain.parameters()))
    assert row(time, "adamw.update")["calls"] == 2 * count
    assert row(memory, "adamw.update")["calls"] == count
    assert row(time, "linear_cross_entropy.forward")["flops"] == 2 * 3 * 2 * 16 * 64 * 256
    assert adamw.update.__module__ == "minillm.kernels.adamw"
