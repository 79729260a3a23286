"""Supervised fine-tuning: a model that continues text becomes one that answers.

Pre-training taught it to continue any text. Fine-tuning goes on with the same loss on
conversations, and only on what the assistant says in them (`tokenizer/chat.py` draws the mask):

    ids       <|endoftext|> <|user|> What is 2 + 2? <|end|> <|assistant|> Four .     <|end|>
    targets         -100      -100   -100 ...        -100        Four     .  <|end|>   -100

Nothing else differs, so the loop is `training/loop.py`, and this file only makes its batches.

Source: Ouyang et al. 2022, "Training language models to follow instructions with human feedback",
section 3.5, step 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minillm.data.questions import Question
from minillm.errors import InputError
from minillm.kernels.cross_entropy import IGNORED
from minillm.tokenizer import Tokenizer
from minillm.tokenizer.chat import render

Conversation = Sequence[Mapping[str, str]]
BATCHES_SORTED = 8  # batches whose rows are sorted by length together, so that little is padding


class ChatBatches:
    """Conversations in shuffled batches, as the training loop reads them.

    The order is a function of the seed and the epoch, so a batch is one of the step, and a run that
    stops goes on with the next. What does not fill a batch at the end of an epoch is left to the
    next one, whose order is another.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        conversations: Sequence[Conversation],
        batch_size: int,
        block_size: int,
        seed: int,
    ) -> None:
        """Raises `InputError` for a conversation with no answer or more tokens than a context."""
        if not conversations:
            raise InputError("there are no conversations to learn from")
        self.rows = [render(tokenizer, conversation) for conversation in conversations]
        for number, (ids, mask) in enumerate(self.rows):
            if len(ids) > block_size + 1:
                raise InputError(
                    f"conversation {number} has {len(ids)} tokens, but block_size is {block_size}"
                )
            if not any(mask):
                raise InputError(f"conversation {number} has no word of the assistant's to learn")
        self.batch_size, self.seed = min(batch_size, len(self.rows)), seed
        self.batches = len(self.rows) // self.batch_size  # in one epoch
        self._epoch, self._order = -1, np.empty((0, 0), np.int64)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and targets of update `step`, int32 (B, T), T being the longest row's length."""
        epoch, place = divmod(step, self.batches)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        return pad([self.rows[number] for number in self._order[place]])

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Row numbers (batches, batch_size): random, but rows of like length stand together."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.rows))[: self.batches * self.batch_size]
        lengths = np.array([len(ids) for ids, _ in self.rows])
        together = BATCHES_SORTED * self.batch_size
        for first in range(0, len(order), together):
            part = order[first : first + together]
            order[first : first + together] = part[np.argsort(lengths[part], kind="stable")]
        return rng.permutation(order.reshape(self.batches, self.batch_size))  # of whole batches


def pad(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of (ids, loss mask) as ids and targets, int32 (B, T); targets outside the mask are -100.

    >>> pad([([7, 8, 9], [0, 0, 1]), ([5, 6], [0, 1])])[1].tolist()
    [[-100, 9], [6, -100]]
    """
    longest = max(len(ids) for ids, _ in rows) - 1
    inputs = np.zeros((len(rows), longest), np.int32)
    targets = np.full((len(rows), longest), IGNORED, np.int32)
    for row, (ids, mask) in enumerate(rows):
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORED)
    return inputs, targets


def conversations(
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    block_size: int,
    seed: int,
    rounds: int = 4,
    most_turns: int = 3,
) -> list[Conversation]:
    """Conversations in which every question is asked `rounds` times, each time in its next way.

    Each has 1 to `most_turns` questions that have nothing to do with each other, so that the model
    learns to answer the last one, whatever was said before it. As many as fit into `block_size`
    tokens: a question that does not fit alone is for `ChatBatches` to complain about.
    """
    rng = np.random.default_rng(seed)
    made: list[Conversation] = []
    for number in range(rounds):
        talk: list[Mapping[str, str]] = []
        length = turns = 0
        for i in rng.permutation(len(questions)):
            turn = _turn(questions[i], number)
            size = len(render(tokenizer, turn)[0])
            if talk and (len(talk) == 2 * turns or length + size > block_size):
                made.append(talk)
                talk, length = [], 0
            if not talk:
                turns = int(rng.integers(1, most_turns + 1))
            talk, length = [*talk, *turn], length + size
        made.append(talk)
    return made


def _turn(question: Question, number: int) -> list[Mapping[str, str]]:
    """A question, asked in its `number`-th way, and its answer."""
    way = question.ways[number % len(question.ways)]
    return [{"role": "user", "content": way}, {"role": "assistant", "content": question.answer}]
