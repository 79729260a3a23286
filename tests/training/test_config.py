"""Settings check themselves and say what is wrong."""

import pytest

from minillm.errors import InputError
from minillm.training.config import DataConfig, TokenizerConfig, TrainConfig


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TrainConfig(batch_size=0), "train.batch_size is 0; it must be at least 1"),
        (lambda: TrainConfig(lr=float("nan")), "train.lr is nan"),
        (lambda: TrainConfig(beta2=1.5), "train.beta2 is 1.5; it must be at least 0 and at most 1"),
        (lambda: TrainConfig(min_lr=1.0), "train.min_lr is 1.0, above train.lr"),
        (lambda: TrainConfig(eps=0.0), "train.eps is 0.0; it must be above 0"),
        (lambda: DataConfig(validation=1.0), "above 0 and below 1"),
        (lambda: TokenizerConfig(vocab_size=255), "255, but byte-level BPE starts from the 256"),
    ],
)
def test_a_bad_value_is_named(make, words):
    with pytest.raises(InputError, match="^[^\n]*$") as caught:
        make()
    assert words in str(caught.value)


def test_a_word_vocabulary_may_be_small():
    assert TokenizerConfig(kind="word", vocab_size=100).vocab_size == 100
