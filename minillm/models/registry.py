"""Architectures by name, and configurations known by name.

A configuration is saved as a plain dictionary that names its architecture:

>>> config = preset("gpt-tiny", vocab_size=100)
>>> config_to_dict(config)["architecture"]
'gpt'
>>> config_from_dict(config_to_dict(config)) == config
True
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minillm.errors import InputError, nearest
from minillm.models.base import LanguageModel, check_choice
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.llama import Llama, LlamaConfig

Config = GPTConfig | LlamaConfig

ARCHITECTURES: dict[str, tuple[type[Config], Callable[..., LanguageModel]]] = {
    "gpt": (GPTConfig, GPT),
    "llama": (LlamaConfig, Llama),
}


def _gpt2(n_layer: int, n_head: int, d_model: int) -> GPTConfig:
    """A GPT-2 as published (Radford et al. 2019, table 2)."""
    return GPTConfig(50257, 1024, n_layer, n_head, d_model, activation="gelu_tanh")


PRESETS: dict[str, Config] = {
    # for a first look, and for tests: a step takes milliseconds
    "gpt-tiny": GPTConfig(256, 64, n_layer=2, n_head=4, d_model=64),
    "llama-tiny": LlamaConfig(256, 64, n_layer=2, n_head=4, n_kv_head=2, d_model=64, d_ff=176),
    # character-level Shakespeare as nanoGPT trains it, on a CPU and on a GPU
    "gpt-shakespeare-cpu": GPTConfig(65, 64, n_layer=4, n_head=4, d_model=128, bias=False),
    "gpt-shakespeare": GPTConfig(65, 256, 6, 6, 384, dropout=0.2, bias=False),
    # the decoder half of the original Transformer's base model (Vaswani et al. 2017, table 3)
    "transformer-base": GPTConfig(
        37000, 512, n_layer=6, n_head=8, d_model=512, dropout=0.1,
        activation="relu", norm="post", positions="sinusoidal",
    ),
    "gpt2-124m": _gpt2(12, 12, 768),
    "gpt2-medium": _gpt2(24, 16, 1024),
    "gpt2-large": _gpt2(36, 20, 1280),
    "gpt2-xl": _gpt2(48, 25, 1600),
    # story-telling sizes, of the shapes that llama2.c made popular
    "llama-15m": LlamaConfig(32000, 256, 6, 6, 6, d_model=288, d_ff=768),
    "llama-110m": LlamaConfig(32000, 1024, 12, 12, 12, d_model=768, d_ff=2048),
    "llama-1.2b": LlamaConfig(
        128256, 4096, n_layer=16, n_head=32, n_kv_head=8, d_model=2048, d_ff=8192,
        rope_theta=500000.0,
    ),
}  # fmt: skip


def preset(name: str, **changes: Any) -> Config:
    """The configuration called `name`, with `changes` to its fields; raises `InputError`."""
    if name not in PRESETS:
        raise InputError(f"no preset is called {name!r}{nearest(name, PRESETS)}")
    config = PRESETS[name]
    _check_names(changes, config)
    return dataclasses.replace(config, **changes)


def build(
    config: Config, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> LanguageModel:
    """The model of shape `config`; without an `rng` it waits for `load_state_dict`."""
    for config_class, model_class in ARCHITECTURES.values():
        if type(config) is config_class:
            return model_class(config, rng, dtype)
    raise InputError(f"no model is built from a {type(config).__name__}")


def config_to_dict(config: Config) -> dict[str, Any]:
    """`config` as JSON values, with its "architecture"."""
    names = [name for name, (kind, _) in ARCHITECTURES.items() if type(config) is kind]
    return {"architecture": names[0], **dataclasses.asdict(config)}


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """The configuration that `config_to_dict` described.

    Raises `InputError` for an unknown architecture or setting, and for values that do not fit.
    """
    settings = dict(values)
    architecture = settings.pop("architecture", None)
    check_choice("architecture", architecture, tuple(ARCHITECTURES))
    config_class = ARCHITECTURES[architecture][0]
    _check_names(settings, config_class)
    required = {
        f.name for f in dataclasses.fields(config_class) if f.default is dataclasses.MISSING
    }
    if missing := sorted(required - set(settings)):
        raise InputError(f"a {architecture} needs {', '.join(missing)}")
    return config_class(**settings)


def _check_names(settings: Mapping[str, Any], config: Any) -> None:
    """Raise `InputError`, with the nearest name, for a setting that `config` does not have."""
    known = [field.name for field in dataclasses.fields(config)]
    for name in settings:
        if name not in known:
            raise InputError(f"the model has no setting {name!r}{nearest(name, known)}")
