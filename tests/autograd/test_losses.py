"""Losses: weights, ignored targets, pieces and the whole, and mistakes that are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minillm.autograd.functional as F
from minillm.autograd import Tensor, losses, no_grad
from minillm.errors import GraphError, InputError

rng = np.random.default_rng(0)
X, WEIGHT = rng.standard_normal((6, 4)), rng.standard_normal((5, 4))
TARGETS = np.array([0, 3, -100, 4, 1, 1])
IMPORTANCE = np.array([1.0, 0.5, 9.0, 2.0, 0.0, 1.0])


def leaves() -> tuple[Tensor, Tensor]:
    return Tensor(X, requires_grad=True), Tensor(WEIGHT, requires_grad=True)


def test_the_fused_form_is_the_two_operations_in_one() -> None:
    for how in ({}, {"weights": IMPORTANCE}):
        x, weight = leaves()
        F.cross_entropy(F.linear(x, weight), TARGETS, **how).backward(2.0)
        fused_x, fused_weight = leaves()
        F.linear_cross_entropy(fused_x, fused_weight, TARGETS, **how).backward(2.0)
        np.testing.assert_allclose(fused_x.grad, x.grad, 1e-12, 1e-14)
        np.testing.assert_allclose(fused_weight.grad, weight.grad, 1e-12, 1e-14)


def test_pieces_divided_by_the_whole_add_up_to_the_whole() -> None:
    x, weight = leaves()
    whole = F.linear_cross_entropy(x, weight, TARGETS, IMPORTANCE)
    whole.backward()
    total = IMPORTANCE[TARGETS != -100].sum()
    parts_x, parts_weight = leaves()
    sum_of_parts = 0.0
    for piece in (slice(0, 3), slice(2, 3), slice(3, 6)):
        targets = TARGETS[piece] if piece != slice(2, 3) else np.array([-100])
        part = F.linear_cross_entropy(
            parts_x[piece], parts_weight, targets, IMPORTANCE[piece], normalizer=total
        )
        part.backward()
        sum_of_parts += part.item()
    assert sum_of_parts == pytest.approx(whole.item(), rel=1e-14)
    np.testing.assert_allclose(parts_x.grad, x.grad, 1e-12, 1e-14)
    np.testing.assert_allclose(parts_weight.grad, weight.grad, 1e-12, 1e-14)


def test_the_mean_over_no_tokens_is_zero() -> None:
    nobody = np.full(6, -100)
    for loss in (
        lambda x, w: F.cross_entropy(x @ w.T, nobody),
        lambda x, w: F.linear_cross_entropy(x, w, nobody),
        lambda x, w: F.linear_cross_entropy(x[:0], w, nobody[:0]),
    ):
        x, weight = leaves()
        result = loss(x, weight)
        result.backward()
        assert result.item() == 0
        assert not x.grad.any()
        assert not weight.grad.any()


def test_no_gradients_are_made_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, wanted = losses.linear_cross_entropy_kernel.forward, []

    def forward(x: Any, weight: Any, targets: Any, scale: Any, which: tuple[bool, bool]) -> Any:
        wanted.append(which)
        return kernel(x, weight, targets, scale, which)

    monkeypatch.setattr(losses.linear_cross_entropy_kernel, "forward", forward)
    x, weight = leaves()
    with no_grad():
        quiet = F.linear_cross_entropy(x, weight, TARGETS)
    F.linear_cross_entropy(x.detach(), weight.detach(), TARGETS)
    recorded = F.linear_cross_entropy(x, weight, TARGETS)
    assert wanted == [(False, False), (False, False), (True, True)]
    assert quiet.item() == recorded.item()


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_costs_nothing_and_changes_nothing(frozen: int) -> None:
    expected, both = leaves(), leaves()
    F.linear_cross_entropy(*expected, TARGETS).backward()
    both[frozen].requires_grad = False
    loss = F.linear_cross_entropy(*both, TARGETS)
    loss.backward(retain_graph=True)
    np.testing.assert_array_equal(both[1 - frozen].grad, expected[1 - frozen].grad)
    loss.backward(2.0)
    np.testing.assert_allclose(both[1 - frozen].grad, 3 * expected[1 - frozen].grad, rtol=1e-14)
    assert both[frozen].grad is None


def test_the_kept_gradients_are_scaled_once_per_pass() -> None:
    x, weight = leaves()
    loss = F.linear_cross_entropy(x, weight, TARGETS)
    (loss * 3.0).backward(retain_graph=True)
    three = weight.grad.copy()
    weight.grad[...] = np.nan  # were it the array that the operation keeps, the next would show
    weight.grad = None
    (loss * 3.0).backward()
    np.testing.assert_array_equal(weight.grad, three)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.array([0, 3, -100, 5, 1, 1]), "target id 5, but the vocabulary holds 0 to 4"),
        (np.array([0, 3, -1, 4, 1, 1]), "target id -1, but the vocabulary holds 0 to 4"),
        (np.array([0, 3]), r"targets of shape \(2,\) for predictions of shape \(6,\)"),
        (np.array([0.5] * 6), "whole numbers, but these are float64"),
    ],
)
def test_targets_that_make_no_sense(targets: np.ndarray, message: str) -> None:
    x, weight = leaves()
    with pytest.raises(InputError, match=message):
        F.cross_entropy(x @ weight.T, targets)
    with pytest.raises(InputError, match=message):
        F.linear_cross_entropy(x, weight, targets)


def test_other_mistakes_are_named() -> None:
    x, weight = leaves()
    with pytest.raises(InputError, match="'median'; it takes"):
        F.cross_entropy(x @ weight.T, TARGETS, reduction="median")
    with pytest.raises(InputError, match="sum to 0; give the normalizer"):
        F.linear_cross_entropy(x, weight, TARGETS, np.array([1.0, -1, 5, 0, 0, 0]))
    with pytest.raises(GraphError, match="weights.detach"):
        F.cross_entropy(x @ weight.T, TARGETS, Tensor(IMPORTANCE, requires_grad=True))
    with pytest.raises(InputError, match="token id 5, but the vocabulary holds 0 to 4"):
        F.embedding(weight, [1, 5])
    with pytest.raises(InputError, match="token id -3"):
        F.embedding(weight, [1, -3])
    with pytest.raises(InputError, match="dropout with p = 1.0"):
        F.dropout(x, 1.0, rng)


@pytest.mark.parametrize("normalizer", [3, np.int64(3), np.float64(3)])
def test_a_normalizer_of_any_kind_leaves_the_dtype(normalizer: float) -> None:
    x, weight = (Tensor(np.ones((n, 2), np.float32), requires_grad=True) for n in (4, 3))
    loss = F.linear_cross_entropy(x, weight, np.array([0, 1, 2, 0]), normalizer=normalizer)
    loss.backward()
    assert loss.dtype == x.grad.dtype == weight.grad.dtype == np.float32
    assert loss.item() == pytest.approx(4 / 3 * np.log(3), rel=1e-6)
