"""Conversations as ids, with a mask that says which of them the model is to learn.

    <|endoftext|> <|user|> What is 2 + 2? <|end|> <|assistant|> Four. <|end|>
          0           0           0          0         0          1      1      loss mask

The model learns what the assistant writes, the closing token included (that is how it learns to
stop), and nothing of what it is asked. Contents are encoded as ordinary text: someone who types
"<|end|>" gets the ids of those seven characters, never the token.

A template says what stands around the contents: our own, ChatML (Qwen), or Llama 3's. Names in it
that are special tokens of the vocabulary become those; all else in it is ordinary text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minillm.errors import InputError

if TYPE_CHECKING:
    from minillm.tokenizer.base import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Template:
    """What stands around the contents of a conversation, `{role}` in place of the role."""

    start: str  # before the first message
    opening: str  # before each content
    closing: str  # after each content; its special token is learned, what follows it is not
    special_tokens: tuple[str, ...]
    trim: bool = False  # contents lose the white space around them


TEMPLATES = {
    "minillm": Template("<|endoftext|>", "<|{role}|>", "<|end|>", SPECIAL_TOKENS),
    "chatml": Template("", "<|im_start|>{role}\n", "<|im_end|>\n", ("<|im_start|>", "<|im_end|>")),
    "llama3": Template(
        "<|begin_of_text|>",
        "<|start_header_id|>{role}<|end_header_id|>\n\n",
        "<|eot_id|>",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        trim=True,
    ),
}


def render(
    tokenizer: Tokenizer,
    messages: Iterable[Mapping[str, str]],
    answer: bool = False,
    template: str = "minillm",
) -> tuple[list[int], list[int]]:
    """A conversation as ids and loss mask.

    Args:
        tokenizer: any tokenizer with the special tokens of the template.
        messages: each with "role" ("system", "user" or "assistant") and "content".
        answer: end with an open assistant turn, for the model to fill.
        template: a name of `TEMPLATES`.

    Returns `(ids, loss_mask)`, equally long; the mask is 1 on the assistant's contents and the
    tokens that close them. Raises `InputError` for unknown roles and missing special tokens.
    """
    if template not in TEMPLATES:
        raise InputError(f"unknown chat template {template!r}; it is {', '.join(TEMPLATES)}")
    form = TEMPLATES[template]
    for name in form.special_tokens:
        tokenizer.special(name)  # raises where it is missing

    def marks(text: str) -> list[int]:
        return tokenizer.encode(text, allowed_special=form.special_tokens)

    ids = marks(form.start)
    mask = [0] * len(ids)
    closing = marks(form.closing)
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(content, str):
            raise InputError(
                f"message {number} needs a role ({', '.join(ROLES)}) and a content in text, "
                f"not {dict(message)!r}"
            )
        opening = marks(form.opening.format(role=role))
        body = tokenizer.encode(content.strip() if form.trim else content)
        ids += [*opening, *body, *closing]
        learned = (len(body) + 1) * [int(role == "assistant")]
        mask += [*[0] * len(opening), *learned, *[0] * (len(closing) - 1)]
    if answer:
        opening = marks(form.opening.format(role="assistant"))
        ids += opening
        mask += [0] * len(opening)
    return ids, mask
