"""Conversations as ids, with a mask that says which of them the model is to learn.

    <|endoftext|> <|user|> What is 2 + 2? <|end|> <|assistant|> Four. <|end|>
          0           0           0          0         0          1      1      loss mask

The model learns what the assistant writes, the closing token included (that is how it learns to
stop), and nothing of what it is asked. Contents are encoded as ordinary text: someone who types
"<|end|>" gets the ids of those seven characters, never the token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from minillm.errors import InputError

if TYPE_CHECKING:
    from minillm.tokenizer.base import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
ROLES = ("system", "user", "assistant")


def render(
    tokenizer: Tokenizer, messages: Iterable[Mapping[str, str]], answer: bool = False
) -> tuple[list[int], list[int]]:
    """A conversation as ids and loss mask.

    Args:
        tokenizer: any tokenizer with the five special tokens.
        messages: each with "role" ("system", "user" or "assistant") and "content".
        answer: end with an open assistant turn, for the model to fill.

    Returns `(ids, loss_mask)`, equally long; the mask is 1 on the assistant's contents and the
    tokens that close them. Raises `InputError` for unknown roles and missing special tokens.
    """
    ids = [tokenizer.special("<|endoftext|>")]
    mask = [0]
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(content, str):
            raise InputError(
                f"message {number} needs a role ({', '.join(ROLES)}) and a content in text, "
                f"not {dict(message)!r}"
            )
        body = [*tokenizer.encode(content), tokenizer.special("<|end|>")]
        ids += [tokenizer.special(f"<|{role}|>"), *body]
        mask += [0, *[int(role == "assistant")] * len(body)]
    if answer:
        ids.append(tokenizer.special("<|assistant|>"))
        mask.append(0)
    return ids, mask
