"""What the laws measure with must itself be right: differences, copies, the same ids each time."""

import math

import numpy as np
import pytest

from minillm.evaluation.subjects import (
    Subject,
    compare,
    difference,
    gradients,
    largest,
    small_subjects,
)

SUBJECTS = small_subjects()


def test_a_difference_is_a_share_of_the_largest_number_above_one():
    assert difference(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.0
    assert difference(np.array([0.1]), np.array([0.3])) == pytest.approx(0.2)
    assert difference(np.array([100.0, 1.0]), np.array([100.0, 2.0])) == pytest.approx(0.01)
    assert difference(np.empty(0), np.empty(0)) == 0.0


def test_no_shape_and_no_nan_is_overlooked():
    assert difference(np.ones(3), np.ones(1)) == math.inf
    assert math.isnan(difference(np.array([np.nan]), np.array([1.0])))
    assert math.isnan(largest([0.5, math.nan, 0.1]))
    assert largest([]) == 0.0
    same = {"a": np.ones(2)}
    assert compare({"a": np.ones(2), "more": np.ones(1)}, same) == 0.0
    with pytest.raises(KeyError):
        compare({}, same)


def test_a_difference_of_one_bit_is_one():
    one = np.float32(1.0)
    assert 0 < difference(np.nextafter(one, np.float32(2)), one) < 2e-7


@pytest.mark.parametrize("subject", SUBJECTS, ids=[s.name for s in SUBJECTS])
def test_ids_are_the_same_each_time_and_fit(subject):
    ids = subject.ids(3, 1000)
    assert ids.shape == (3, subject.model.config.block_size)
    assert np.array_equal(ids, subject.ids(3, 1000))
    assert 0 <= ids.min() <= ids.max() < subject.model.config.vocab_size


@pytest.mark.parametrize("subject", SUBJECTS, ids=[s.name for s in SUBJECTS])
def test_a_copy_is_equal_and_apart(subject):
    twin = subject.copy()
    theirs = subject.model.state_dict()
    assert compare(twin.state_dict(), theirs) == 0.0
    for weight in twin.parameters():
        weight.data = weight.numpy() + 1
    assert compare(twin.state_dict(), subject.copy().state_dict()) > 0.1
    assert compare(subject.copy().state_dict(), theirs) == 0.0


def test_a_copy_keeps_the_precision():
    model = SUBJECTS[0].copy().astype(np.float64)
    assert Subject("wide", model).copy().output_weight.dtype == np.float64


def test_gradients_are_copies_and_are_forgotten():
    model = SUBJECTS[0].copy().eval()
    ids = SUBJECTS[0].ids(1, 5)
    model.loss(ids, ids).backward()
    found = gradients(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert any(np.abs(array).max() > 0 for array in found.values())
    assert all(weight.grad is None for weight in model.parameters())
    assert gradients(model) == {}
