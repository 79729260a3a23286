"""gradcheck finds a wrong gradient and says whose it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minillm.autograd.functional as F
from minillm.autograd import Tensor, checkpoint
from minillm.autograd.gradcheck import GradientError, gradcheck
from minillm.autograd.tensor import record
from minillm.errors import InputError, MiniLLMError


def cube(x: Tensor, wrong_at: Any = None, factor: float = 1.001) -> Tensor:
    a = x.array

    def backward(dout: np.ndarray) -> tuple[np.ndarray]:
        dx = dout * 3 * a**2
        if wrong_at:
            dx[wrong_at] *= factor
        return (dx,)

    return record("cube", a**3, (x,), backward)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_right_gradient_passes_with_a_small_difference() -> None:
    assert gradcheck(cube, [normal(3, 4)]) < 1e-8
    assert gradcheck(lambda a, b: (F.linear(a, b), a.exp()), [normal(2, 3), normal(4, 3)]) < 1e-8


def test_the_error_names_the_operation_the_index_and_both_numbers() -> None:
    def function(x: Tensor, weight: Tensor) -> Tensor:
        return F.gelu(cube((x @ weight).tanh() + 2, wrong_at=(1, 2))) * weight[0]

    with pytest.raises(GradientError) as caught:
        gradcheck(function, [normal(3, 4), normal(4, 4, seed=1)])
    assert isinstance(caught.value, MiniLLMError)
    message = str(caught.value)
    assert "backward of 'cube' (its input 0)" in message
    assert "index (1, 2)" in message
    assert "argument 0" in message
    words = message.replace(",", "").replace(";", "").split()
    ours, expected = float(words[words.index("is", 12) + 1]), float(words[words.index("give") + 1])
    assert ours == pytest.approx(1.001 * expected, rel=1e-5)


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.01, float("nan")])
def test_one_wrong_element_of_many_is_found(factor: float) -> None:
    with pytest.raises(GradientError, match=r"'cube'.*index \(17, 23\)"):
        gradcheck(lambda x: cube(x, (17, 23), factor), [normal(40, 50)])


def test_a_function_that_is_not_a_number_does_not_pass() -> None:
    with np.errstate(invalid="ignore"), pytest.raises(GradientError, match="give nan"):
        gradcheck(lambda x: x.log(), [np.array([-1.0, 1.0])])


def test_a_missing_gradient_is_found() -> None:
    def forgetful(x: Tensor) -> Tensor:
        return record("forgetful", x.array * 2, (x,), lambda dout: (None,))

    with pytest.raises(GradientError, match=r"gradient is 0, .* differences give"):
        gradcheck(lambda x: forgetful(x) + 0.0 * x, [normal(3)])


def test_kinks_are_no_errors_but_wrong_slopes_are() -> None:
    x = normal(200)
    x[:50] = np.linspace(-2e-5, 2e-5, 50)  # within reach of the largest steps
    gradcheck(F.relu, [x[50:]])

    def leaky(a: Tensor) -> Tensor:
        values = a.array
        return record("leaky", np.maximum(values, 0), (a,), lambda d: (d * (values > -0.5),))

    with pytest.raises(GradientError, match="'leaky'"):
        gradcheck(leaky, [x])


@pytest.mark.parametrize(
    ("function", "kink"),
    [(F.relu, 0.0), (lambda x: F.relu((3 * x).exp() - 1), 0.0), (lambda x: F.relu(2 - x), 2.0)],
)
def test_exactly_at_a_kink_the_error_says_that_it_is_one(function: Any, kink: float) -> None:
    x = np.array([[0.5, 1.0], [kink, 4.0]])
    with pytest.raises(GradientError, match=r"no derivative at index \(1, 0\).*a kink") as caught:
        gradcheck(function, [x])
    assert "wrong" not in str(caught.value)
    gradcheck(function, [x + 0.1])


def test_a_steep_smooth_slope_is_no_kink() -> None:
    with pytest.raises(GradientError, match="backward of 'cube'.* is wrong"):
        gradcheck(lambda x: cube((300 * x).tanh(), 1, 1.5), [np.array([0.5, 0.001, 0.0])])


def test_the_difference_is_reported_on_the_scale_of_the_gradient() -> None:
    def slightly_off(x: Tensor) -> Tensor:
        return record("off", x.array * 2, (x,), lambda dout: (dout * 2 * (1 + 5e-8),))

    for scale in (1e-6, 1.0, 1e6):
        difference = gradcheck(lambda x, s=scale: slightly_off(x) * s, normal(30))
        assert 1e-9 < difference < 5e-8


def test_integers_and_other_arguments_are_handed_on() -> None:
    ids = np.array([1, 0, 1])
    gradcheck(lambda weight, rows: F.embedding(weight, rows), [normal(2, 3), ids])
    gradcheck(lambda weight: F.embedding(weight, ids), [normal(2, 3)])
    constant = Tensor(np.float32([3.0]))
    gradcheck(lambda a, c: a * c, [normal(2), constant])


def test_dropout_and_checkpoints_inside() -> None:
    rng = np.random.default_rng(0)

    def function(x: Tensor) -> Tensor:
        return checkpoint(lambda a: F.dropout(a.tanh(), 0.5, rng) * a, x)

    gradcheck(function, [normal(4, 5)])

    def wrong(x: Tensor) -> Tensor:
        return checkpoint(lambda a: cube(F.dropout(a, 0.5, rng), 1, 2.0) * a, x)

    with pytest.raises(GradientError, match="'checkpoint'"):
        gradcheck(wrong, [normal(4, 5)])


def test_what_cannot_be_checked_says_so() -> None:
    with pytest.raises(InputError, match="no input is a floating-point array"):
        gradcheck(lambda ids: Tensor(ids), [np.array([1])])
    with pytest.raises(InputError, match="does not depend on any input"):
        gradcheck(lambda x: x.detach(), [normal(3)])
    with pytest.raises(InputError, match="the result is float32"):
        gradcheck(lambda x: x.astype(np.float32), [normal(3)])
    for nothing in (3.0, None, np.ones(3)):
        kind = type(nothing).__name__
        with pytest.raises(InputError, match=f"tensor or several, .* returned a {kind}"):
            gradcheck(lambda x, result=nothing: result, [normal(3)])
        with pytest.raises(InputError, match=f"returned a {kind}"):
            gradcheck(lambda x, result=nothing: (x, result), normal(3))


class Linear:
    """The least that counts as a model."""

    def __init__(self, wrong: bool = False) -> None:
        self.weight = Tensor(normal(3, 3).astype(np.float32), requires_grad=True)
        self.table = Tensor(normal(3, seed=2).astype(np.float32))
        self.wrong = (2, 1) if wrong else None

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        return [("layer.weight", self.weight)]

    def named_tensors(self) -> list[tuple[str, Tensor]]:
        return [*self.named_parameters(), ("table", self.table)]

    def astype(self, dtype: Any) -> None:
        for _, tensor in self.named_tensors():
            tensor.array = tensor.array.astype(dtype)
            tensor.grad = None

    def loss(self, x: np.ndarray, targets: np.ndarray) -> Tensor:
        hidden = cube(Tensor(x.astype(np.float64)) @ self.weight + self.table, self.wrong)
        return F.cross_entropy(hidden, targets)


def test_a_model_is_checked_in_float64_and_left_as_it_was() -> None:
    model = Linear()
    weight, model.weight.grad = model.weight.array, np.ones((3, 3), np.float32)
    batch = normal(3, 3, seed=3), np.array([0, 2, 1])
    assert gradcheck(model, batch) < 1e-7
    assert model.weight.array is weight
    assert model.weight.grad.dtype == np.float32
    with pytest.raises(GradientError, match=r"'cube'.*\(2, 1\).*parameter 'layer.weight'"):
        gradcheck(Linear(wrong=True), batch)
