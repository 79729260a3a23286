"""Learning rates: the shapes, and the numbers of nanoGPT's schedule."""

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillm.training.config import TrainConfig
from minillm.training.schedule import learning_rate

SHAPES = ("cosine", "linear", "constant", "wsd")


def nanogpt(step: int, lr: float, min_lr: float, warmup: int, decay: int) -> float:
    """Warmup and cosine as nanoGPT's README recipe has them."""
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    if step > decay:
        return min_lr
    ratio = (step - warmup) / (decay - warmup)
    return min_lr + 0.5 * (1 + math.cos(math.pi * ratio)) * (lr - min_lr)


def test_cosine_is_nanogpts():
    config = TrainConfig(steps=2001, lr=1e-3, min_lr=1e-4, warmup=100)
    for step in range(2001):
        assert learning_rate(step, config) == pytest.approx(
            nanogpt(step, 1e-3, 1e-4, 100, 2000), rel=1e-12
        )


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(SHAPES), st.integers(1, 60), st.integers(0, 70), st.integers(0, 80),
    st.floats(0, 1),
)  # fmt: skip
@example("wsd", 1, 0, 1, 1.0)  # stable to the very end
def test_every_schedule_rises_then_falls_within_its_bounds(shape, steps, warmup, decay, stable):
    config = TrainConfig(
        steps=steps, lr=1.0, min_lr=0.25, warmup=warmup, decay_steps=decay, schedule=shape,
        stable=stable,
    )  # fmt: skip
    rates = [learning_rate(step, config) for step in range(100)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    after = rates[warmup:]
    assert all(low <= high + 1e-12 for high, low in itertools.pairwise(after))
    assert rates[-1] == (1.0 if shape == "constant" else 0.25)


def test_wsd_is_flat_and_then_linear():
    config = TrainConfig(steps=101, lr=1.0, min_lr=0.0, warmup=10, schedule="wsd", stable=0.8)
    assert {learning_rate(step, config) for step in range(10, 81)} == {1.0}
    assert learning_rate(90, config) == pytest.approx(0.5)
    assert learning_rate(100, config) == 0.0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_of_one_step_takes_it_at_lr(shape):
    config = TrainConfig(steps=1, lr=1.0, min_lr=0.25, warmup=0, schedule=shape)
    assert learning_rate(0, config) == 1.0
