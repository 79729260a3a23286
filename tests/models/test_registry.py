"""Presets have the published sizes; configurations go round and check themselves."""

import dataclasses

import numpy as np
import pytest

from minillm.errors import InputError
from minillm.models import registry
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.llama import Llama, LlamaConfig
from minillm.models.registry import PRESETS, build, config_from_dict, config_to_dict, preset

SIZES = {  # as published, or as counted by transformers for the same shape
    "gpt2-124m": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-15m": 15_191_712,
    "llama-110m": 109_529_856,
    "llama-1.2b": 1_235_814_400,
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_without_taking_memory_and_goes_round(name):
    config = PRESETS[name]
    model = build(config)
    assert model.num_parameters() == SIZES.get(name, model.num_parameters())
    assert config_from_dict(config_to_dict(config)) == config


def test_the_large_preset_is_large():
    config = PRESETS["llama-1.2b"]
    assert config.n_head >= 16 and config.block_size == 4096


def test_build_chooses_the_class_and_the_dtype():
    rng = np.random.default_rng(0)
    assert isinstance(build(preset("gpt-tiny"), rng), GPT)
    model = build(preset("llama-tiny"), rng, np.float64)
    assert isinstance(model, Llama) and {p.dtype for p in model.parameters()} == {np.dtype("f8")}


def test_presets_take_changes():
    config = preset("gpt-tiny", vocab_size=99, n_layer=1)
    assert (config.vocab_size, config.n_layer, config.d_model) == (99, 1, 64)
    assert preset("gpt-tiny", d_model=32).mlp_width == 128  # still four times as wide


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("gpt2-124"), "no preset is called 'gpt2-124'; did you mean 'gpt2-124m'?"),
        (lambda: preset("gpt-tiny", n_layers=3), "no setting 'n_layers'; did you mean 'n_layer'?"),
        (
            lambda: config_from_dict({"architecture": "lama"}),
            "architecture='lama'; did you mean 'llama'",
        ),
        (
            lambda: config_from_dict({"vocab_size": 3}),
            "architecture=None; there are gpt",
        ),
        (lambda: config_from_dict({"architecture": [1]}), "architecture=[1]; there are gpt, llama"),
        (
            lambda: config_from_dict({"architecture": "gpt", "vocab_size": 3, "n_head": 1}),
            "a gpt needs block_size, d_model, n_layer",
        ),
        (lambda: build("gpt"), "no model is built from a str"),
        (lambda: GPTConfig(65, 64, 4, 3, 100), "d_model=100 is not divisible by n_head=3"),
        (lambda: GPTConfig(65, 64, 0, 3, 99), "n_layer=0; it takes a whole number of at least 1"),
        (lambda: GPTConfig(65, 64.0, 1, 3, 99), "block_size=64.0; it takes a whole number"),
        (lambda: GPTConfig(65, 64, 1, 3, 99, dropout=1.0), "dropout=1.0; it takes a probability"),
        (
            lambda: GPTConfig(65, 64, 1, 3, 99, activation="gelu-tanh"),
            "activation='gelu-tanh'; did you mean 'gelu_tanh'?",
        ),
        (lambda: GPTConfig(65, 64, 1, 3, 99, bias="no"), "bias='no'; it takes True or False"),
        (lambda: GPTConfig(65, 64, 1, 3, 99, norm="x"), "norm='x'; there are pre, post"),
        (
            lambda: GPTConfig(65, 64, 1, 3, 99, positions="sinus"),
            "positions='sinus'; did you mean 'sinusoidal'?",
        ),
        (lambda: LlamaConfig(65, 64, 1, 4, 3, 64, 99), "n_head=4 is not divisible by n_kv_head=3"),
        (lambda: LlamaConfig(65, 64, 1, 4, 4, 12, 99), "d_model / n_head = 3; rotary positions"),
        (lambda: LlamaConfig(65, 64, 1, 4, 4, 64, 99, rope_theta=0), "rope_theta=0; it takes"),
        (
            lambda: LlamaConfig(65, 64, 1, 4, 4, 64, 99, rope_theta="1e4"),
            "rope_theta='1e4'; it takes a finite number above 0",
        ),
        (lambda: LlamaConfig(65, 64, 1, 4, 4, 64, 99, norm_eps=None), "norm_eps=None; it takes"),
        (lambda: LlamaConfig(65, 64, 1, 4, 4, 64, 99, qk_norm=1), "qk_norm=1; it takes True or"),
    ],
)
def test_mistakes_are_one_clear_line(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_configurations_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("gpt-tiny").n_layer = 3
    assert set(registry.ARCHITECTURES) == {"gpt", "llama"}
