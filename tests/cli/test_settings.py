"""Settings from recipes and flags: one set of names, types and answers."""

from dataclasses import dataclass
from typing import Literal

import pytest

from minillm.cli import settings
from minillm.cli.plan import Plan, of_recipe
from minillm.cli.settings import Typed
from minillm.errors import InputError


@dataclass
class Model:
    n_layer: int  # how deep
    d_ff: int | None = None
    bias: bool = True
    dropout: float = 0.0


@dataclass
class Train:
    lr: float = 1e-3  # how fast
    schedule: Literal["cosine", "linear"] = "cosine"
    name: str = "run"
    parts: tuple[int, ...] = (1, 2)


SECTIONS = {"model": Model, "train": Train}


def build(**values):
    return settings.build(
        SECTIONS, {"model.n_layer": 2} | {k.replace("__", "."): v for k, v in values.items()}
    )


def test_text_and_toml_values_come_to_the_same():
    typed = settings.Typed
    from_flags = build(
        model__n_layer=typed("6"), model__bias=typed("false"), model__d_ff=typed("none"),
        train__lr=typed("3e-4"), train__schedule=typed("linear"), train__parts=typed("3,4"),
    )  # fmt: skip
    from_toml = build(
        model__n_layer=6, model__bias=False, train__lr=3e-4, train__schedule="linear",
        train__parts=[3, 4],
    )  # fmt: skip
    assert from_flags == from_toml
    assert from_flags["train"].parts == (3, 4)
    assert build(train__lr=1)["train"].lr == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model__n_layers": 3}, "unknown setting 'model.n_layers'; did you mean 'model.n_layer'?"),
        ({"train__bias": True}, "unknown setting 'train.bias'; did you mean 'model.bias'?"),
        ({"modle__n_layer": 3}, "did you mean 'model.n_layer'?"),
        ({"zzz__qqq": 3}, "unknown setting 'zzz.qqq'; there are model.n_layer, "),
        ({"model__n_layer": Typed("six")}, "'model.n_layer' takes a whole number, not 'six'"),
        ({"model__n_layer": "6"}, "a whole number, not '6' in quotes, which make it text"),
        ({"model__bias": "true"}, "true or false, not 'true' in quotes, which make it text"),
        ({"train__lr": "0.1"}, "'train.lr' takes a number, not '0.1' in quotes"),
        ({"train__lr": 10**400}, "'train.lr' takes a number, not 1000"),
        ({"train__parts": 3}, "'train.parts' takes a list, not 3"),
        ({"model__n_layer": 2.5}, "'model.n_layer' takes a whole number, not 2.5"),
        ({"model__n_layer": True}, "'model.n_layer' takes a whole number, not True"),
        ({"model__bias": Typed("maybe")}, "'model.bias' takes true or false, not 'maybe'"),
        ({"train__lr": Typed("fast")}, "'train.lr' takes a number, not 'fast'"),
        ({"train__lr": False}, "'train.lr' takes a number, not False"),
        ({"train__lr": settings.NO_VALUE}, "'train.lr' needs a value"),
        ({"model__d_ff": settings.NO_VALUE}, "'model.d_ff' needs a value"),
        ({"train__schedule": settings.NO_VALUE}, "'train.schedule' needs a value"),
        ({"train__name": settings.NO_VALUE}, "'train.name' needs a value"),
        ({"train__parts": settings.NO_VALUE}, "'train.parts' needs a value"),
        ({"train__name": 3}, "'train.name' takes text, not 3"),
        ({"train__schedule": "cosin"}, "'train.schedule' is 'cosin'; did you mean 'cosine'?"),
        ({"train__schedule": "zzz"}, "'train.schedule' is 'zzz'; there are cosine, linear"),
        ({"train__parts": Typed("1,x")}, "'train.parts' takes a whole number, not 'x'"),
    ],
)
def test_a_mistake_names_the_nearest(values, message):
    with pytest.raises(InputError) as caught:
        build(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_is_missing():
    with pytest.raises(InputError, match="'model.n_layer' is needed, or model.preset"):
        settings.build(SECTIONS, {})


def test_flags_are_taken_out_of_the_command_line():
    words = ["train", "r.toml", "--model.bias=false", "--train.lr", "-1", "--x", "--", "--a.b", "c"]
    rest, found = settings.split_flags(words)
    assert rest == ["train", "r.toml", "--x", "--", "--a.b", "c"]
    assert found == {"model.bias": "false", "train.lr": "-1"}


def test_a_flag_that_stands_alone_sets_what_is_true_or_false():
    _, found = settings.split_flags(["--model.bias", "--model.n-layer", "3"])
    assert settings.build(SECTIONS, found)["model"] == Model(3, bias=True)
    assert settings.build(SECTIONS, {**found, "model.bias": Typed("false")})["model"].bias is False


def test_recipes(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nn-layer = 3\n[train]\nlr = 0.5\n")
    assert settings.read_recipe(path) == {"model.n_layer": 3, "train.lr": 0.5}
    assert settings.find_recipe(str(path)) == path
    with pytest.raises(InputError, match="did you mean 'shakespeare-cpu'"):
        settings.find_recipe("shakespear-cpu")
    for text, message in [
        ("[model\n", "is not a TOML recipe"),
        ("lr = 1\n", "'lr' stands outside a section"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            settings.read_recipe(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a TOML recipe"):
        settings.read_recipe(path)


@pytest.mark.parametrize("path", sorted(settings.RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_that_ships_is_valid(path):
    plan = Plan.read(of_recipe(path))
    assert Plan.read(settings.flatten(plan.to_dict())) == plan


def test_nanogpts_cpu_settings():
    plan = Plan.read(settings.read_recipe(settings.find_recipe("shakespeare-cpu")))
    model, train = plan.model_for(65), plan.train
    assert (model.n_layer, model.n_head, model.d_model, model.block_size) == (4, 4, 128, 64)
    assert (model.dropout, model.bias, model.tie_weights) == (0.0, False, True)
    assert (train.batch_size, train.steps, train.warmup, train.clip) == (12, 2001, 100, 1.0)
    assert (train.lr, train.min_lr, train.schedule) == (3e-3, 1e-4, "cosine")  # nanoGPT: 1e-3
    assert (train.beta1, train.beta2, train.eps, train.weight_decay) == (0.9, 0.99, 1e-8, 0.1)
    assert plan.data.validation == 0.1


def test_presets_and_architectures():
    plan = Plan.read({"model.preset": "llama-tiny", "model.n_layer": Typed("3")})
    assert type(plan.model).__name__ == "LlamaConfig"
    assert (plan.model.n_layer, plan.vocab_size) == (3, None)
    assert plan.model_for(77).vocab_size == 77
    padded = Plan.read({"model.preset": "gpt-tiny", "model.vocab_size": 64})
    assert padded.model_for(60).vocab_size == 64
    with pytest.raises(InputError, match="model.vocab_size is 64, but the tokenizer has 65 ids"):
        padded.model_for(65)
    for values, message in [
        ({"model.preset": "gpt-tny"}, "did you mean 'gpt-tiny'"),
        ({"model.architecture": "lama"}, "did you mean 'llama'"),
        (
            {"model.preset": "gpt-tiny", "model.rope_theta": 1.0},
            "unknown setting 'model.rope_theta'",
        ),
        ({"model.preset": "gpt-tiny", "model.n_head": 3}, "not divisible by n_head=3"),
    ]:
        with pytest.raises(InputError, match=message):
            Plan.read(values)


def test_the_list_of_settings_has_defaults_and_comments():
    text = settings.describe(SECTIONS)
    assert "--model.n-layer " in text
    assert "how deep" in text
    assert "--train.lr = 0.001" in text
    assert "how fast" in text
    assert "--model.bias = true" in text
