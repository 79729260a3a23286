"""Answers are the model's own, whatever else is asked, and right only word for word."""

import numpy as np
import pytest

from minillm.evaluation import answers as module
from minillm.evaluation.answers import MOST_TOKENS, answers, is_right
from minillm.models import registry
from minillm.tokenizer import BPETokenizer
from minillm.tokenizer.chat import SPECIAL_TOKENS, render

TOKENIZER = BPETokenizer.of_bytes(SPECIAL_TOKENS)


@pytest.fixture
def asked(monkeypatch):
    """Each batch of prompts; the model echoes the question's length, with spaces around it."""
    batches = []

    def generate(model, prompts, max_tokens, sampling, *, stop_ids):
        assert (max_tokens, sampling.greedy) == (MOST_TOKENS, True)
        assert stop_ids == [TOKENIZER.special("<|end|>"), TOKENIZER.special("<|endoftext|>")]
        batches.append(prompts)
        return [TOKENIZER.encode(f"  {len(prompt)} \n") for prompt in prompts]

    monkeypatch.setattr(module, "generate", generate)
    return batches


@pytest.mark.parametrize("count", [0, 1, 64, 65, 130])
def test_every_question_is_answered_once_and_in_order(asked, count):
    questions = ["?" * (i + 1) for i in range(count)]
    prompts = [
        render(TOKENIZER, [{"role": "user", "content": question}], answer=True)[0]
        for question in questions
    ]
    found = list(answers(None, TOKENIZER, questions))
    assert found == [str(len(prompt)) for prompt in prompts]
    assert [prompt for batch in asked for prompt in batch] == prompts
    assert all(len(batch) <= module.AT_ONCE for batch in asked)


def test_an_answer_does_not_depend_on_what_else_is_asked():
    config = registry.preset("gpt-tiny", vocab_size=TOKENIZER.vocab_size)
    model = registry.build(config, np.random.default_rng(0))
    questions = ["Who?", "What is this?", "Why is it so, and since when?"]
    together = list(answers(model, TOKENIZER, questions))
    assert together == [next(answers(model, TOKENIZER, [question])) for question in questions]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Return the sum.", True),
        ("  Return\n the  sum. ", True),
        ("Return the sum", False),
        ("return the sum.", False),
        ("Return the sum. And more.", False),
        ("", False),
    ],
)
def test_words_count_and_spaces_do_not(answer, right):
    assert is_right(answer, "Return the sum.") is right
