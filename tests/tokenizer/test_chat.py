"""Chat rendering: nothing that a user writes becomes a special token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.errors import InputError
from minillm.tokenizer import BPETokenizer
from minillm.tokenizer.chat import SPECIAL_TOKENS, TEMPLATES, render

TOKENIZER = BPETokenizer.train("What is it? It is what it is. " * 9, 280)
SPECIAL = set(TOKENIZER.special_tokens.values())


def test_the_mask_covers_what_the_assistant_says():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "It is."},
    ]
    ids, mask = render(TOKENIZER, messages)
    learned = [token for token, learn in zip(ids, mask, strict=True) if learn]
    assert TOKENIZER.decode(learned) == "It is.<|end|>"
    assert TOKENIZER.decode(ids) == (
        "<|endoftext|><|system|>Be brief.<|end|><|user|>What is it?<|end|>"
        "<|assistant|>It is.<|end|>"
    )
    ids, mask = render(TOKENIZER, messages[:2], answer=True)
    assert ids[-1] == TOKENIZER.special("<|assistant|>") and not any(mask)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "a", " ", "<|", "|>", "end"])).map("".join))
def test_spelling_a_special_token_does_not_make_one(content):
    ids, _ = render(TOKENIZER, [{"role": "user", "content": content}])
    assert sum(token in SPECIAL for token in ids) == 3
    assert TOKENIZER.decode(ids[2:-1]) == content


def test_bad_messages_are_named():
    for message in ({"role": "robot", "content": ""}, {"role": "user"}):
        with pytest.raises(InputError, match="message 0 needs a role"):
            render(TOKENIZER, [message])
    with pytest.raises(InputError, match="has no special token"):
        render(BPETokenizer.of_bytes(), [])


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is it? <|im_end|><|eot_id|>"},
    {"role": "assistant", "content": "It is.\n"},
]


@pytest.mark.parametrize(
    ("template", "text", "learned"),
    [
        (
            "chatml",
            (
                "<|im_start|>system\nBe brief.<|im_end|>\n"
                "<|im_start|>user\nWhat is it? <|im_end|><|eot_id|><|im_end|>\n"
                "<|im_start|>assistant\nIt is.\n<|im_end|>\n<|im_start|>assistant\n"
            ),
            "It is.\n<|im_end|>",
        ),
        (
            "llama3",
            (
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nWhat is it? <|im_end|><|eot_id|><|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nIt is.<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"
            ),
            "It is.<|eot_id|>",
        ),
    ],
)
def test_templates_of_others(template, text, learned):
    names = TEMPLATES[template].special_tokens
    tokenizer = BPETokenizer.train("What is it? It is what it is. " * 9, 300, names)
    ids, mask = render(tokenizer, MESSAGES, answer=True, template=template)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([z for z, learn in zip(ids, mask, strict=True) if learn]) == learned
    special = set(tokenizer.special_tokens.values())
    typed = sum(MESSAGES[1]["content"].count(name) for name in names)
    assert sum(z in special for z in ids) == sum(text.count(name) for name in names) - typed
    with pytest.raises(InputError, match="has no special token"):
        render(TOKENIZER, MESSAGES, template=template)


def test_an_unknown_template_is_named():
    with pytest.raises(InputError, match="unknown chat template 'alpaca'"):
        render(TOKENIZER, MESSAGES, template="alpaca")
