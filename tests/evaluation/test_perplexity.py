"""The score of a run and of a text: the same numbers, whichever way they are asked for."""

import numpy as np
import pytest

from minillm.data.shards import write_tokens
from minillm.errors import CheckpointError, InputError
from minillm.evaluation import perplexity
from minillm.models import registry
from minillm.tokenizer import CharTokenizer
from minillm.training.checkpoint import RunFolder

TEXT = "so little said, so much to say\n" * 5


@pytest.fixture
def setting(tmp_path):
    """A model, its tokenizer, and a run whose validation split is the text."""
    tokenizer = CharTokenizer.train(TEXT)
    config = registry.GPTConfig(tokenizer.vocab_size, 16, n_layer=1, n_head=2, d_model=16)
    run = RunFolder(tmp_path / "run")
    with run.writing():
        run.begin({})
    for split in ("train", "validation"):
        write_tokens(run.data, split, tokenizer.encode_array(TEXT), tokenizer.vocab_size)
    return registry.build(config, np.random.default_rng(0)), tokenizer, run


def test_a_split_scores_as_its_text_does(setting):
    model, tokenizer, run = setting
    of_split = perplexity.of_split(model, tokenizer, run)
    assert of_split == perplexity.of_text(model, tokenizer, TEXT)
    assert of_split == perplexity.of_split(model, tokenizer, run, "train")
    assert (of_split.tokens, of_split.bytes) == (len(TEXT) - 1, len(TEXT) - 1)
    assert of_split.bits_per_byte == pytest.approx(of_split.loss / np.log(2))
    assert of_split.perplexity == pytest.approx(np.exp(of_split.loss))


def test_without_a_tokenizer_there_are_no_bytes(setting):
    model, _, run = setting
    found = perplexity.of_split(model, None, run)
    assert (found.bytes, found.bits_per_byte) == (None, None)


@pytest.mark.parametrize("text", ["", "s"])
def test_too_short_a_text_has_no_tokens_to_predict(setting, text):
    model, tokenizer, _ = setting
    assert perplexity.of_text(model, tokenizer, text).tokens == 0


def test_an_unknown_split_and_lost_shards(setting):
    model, tokenizer, run = setting
    with pytest.raises(InputError, match="no split 'test', only train, validation"):
        perplexity.of_split(model, tokenizer, run, "test")
    (run.data / "index.json").unlink()
    with pytest.raises(CheckpointError, match="has no token shards any more"):
        perplexity.of_split(model, tokenizer, run)
