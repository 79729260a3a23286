"""Sampling: each filter against transformers', the order, the draws, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minillm.errors import InputError
from minillm.inference.sampling import (
    SamplingConfig,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize,
    sample,
    softmax,
)

LOGITS = arrays(np.float64, st.integers(1, 40), elements=st.floats(-20, 20, width=32))
SHARES = st.floats(0.01, 1.0)


def peer(name, logits, *settings, history=()):
    """What a logits processor of transformers makes of the logits."""
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    ids = torch.tensor([list(history)], dtype=torch.long)
    return getattr(processors, name)(*settings)(ids, torch.tensor(logits[None])).numpy()[0]


@settings(deadline=None, max_examples=50)
@given(LOGITS, st.integers(1, 45))
def test_top_k_is_transformers(logits, k):
    np.testing.assert_array_equal(keep_top_k(logits, k), peer("TopKLogitsWarper", logits, k))


@settings(deadline=None, max_examples=50)
@given(LOGITS.filter(lambda x: len(set(softmax(x))) == len(x)), SHARES)  # ties fall anyhow
def test_top_p_is_transformers(logits, p):
    kept, expected = keep_top_p(logits, p), peer("TopPLogitsWarper", logits, p)
    # a token on the very edge may fall to either side by rounding
    before = np.array([softmax(logits)[logits > x].sum() for x in logits])
    clear = np.abs(before - p) > 1e-9
    np.testing.assert_array_equal(kept[clear], expected[clear])


@settings(deadline=None, max_examples=50)
@given(LOGITS, SHARES)
def test_min_p_is_transformers(logits, p):
    share = softmax(logits) / softmax(logits).max()
    clear = np.abs(share - p) > 1e-9
    expected = peer("MinPLogitsWarper", logits, p)
    np.testing.assert_array_equal(keep_min_p(logits, p)[clear], expected[clear])


@settings(deadline=None, max_examples=50)
@given(LOGITS, st.floats(0.2, 5), st.data())
def test_repetition_penalty_is_transformers(logits, penalty, data):
    history = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1, max_size=9))
    expected = peer("RepetitionPenaltyLogitsProcessor", logits, penalty, history=history)
    np.testing.assert_allclose(penalize(logits, history, penalty), expected, rtol=1e-12)


def test_draws_follow_the_filtered_distribution_in_transformers_order():
    logits = np.random.default_rng(0).normal(size=12) * 3
    config = SamplingConfig(
        temperature=0.7, top_k=8, top_p=0.95, min_p=0.02, repetition_penalty=1.5
    )
    expected = peer("RepetitionPenaltyLogitsProcessor", logits, 1.5, history=[3, 4])
    for name, value in (("TemperatureLogitsWarper", 0.7), ("TopKLogitsWarper", 8),
                        ("TopPLogitsWarper", 0.95), ("MinPLogitsWarper", 0.02)):  # fmt: skip
        expected = peer(name, expected, value)
    rng, n = np.random.default_rng(1), 20_000
    counts = np.bincount([sample(logits, config, rng, [3, 4, 3]) for _ in range(n)], minlength=12)
    probabilities = softmax(expected)
    assert (counts[probabilities == 0] == 0).all() and (probabilities == 0).any()
    error = np.sqrt(probabilities * (1 - probabilities) / n)
    assert (np.abs(counts / n - probabilities) <= 5 * error + 1e-12).all()


def test_greedy_takes_the_likeliest_and_no_random_number():
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    for config in (SamplingConfig(greedy=True), SamplingConfig(temperature=0)):
        assert sample(np.array([0.0, 2.0, 2.0, 1.0]), config, rng) == 1
    assert rng.bit_generator.state == state


def test_a_seed_reproduces_and_does_not_depend_on_the_settings_before():
    logits = np.random.default_rng(0).normal(size=50)
    draws = [
        [sample(logits, SamplingConfig(), rng) for _ in range(20)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-8, 1e8, 1e308])
def test_extreme_temperatures_draw_as_their_limit(temperature):
    logits, rng = np.array([0.0, 300.0, -300.0, 300.0], np.float32), np.random.default_rng(0)
    drawn = {sample(logits, SamplingConfig(temperature), rng) for _ in range(100)}
    assert drawn == ({1, 3} if temperature < 1 else {0, 1, 2, 3})


@pytest.mark.parametrize("penalty", [1e-320, 1e308])
def test_a_penalty_beyond_float64_raises(penalty):
    logits = np.array([3.0, 2.0]) if penalty < 1 else np.array([-3.0, -2.0])
    for greedy in (False, True):
        config = SamplingConfig(repetition_penalty=penalty, greedy=greedy)
        with pytest.raises(InputError, match="takes the logits beyond float64"):
            sample(logits, config, np.random.default_rng(0), [0, 1])


def test_the_least_top_p_keeps_the_likeliest_of_any_number():
    for count in range(1, 200):  # 49 times the float64 nearest to 1/49 is below 1
        assert (keep_top_p(np.zeros(count), 1e-17) == 0).any()


def test_tokens_that_are_ruled_out_are_never_drawn():
    logits = np.full(30, -np.inf)
    logits[[4, 9]] = 0.0
    rng = np.random.default_rng(0)
    assert {sample(logits, SamplingConfig(), rng) for _ in range(200)} == {4, 9}


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([0, np.nan, 1], "the model's logits are nan for token 1; its weights are damaged"),
        ([0, 1, np.inf], "the model's logits are inf for token 2"),
        ([-np.inf, -np.inf], "the model's logits are -inf for every token"),
    ],
)
def test_broken_logits_raise(logits, message):
    for config in (SamplingConfig(), SamplingConfig(greedy=True)):
        with pytest.raises(InputError, match=message):
            sample(np.array(logits, np.float32), config, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1}, "temperature=-1; it takes a number from 0 on"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0; it takes a whole number of at least 1"),
        ({"top_k": 2.5}, "top_k=2.5; it takes a whole number of at least 1"),
        ({"top_k": 5.0}, "top_k=5.0; it takes a whole number of at least 1"),
        ({"top_p": 0}, "top_p=0; it takes a probability above 0, up to 1"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"min_p": -0.1}, "min_p=-0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0; it takes a number above 0"),
    ],
)
def test_settings_out_of_range_raise(setting, message):
    with pytest.raises(InputError, match=message):
        SamplingConfig(**setting)
