"""How many questions a chat model answers as it should.

A right answer is the expected one, word for word; only spacing may differ. Answers are chosen
greedily, so the same model always has the same score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minillm.inference.generate import generate
from minillm.inference.sampling import SamplingConfig
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer
from minillm.tokenizer.chat import render

MOST_TOKENS = 96  # of an answer
AT_ONCE = 64  # questions in one batch


def answers(model: LanguageModel, tokenizer: Tokenizer, questions: Sequence[str]) -> Iterator[str]:
    """The model's answer to each question, each in a conversation of its own."""
    stop = [tokenizer.special("<|end|>"), tokenizer.special("<|endoftext|>")]
    greedy = SamplingConfig(greedy=True)
    for first in range(0, len(questions), AT_ONCE):
        prompts = [
            render(tokenizer, [{"role": "user", "content": question}], answer=True)[0]
            for question in questions[first : first + AT_ONCE]
        ]
        for ids in generate(model, prompts, MOST_TOKENS, greedy, stop_ids=stop):
            yield tokenizer.decode(ids).strip()


def is_right(answer: str, expected: str) -> bool:
    """Whether two answers have the same words.

    >>> is_right("Return  the sum.", "Return the sum."), is_right("the sum.", "Return the sum.")
    (True, False)
    """
    return answer.split() == expected.split()
