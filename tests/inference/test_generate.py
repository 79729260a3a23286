"""Generation: cached as uncached, alone as in a batch, past the context, to the last character."""

import numpy as np
import pytest

from minillm.autograd import enable_grad, no_grad
from minillm.autograd.tensor import is_recording
from minillm.errors import InputError
from minillm.inference.generate import decode, generate, prefill, stream
from minillm.inference.sampling import SamplingConfig
from minillm.models.registry import build, preset
from minillm.tokenizer import BPETokenizer

BLOCK = 24
GREEDY = SamplingConfig(greedy=True)
BYTES = BPETokenizer.of_bytes()
PROMPTS = [[1, 2, 3], [200], list(range(40, 60)), [7] * 11]


@pytest.fixture(params=["gpt-tiny", "llama-tiny"])
def model(request):
    return make(request.param)


def make(name="gpt-tiny"):
    """A small float64 model with weights large enough for its context to matter."""
    model = build(preset(name, block_size=BLOCK), np.random.default_rng(0), np.float64)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.array *= 6
    return model


def by_hand(model, prompt, count):
    """Greedy tokens without a cache, with the context cut as the module says."""
    tokens, start, new = list(prompt), 0, []
    for _ in range(count):
        if len(tokens) - start > BLOCK:
            start = len(tokens) - BLOCK // 2
        with no_grad():
            new.append(int(model(np.array([tokens[start:]])).numpy()[0, -1].argmax()))
        tokens.append(new[-1])
    return new


def test_cached_is_uncached_even_past_the_context(model):
    count = 3 * BLOCK
    assert generate(model, PROMPTS, count, GREEDY) == [by_hand(model, p, count) for p in PROMPTS]


def test_a_prompt_that_fills_the_context_goes_on(model):
    prompt = list(range(BLOCK))
    assert generate(model, [prompt], 5, GREEDY) == [by_hand(model, prompt, 5)]


@pytest.mark.parametrize("count", [4, 2 * BLOCK])
def test_what_a_prompt_gets_does_not_depend_on_its_batch(model, count):
    config = SamplingConfig(temperature=1.3, top_k=50, repetition_penalty=1.2)
    together = generate(model, PROMPTS, count, config, seed=[5, 6, 7, 8], stop_ids=[9, 70, 71])
    for prompt, seed, expected in zip(PROMPTS, [5, 6, 7, 8], together, strict=True):
        assert generate(model, [prompt], count, config, seed=[seed], stop_ids=[9, 70, 71]) == [
            expected
        ]


def test_seeds_reproduce_and_differ(model):
    def write(seed):
        return generate(model, [[1, 2], [1, 2]], 8, seed=seed)

    assert write(3) == write(3) != write(4)
    assert write(np.random.default_rng(3)) == write(np.random.default_rng(3))
    first, second = write(3)
    assert first != second  # rows of one run differ


def test_prefill_and_decode_give_the_next_logits(model):
    cache, logits = prefill(model, PROMPTS)
    after = decode(model, [5, 6, 7, 8], cache)
    with no_grad():
        for row, prompt in enumerate(PROMPTS):
            whole = model(np.array([[*prompt, 5 + row]])).numpy()[0]
            np.testing.assert_allclose(logits[row], whole[-2], rtol=1e-9, atol=1e-10)
            np.testing.assert_allclose(after[row], whole[-1], rtol=1e-9, atol=1e-10)


def test_stop_ids_end_a_row_and_are_left_out(model):
    free = by_hand(model, PROMPTS[0], 30)
    end = free[6]
    steps = list(stream(model, PROMPTS[:1], 30, GREEDY, stop_ids=[end]))
    assert steps[-1].id == end and steps[-1].reason == "stop"
    assert all(step.reason is None for step in steps[:-1])
    assert generate(model, PROMPTS[:1], 30, GREEDY, stop_ids=[end]) == [free[: free.index(end)]]


def test_max_tokens_end_a_row(model):
    reasons = [step.reason for step in stream(model, PROMPTS[:2], 3, GREEDY)]
    assert reasons == [None] * 4 + ["length"] * 2
    assert generate(model, PROMPTS, 0) == [[], [], [], []]
    assert generate(model, [], 5) == []


def test_streamed_text_is_the_decoded_text():
    config = SamplingConfig(temperature=3.0)  # any bytes, valid UTF-8 or not
    texts, ids = {}, {}
    for step in stream(make(), PROMPTS, 40, config, seed=1, tokenizer=BYTES):
        texts[step.row] = texts.get(step.row, "") + step.text
        ids.setdefault(step.row, []).append(step.id)
    assert [texts[row] for row in range(4)] == [BYTES.decode(ids[row]) for row in range(4)]


def test_stop_strings_end_the_text_before_them():
    model = make()
    ids = generate(model, [[1, 2, 3]], 30, seed=2)[0]
    text = BYTES.decode(ids)
    stop = text[5:7]
    steps = list(stream(model, [[1, 2, 3]], 30, seed=2, stop=[stop], tokenizer=BYTES))
    assert "".join(step.text for step in steps) == text[: text.index(stop)]
    assert steps[-1].reason == "stop" and len(steps) < 30
    assert generate(model, [[1, 2, 3]], 30, seed=2, stop=[stop], tokenizer=BYTES) == [
        [step.id for step in steps]
    ]


def test_the_model_is_left_as_it_was():
    model = make().train()
    steps = stream(model, [[1]], 5)
    next(steps)
    assert is_recording()  # the caller's own operations are still recorded in between
    assert model.training and model.dropout.training
    with enable_grad():
        generate(model.eval(), [[1]], 2)
    assert not model.training


def test_dropout_is_off_while_writing():
    plain, dropping = make(), make()
    dropping.dropout.p = 0.9
    assert generate(dropping, [[1, 2]], 9, GREEDY) == generate(plain, [[1, 2]], 9, GREEDY)


def test_two_streams_at_a_time_write_what_each_writes_alone():
    model = make().train()
    model.dropout.p = 0.9
    expected = generate(model, [[1, 2]], 9, GREEDY)[0]
    short, long = stream(model, [[7]], 2, GREEDY), stream(model, [[1, 2]], 9, GREEDY)
    next(short)
    written = [next(long).id]
    next(short)
    assert next(short, None) is None
    assert written + [token.id for token in long] == expected


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty; give at least one token"),
        ([[1] * 25], {}, "prompt 0 has 25 tokens, but block_size is 24"),
        ([[1, 256]], {}, "prompt 0 has the token id 256, but vocab_size is 256"),
        ([[1], [2, -1]], {}, "prompt 1 has the token id -1, but vocab_size is 256"),
        ([[1]], {"max_tokens": -1}, "max_tokens=-1; it takes a whole number from 0 on"),
        ([[1]], {"max_tokens": 1000.5}, "max_tokens=1000.5; it takes a whole number from 0 on"),
        ([[1], [2, 1.7]], {}, "prompt 1 has 1.7 in it; token ids are whole numbers"),
        ([[1]], {"stop": ["a"]}, "stop strings need the tokenizer"),
        ([[1], [2]], {"seed": [1]}, "1 seeds for 2 prompts; give one for each"),
        ([[1]], {"seed": -3}, "seed -3; it takes a whole number from 0 on"),
    ],
)
def test_mistakes_are_one_clear_line_before_anything_is_written(prompts, settings, message):
    with pytest.raises(InputError) as error:
        stream(make(), prompts, **{"max_tokens": 4} | settings)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_nan_weights_raise():
    model = make()
    model.norm.weight.array[0] = np.nan
    with pytest.raises(InputError, match="the model's logits are nan"):
        generate(model, [[1]], 4)
