"""Batches: every window once an epoch, in an order that follows from seed and step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.batches import Batches
from minillm.data.shards import TokenDataset, write_tokens
from minillm.errors import InputError


def dataset(folder, count):
    write_tokens(folder, "train", np.arange(count), max(count, 1))
    return TokenDataset(folder, "train")


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 7), st.integers(0, 3))
def test_an_epoch_visits_every_window_once(tmp_path_factory, count, block, rows, seed):
    if count < block + 1:
        return
    data = dataset(tmp_path_factory.mktemp("shards"), count)
    batches = Batches(data, rows, block, seed)
    served = [batches.batch(step) for step in range(-(-3 * batches.windows // rows))]
    starts = np.concatenate([ids[:, 0] for ids, _ in served])
    for epoch in range(3):  # token k of this text is the number k, so a window shows its place
        mine = np.sort(starts[epoch * batches.windows : (epoch + 1) * batches.windows])
        assert len(set(mine.tolist())) == batches.windows
        assert (np.diff(mine) == block).all()  # side by side: no overlap, no gap
    for ids, targets in served:
        assert ids.shape == targets.shape == (rows, block)
        assert np.array_equal(targets, ids + 1)


def test_a_batch_does_not_depend_on_the_batches_before_it(tmp_path):
    data = dataset(tmp_path, 500)
    in_order = Batches(data, 4, 10, seed=1)
    expected = [in_order.batch(step)[0] for step in range(40)]
    for step in (39, 3, 17, 0):
        assert np.array_equal(Batches(data, 4, 10, seed=1).batch(step)[0], expected[step])
    assert not np.array_equal(Batches(data, 4, 10, seed=2).batch(0)[0], expected[0])


def test_epochs_differ_in_order_and_in_where_they_cut(tmp_path):
    batches = Batches(dataset(tmp_path, 500), 1, 10, seed=0)
    epochs = [
        [int(batches.batch(e * batches.windows + i)[0][0, 0]) for i in range(batches.windows)]
        for e in range(4)
    ]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({min(epoch) % 10 for epoch in epochs}) > 1


def test_a_text_shorter_than_one_context_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"train split has 10 tokens, but one context needs 11"):
        Batches(dataset(tmp_path, 10), 2, 10, seed=0)


def test_a_batch_too_large_for_memory_is_refused_before_it_fills_it(tmp_path):
    with pytest.raises(MemoryError):
        Batches(dataset(tmp_path, 20), 10**14, 4, seed=0).batch(0)
