"""Settings check themselves and say what is wrong."""

import math

import pytest

from minillm.errors import InputError
from minillm.training.config import DataConfig, TokenizerConfig, TrainConfig

WHOLE = {"steps": 1, "batch_size": 1, "keep": 1, "micro_batch_size": 0, "warmup": 0,
         "decay_steps": 0, "seed": 0, "eval_every": 0, "save_every": 0,
         "sample_tokens": 0}  # and the least that each may be # fmt: skip
NUMBERS = ("lr", "min_lr", "stable", "beta1", "beta2", "eps", "weight_decay", "clip")


def complaint(make, **values):
    with pytest.raises(InputError, match="^[^\n]*$") as caught:
        make(**values)
    return str(caught.value)


@pytest.mark.parametrize(("name", "least"), WHOLE.items())
def test_what_is_counted_is_a_whole_number(name, least):
    for value in (least - 1, 2.5, "3", True, None, math.nan):
        assert complaint(TrainConfig, **{name: value}) == (
            f"train.{name} is {value!r}; it takes a whole number of at least {least}"
        )
    assert getattr(TrainConfig(**{name: least}), name) == least


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_measured_is_a_finite_number_in_its_range(name):
    for value in (math.inf, -math.inf, math.nan, -1e-9, "0.1", True, None):
        assert f"train.{name} is {value!r}; it takes a finite number" in complaint(
            TrainConfig, **{name: value}
        )


@pytest.mark.parametrize(
    ("make", "values", "words"),
    [
        (TrainConfig, {"lr": 0.0}, "train.lr is 0.0; it takes a finite number above 0"),
        (TrainConfig, {"eps": 0.0}, "train.eps is 0.0; it takes a finite number above 0"),
        (TrainConfig, {"beta1": 1.0}, "a finite number from 0 up to, but not, 1"),
        (TrainConfig, {"min_lr": 1.0}, "train.min_lr is 1.0, above train.lr"),
        (TrainConfig, {"schedule": "cosin"}, "train.schedule is 'cosin'; did you mean 'cosine'?"),
        (TrainConfig, {"precision": "int8"}, "'int8'; there are float32, bfloat16"),
        (TrainConfig, {"activations": "int8"}, "'int8'; there are float32, bfloat16"),
        (TrainConfig, {"activations": "bfloat16"}, "need train.precision bfloat16 too"),
        (TrainConfig, {"recompute": 1}, "train.recompute is 1; it takes true or false"),
        (DataConfig, {"validation": 1.0}, "data.validation is 1.0; it takes a finite number"),
        (DataConfig, {"validation": math.nan}, "data.validation is nan"),
        (TokenizerConfig, {"vocab_size": 255}, "255, but byte-level BPE starts from the 256"),
        (TokenizerConfig, {"kind": "bep"}, "tokenizer.kind is 'bep'; did you mean 'bpe'?"),
        (TokenizerConfig, {"pattern": "gtp4"}, "no pattern is called 'gtp4'; did you mean 'gpt4'?"),
        (TokenizerConfig, {"pattern": "("}, "pattern '(' is neither a name"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(make, values, words):
    assert words in complaint(make, **values)


def test_what_looks_odd_and_is_meant():
    assert TokenizerConfig(kind="word", vocab_size=100).vocab_size == 100
    assert TokenizerConfig(pattern=r"\p{L}+|\s+").pattern == r"\p{L}+|\s+"
    assert TrainConfig(lr=1, min_lr=0, clip=0, warmup=10**6, decay_steps=5).lr == 1
    assert TrainConfig(lr=1e-5, min_lr=1e-4, schedule="constant").min_lr == 1e-4
