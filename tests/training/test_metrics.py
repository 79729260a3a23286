"""Losses of whole texts, however they are cut into batches; the log file; the speed estimate."""

import json
import math

import numpy as np
import pytest

from minillm.autograd import no_grad
from minillm.data.shards import TokenDataset
from minillm.tokenizer import BPETokenizer, CharTokenizer
from minillm.training.metrics import (
    MetricsLog,
    TextLoss,
    read_metrics,
    split_losses,
    text_loss,
    token_lengths,
    total,
)  # fmt: skip

from . import small


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return TokenDataset(small.shards(tmp_path_factory.mktemp("data")), "validation")


@pytest.mark.parametrize("block", [1, 7, 16])
@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_the_whole_split_is_predicted_once_whatever_the_batches(data, block, rows):
    model = small.model().astype(np.float64)
    found = total(split_losses(model, data, block, rows=rows))
    assert found.tokens == len(data) - 1
    tokens, by_hand = data.read(0, len(data)), 0.0
    for start in range(0, len(data) - 1, block):
        window = tokens[start : start + block + 1]
        with no_grad():
            logits = model.eval()(window[None, :-1]).numpy()[0]
        shifted = logits - logits.max(axis=-1, keepdims=True)
        chances = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        by_hand -= chances[np.arange(len(window) - 1), window[1:]].sum()
    assert found.nats == pytest.approx(by_hand, rel=1e-12)


def test_an_evaluation_leaves_the_mode_as_it_was(data):
    model = small.model().train()
    losses = split_losses(model, data, small.BLOCK, rows=1)
    next(losses)
    assert model.training  # also in between
    first = total(split_losses(model, data, small.BLOCK))
    assert model.training
    assert first == total(split_losses(model.eval(), data, small.BLOCK))  # no dropout in either
    assert not model.training


def test_ignored_targets_count_neither_as_tokens_nor_as_bytes():
    lengths = np.arange(small.VOCAB)
    ids, targets = np.array([[1, 2, 3, 4]]), np.array([[2, -100, 4, -100]])
    found = text_loss(small.model(), ids, targets, lengths)
    assert (found.tokens, found.bytes) == (2, 6)


def test_bits_per_byte_of_a_model_that_knows_nothing():
    """Guessing evenly among 256 bytes costs 8 bits for each."""
    assert TextLoss(10 * math.log(256), 10, 10).bits_per_byte == pytest.approx(8.0)
    assert TextLoss(10 * math.log(256), 10).bits_per_byte is None
    assert TextLoss(1e9, 1).perplexity == math.inf
    assert (
        str(TextLoss(20.0, 10, 30)) == "loss 2.0000  perplexity 7.39  bits/byte 0.962  (10 tokens)"
    )


def test_token_lengths_add_up_to_the_text():
    text = "naïve café — naïve café — naïve"
    for tokenizer in (CharTokenizer.train(text), BPETokenizer.train([text], 270)):
        lengths = token_lengths(tokenizer)
        assert len(lengths) == tokenizer.vocab_size
        assert lengths[tokenizer.encode_array(text)].sum() == len(text.encode())
        assert all(lengths[i] == 0 for i in tokenizer.special_tokens.values())


def test_a_log_goes_on_where_the_checkpoint_stands(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(1, 6):
        log.write({"step": step, "loss": step / 3})
    log.close()
    with path.open("a") as file:
        file.write('{"step": null}\n{"step": "2"}\n[2]\n{"step": 6, "loss')
    log = MetricsLog(path, last_step=3)
    log.write({"step": 4, "loss": 0.0})
    log.close()
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert read_metrics(path)[2]["loss"] == 1.0
    assert read_metrics(tmp_path / "none.jsonl") == []
