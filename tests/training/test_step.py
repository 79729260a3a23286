"""One step: a batch equals its pieces, and everything random follows from the step's number."""

import dataclasses

import numpy as np
import pytest

from minillm.training.step import accumulate, seed_dropout

from . import small


def batch(rows=5):
    rng = np.random.default_rng(3)
    ids = rng.integers(0, small.VOCAB, (rows, small.BLOCK))
    targets = rng.integers(0, small.VOCAB, (rows, small.BLOCK))
    targets[0, :] = -100  # a row without any target
    targets[2, 3:] = -100  # and one with few
    return ids, targets


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_batch_equals_its_pieces_where_they_have_different_numbers_of_targets(rows):
    config = dataclasses.replace(small.CONFIG, dropout=0.0)
    whole = small.model(config=config).astype(np.float64)
    parts = small.model(config=config).astype(np.float64)
    loss = accumulate(whole, batch())
    assert accumulate(parts, batch(), rows) == pytest.approx(loss, rel=1e-12)
    for (name, p), q in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert np.allclose(p.grad, q.grad, rtol=1e-9, atol=1e-12), name


def test_the_loss_is_the_mean_over_targets_that_count():
    config = dataclasses.replace(small.CONFIG, dropout=0.0)
    model = small.model(config=config)
    ids, targets = batch()
    assert accumulate(model, (ids, targets), 2) == pytest.approx(
        model.loss(ids, targets).item(), rel=1e-5
    )


def test_dropout_masks_follow_from_seed_and_step():
    model = small.model().train()
    ids, targets = batch()

    def loss(seed, step):
        seed_dropout(model, seed, step)
        return model.loss(ids, targets).item()

    assert loss(1, 7) == loss(1, 7)
    assert loss(1, 7) != loss(1, 8)
    assert loss(1, 7) != loss(2, 7)
