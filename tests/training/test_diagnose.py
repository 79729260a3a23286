"""The first bad number is found where it arose, not where it was noticed."""

import dataclasses

import numpy as np
import pytest

from minillm.kernels import layer_norm
from minillm.training.diagnose import first_bad, is_finite

from . import small


def batch():
    ids = np.random.default_rng(0).integers(0, small.VOCAB, (2, small.BLOCK))
    return ids, np.roll(ids, -1, axis=1)


def model():
    return small.model(config=dataclasses.replace(small.CONFIG, dropout=0.0)).train()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_bad_itself_comes_before_all(bad):
    broken = model()
    weight = broken.blocks[1].mlp.up.weight
    values = weight.numpy().copy()
    values[3, 5] = bad
    weight.data = values
    assert first_bad(broken, [batch()]) == "the weight blocks.1.mlp.up.weight itself"


@pytest.mark.parametrize("layer", [0, 1])
def test_activations_are_named_by_the_layer_that_made_the_first_bad_one(layer):
    broken = model()
    shape = broken.blocks[layer].mlp.up.weight.shape
    broken.blocks[layer].mlp.up.weight.data = np.full(shape, 1e38, np.float32)
    found = first_bad(broken, [batch()])
    assert found == f"the activations of 'feed_forward' at blocks.{layer}.mlp.up"


def test_a_gradient_is_named_where_all_activations_are_finite(monkeypatch):
    true = layer_norm.backward

    def overflowing(*arguments):
        dx, *rest = true(*arguments)
        return dx * np.float32(np.inf), *rest

    monkeypatch.setattr(layer_norm, "backward", overflowing)
    with np.errstate(all="ignore"):
        found = first_bad(model(), [batch()])
    assert found.startswith("the gradient of '")
    assert "blocks.1" in found  # the last layer's: the walk comes from the loss


def test_the_piece_that_is_bad_is_looked_for():
    """Only the second piece is long enough to meet the bad position."""
    broken = model()
    table = broken.position_embedding.weight.numpy().copy()
    table[10] = 3e38
    broken.position_embedding.weight.data = table
    ids, targets = batch()
    short = ids[:, :5], targets[:, :5]
    with np.errstate(all="ignore"):
        alone = first_bad(broken, [(ids, targets)])
        assert first_bad(broken, [short, (ids, targets)]) == alone
        assert first_bad(broken, [short]) == "the sum over the pieces of the batch"
    assert alone.startswith("the activations of ")


def test_a_sound_batch_leaves_only_the_sum_and_nothing_is_changed():
    sound = model()
    sound.recompute = True
    before = small.bits(sound)
    assert first_bad(sound, [batch(), batch()]) == "the sum over the pieces of the batch"
    assert sound.recompute
    assert small.bits(sound) == before
    assert all(weight.grad is None for weight in sound.parameters())


def test_finite_is_neither_nan_nor_infinite():
    assert is_finite(np.array([0.0, -1e308])) and is_finite(np.empty(0))
    assert not any(is_finite(np.array([0.0, bad])) for bad in (np.nan, np.inf, -np.inf))
