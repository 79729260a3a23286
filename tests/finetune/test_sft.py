"""Chat batches: what is learned, in which order, and what cannot be."""

import numpy as np
import pytest

from minillm.data.questions import Question
from minillm.errors import InputError
from minillm.evaluation.answers import answers, is_right
from minillm.finetune.sft import ChatBatches, conversations
from minillm.kernels.cross_entropy import IGNORED
from minillm.models import registry
from minillm.tokenizer import BPETokenizer
from minillm.tokenizer.chat import SPECIAL_TOKENS, render
from minillm.training.config import TrainConfig
from minillm.training.loop import train

TOKENIZER = BPETokenizer.of_bytes(SPECIAL_TOKENS)
QUESTIONS = [
    Question((f"What is {name}?", f"Explain {name}."), answer)
    for name, answer in [("a", "First."), ("b", "Second."), ("c", "Third one."), ("z", "Last.")]
]
TALKS = conversations(TOKENIZER, QUESTIONS, 64, seed=0)


def test_targets_are_the_answers_and_their_ends_and_nothing_else() -> None:
    talk = TALKS[0]
    ids, targets = ChatBatches(TOKENIZER, [talk], 1, 64, seed=0).batch(0)
    rendered, _ = render(TOKENIZER, talk)
    assert ids[0].tolist() == rendered[:-1]
    said = "".join(f"{m['content']}<|end|>" for m in talk if m["role"] == "assistant")
    assert TOKENIZER.decode(targets[targets != IGNORED]) == said
    kept = targets[0] != IGNORED
    assert targets[0][kept].tolist() == np.array(rendered[1:])[kept].tolist()


def test_rows_of_a_batch_are_padded_with_what_has_no_loss() -> None:
    batches = ChatBatches(TOKENIZER, TALKS, 4, 64, seed=0)
    for step in range(batches.batches):
        ids, targets = batches.batch(step)
        assert ids.shape == targets.shape
        assert (targets != IGNORED).any(axis=1).all()
        assert (ids[:, -1] != 0).any()  # no column is padding in every row


def test_an_epoch_takes_every_conversation_once_and_the_next_in_another_order() -> None:
    batches = ChatBatches(TOKENIZER, TALKS, 1, 64, seed=0)

    def epoch(number: int) -> list[bytes]:
        steps = range(number * batches.batches, (number + 1) * batches.batches)
        return [batches.batch(step)[0].tobytes() for step in steps]

    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second)
    assert len(first) == len(TALKS)
    assert first != second
    assert epoch(0) == first  # a batch is a function of its step


def test_every_question_is_asked_in_every_way() -> None:
    asked = [m["content"] for talk in TALKS for m in talk if m["role"] == "user"]
    for question in QUESTIONS:
        assert [asked.count(way) for way in question.ways] == [2, 2]
    assert all(len(render(TOKENIZER, talk)[0]) <= 64 for talk in TALKS)
    assert {len(talk) // 2 for talk in TALKS} > {1}


@pytest.mark.parametrize(
    ("talks", "block_size", "complaint"),
    [
        ([], 64, "no conversations"),
        ([[{"role": "user", "content": "Hello?"}]], 64, "no word of the assistant's"),
        (TALKS, 8, "block_size is 8"),
    ],
)
def test_what_cannot_be_learned_is_one_clear_line(talks, block_size, complaint) -> None:
    with pytest.raises(InputError, match=complaint):
        ChatBatches(TOKENIZER, talks, 4, block_size, seed=0)


def test_a_small_model_learns_its_lessons_by_heart() -> None:
    config = registry.preset("llama-tiny", vocab_size=TOKENIZER.vocab_size)
    model = registry.build(config, np.random.default_rng(0))
    lessons = TrainConfig(steps=80, lr=1e-2, min_lr=1e-3, warmup=5, eval_every=0, save_every=0)
    train(model, ChatBatches(TOKENIZER, TALKS, 8, 64, seed=0), lessons)
    said = answers(model, TOKENIZER, [question.ways[1] for question in QUESTIONS])
    assert [is_right(a, q.answer) for a, q in zip(said, QUESTIONS, strict=True)] == [True] * 4
