"""Layers: how they start, and that they call the operation they are named for."""

import numpy as np
import pytest

from minillm.autograd import Tensor
from minillm.autograd import functional as F
from minillm.errors import InputError
from minillm.nn import Dropout, Embedding, LayerNorm, Linear, RMSNorm


def rng(seed=0):
    return np.random.default_rng(seed)


def x(*shape):
    return Tensor(rng(1).standard_normal(shape, dtype=np.float32))


def test_weights_start_as_gpt2s():
    layer = Linear(400, 300, rng=rng(), std=0.05)
    assert layer.weight.shape == (300, 400) and layer.weight.dtype == np.float32
    assert abs(layer.weight.array.std() - 0.05) < 1e-3 and abs(layer.weight.array.mean()) < 1e-3
    assert not layer.bias.array.any()
    assert abs(Embedding(300, 400, rng()).weight.array.std() - 0.02) < 4e-4
    np.testing.assert_array_equal(Linear(3, 2, rng=rng(5)).weight.array,
                                  Linear(3, 2, rng=rng(5)).weight.array)  # fmt: skip


def test_linear_multiplies_by_the_transposed_weight():
    layer = Linear(4, 3, rng=rng())
    layer.bias.array[:] = [1, 2, 3]
    expected = x(2, 5, 4).array @ layer.weight.array.T + [1, 2, 3]
    np.testing.assert_allclose(layer(x(2, 5, 4)).array, expected, rtol=1e-6)
    assert Linear(4, 3, bias=False, rng=rng()).bias is None


def test_embedding_picks_rows():
    layer, ids = Embedding(7, 3, rng()), np.array([[0, 6], [6, 2]])
    np.testing.assert_array_equal(layer(ids).array, layer.weight.array[ids])


def test_norms_standardise_each_vector():
    y = LayerNorm(64)(x(5, 64) * 3.0 + 2.0).array
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-3)
    y = RMSNorm(64)(x(5, 64) * 3.0).array
    np.testing.assert_allclose((y * y).mean(-1), 1, atol=1e-5)
    assert LayerNorm(64, bias=False).bias is None


def test_dropout_acts_only_while_training():
    layer, ones = Dropout(0.25, rng()), Tensor(np.ones((100, 100), np.float32))
    assert layer.eval()(ones) is ones and Dropout(0.0)(ones) is ones
    y = layer.train()(ones).array
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.03


def test_the_same_generator_gives_the_same_masks():
    layer = Dropout(0.5)
    masks = []
    for _ in range(2):
        layer.rng = rng(3)
        masks.append(layer(x(4, 50)).array)
    np.testing.assert_array_equal(*masks)
    np.testing.assert_array_equal(masks[0], F.dropout(x(4, 50), 0.5, rng(3)).array)


def test_dropout_without_a_generator_says_so():
    with pytest.raises(InputError, match="dropout of 0.5 has no random generator"):
        Dropout(0.5)(x(2, 2))
