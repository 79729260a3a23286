"""Modules find their parameters by name, and load only what fits."""

import numpy as np
import pytest

from minillm.autograd import Tensor
from minillm.errors import CheckpointError
from minillm.nn import Dropout, Linear, Module, Parameter


class Net(Module):
    """A tied weight, a list of parts, a shared dropout and a constant table."""

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self.first = Linear(3, 3, rng=rng)
        self.layers = [Linear(3, 3, bias=False, rng=rng) for _ in range(2)]
        self.tied = self.first
        self.dropout = self.again = Dropout(0.5, rng)
        self.table = Tensor([1.0, 2.0])


NAMES = ["first.weight", "first.bias", "layers.0.weight", "layers.1.weight"]


@pytest.fixture
def net():
    return Net(np.random.default_rng(0))


def test_each_parameter_is_found_once_in_the_order_made(net):
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert net.num_parameters() == 9 + 3 + 9 + 9
    assert [name for name, _ in net.named_modules()] == [
        "", "first", "layers.0", "layers.1", "dropout",
    ]  # fmt: skip


def test_train_and_eval_reach_every_part(net):
    net.eval()
    assert not any(module.training for _, module in net.named_modules())
    assert net.train() is net
    assert net.dropout.training and net.layers[1].training


@pytest.mark.parametrize("mode", [True, False])
def test_evaluating_puts_the_mode_back_after_an_error_too(net, mode):
    net.train(mode)
    with pytest.raises(KeyboardInterrupt), net.evaluating():
        assert not any(module.training for _, module in net.named_modules())
        raise KeyboardInterrupt
    assert all(module.training is mode for _, module in net.named_modules())


def test_a_parameter_adopts_its_array():
    array = np.ones((2, 2), np.float32)
    parameter = Parameter(array)
    assert parameter.array is array and parameter.requires_grad and parameter.is_filled


def test_unfilled_parameters_take_no_memory_and_are_nan():
    parameter = Parameter.unfilled((1000, 1000, 1000))  # 4 GB if it were real
    assert parameter.array.strides == (0, 0, 0) and not parameter.is_filled
    assert np.isnan(parameter.array[1, 2, 3])


def test_state_goes_round(net):
    other = Net()
    other.load_state_dict(net.state_dict())
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
        assert not np.shares_memory(other.state_dict()[name], array)


def test_loaded_arrays_lie_in_order_however_they_came(net):
    other = Net()
    state = {name: np.asfortranarray(array) for name, array in net.state_dict().items()}
    other.load_state_dict(state)
    assert all(array.flags.c_contiguous for array in other.state_dict().values())


def test_loading_converts_to_the_parameters_dtype(net):
    wide = Net().astype(np.float64)
    wide.load_state_dict(net.state_dict())
    assert {p.dtype for p in wide.parameters()} == {np.dtype(np.float64)}


def test_astype_converts_tables_too(net):
    net.astype(np.float64)
    assert net.table.dtype == np.float64 and net.first.weight.dtype == np.float64
    assert not Net().astype(np.float64).first.weight.is_filled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("first.bias"), "'first.bias' is of this Net not found"),
        (lambda s: (s.pop("first.bias"), s.pop("first.weight")), "'first.weight' and 1 more are"),
        (
            lambda s: s.update(odd=s["first.bias"]),
            "'odd' is among the weights, but not in this Net",
        ),
        (
            lambda s: s.update({"layers.0.weight": np.zeros((3, 4))}),
            r"layers.0.weight has shape \(3, 4\) among the weights, but \(3, 3\) in this Net",
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(net, change, message):
    other = Net(np.random.default_rng(1))
    before = {name: array.copy() for name, array in other.state_dict().items()}
    state = net.state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        other.load_state_dict(state)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_zero_grad_forgets_all(net):
    (net.first.weight * 2.0).sum().backward()
    assert net.first.weight.grad is not None
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
