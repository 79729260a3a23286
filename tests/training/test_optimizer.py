"""AdamW against PyTorch's, clipping, and what decays."""

import numpy as np
import pytest

from minillm.autograd import Tensor
from minillm.errors import CheckpointError, GraphError
from minillm.training.optimizer import AdamW, clip_scale, global_norm

SHAPES = {"matrix": (5, 7), "bias": (7,), "scalar": (), "table": (3, 4, 2)}


def parameters(dtype=np.float64):
    rng = np.random.default_rng(0)
    return {
        name: Tensor(np.asarray(rng.standard_normal(shape), dtype), requires_grad=True)
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ten_steps_and_clipping_equal_pytorch(dtype):
    torch = pytest.importorskip("torch")
    ours = parameters(dtype)
    theirs = {name: torch.tensor(p.numpy().copy(), requires_grad=True) for name, p in ours.items()}
    decayed = [p for p in theirs.values() if p.ndim >= 2]
    plain = [p for p in theirs.values() if p.ndim < 2]
    judge = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.3}, {"params": plain, "weight_decay": 0.0}],
        lr=0.01, betas=(0.8, 0.95), eps=1e-8,
    )  # fmt: skip
    optimizer = AdamW(ours.items(), 0.01, (0.8, 0.95), 1e-8, 0.3)
    rng = np.random.default_rng(1)
    for step in range(10):
        lr = 0.01 * (step + 1)
        for name, p in ours.items():
            p.grad = np.asarray(rng.standard_normal(p.shape) * 3, dtype)
            theirs[name].grad = torch.tensor(p.grad.copy())
        for group in judge.param_groups:
            group["lr"] = lr
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 1.5)
        assert global_norm(ours.values()) == pytest.approx(float(norm), rel=1e-6)
        optimizer.step(lr, clip_scale(global_norm(ours.values()), 1.5))
        judge.step()
    for name, p in ours.items():
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        assert np.allclose(p.numpy(), theirs[name].detach().numpy(), rtol=tolerance, atol=tolerance)
        assert p.dtype == dtype


def test_only_arrays_with_two_axes_or_more_decay():
    weights = parameters()
    before = {name: p.numpy().copy() for name, p in weights.items()}
    optimizer = AdamW(weights.items(), lr=0.1, weight_decay=0.5)
    for p in weights.values():
        p.grad = np.zeros(p.shape)
    optimizer.step()
    for name, p in weights.items():
        factor = 1 - 0.1 * 0.5 if p.ndim >= 2 else 1.0
        assert np.allclose(p.numpy(), before[name] * factor), name


def test_a_parameter_without_gradient_stays():
    weights = parameters()
    before = weights["matrix"].numpy().copy()
    AdamW(weights.items()).step()
    assert np.array_equal(weights["matrix"].numpy(), before)


def test_state_goes_out_and_in_again():
    first, second = parameters(), parameters()
    a, b = AdamW(first.items()), AdamW(second.items())
    for p in first.values():
        p.grad = np.ones(p.shape)
    a.step()
    for name, p in second.items():
        p.data = first[name].numpy().copy()
    b.load_state_dict({name: x.copy() for name, x in a.state_dict().items()}, a.steps)
    for p in (*first.values(), *second.values()):
        p.grad = np.full(p.shape, 2.0)
    a.step()
    b.step()
    for name in SHAPES:
        assert np.array_equal(first[name].numpy(), second[name].numpy())


def test_foreign_state_is_refused():
    optimizer = AdamW(parameters().items())
    state = optimizer.state_dict()
    with pytest.raises(CheckpointError, match="'m.bias' has shape"):
        optimizer.load_state_dict({**state, "m.bias": np.zeros(3)}, 1)
    with pytest.raises(CheckpointError, match="of another model"):
        optimizer.load_state_dict({k: v for k, v in state.items() if k != "v.matrix"}, 1)


def test_refused_state_changes_nothing():
    optimizer = AdamW(parameters().items())
    state = {key: np.ones_like(array) for key, array in optimizer.state_dict().items()}
    with pytest.raises(CheckpointError, match="'v.table' has shape"):
        optimizer.load_state_dict({**state, "v.table": np.ones(3)}, 1)
    assert optimizer.steps == 0
    assert not any(array.any() for array in optimizer.state_dict().values())


def test_a_weight_that_a_graph_still_needs_is_not_changed():
    weights = parameters()
    loss = (weights["matrix"] * weights["matrix"]).sum()
    weights["matrix"].grad = np.ones(SHAPES["matrix"])
    with pytest.raises(GraphError):
        AdamW({"matrix": weights["matrix"]}.items()).step()
    loss.backward()


def test_no_clipping_below_the_limit_or_without_one():
    assert clip_scale(0.5, 1.0) == 1.0
    assert clip_scale(50.0, 0.0) == 1.0
    assert clip_scale(4.0, 1.0) == pytest.approx(0.25, rel=1e-5)
