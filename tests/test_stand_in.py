"""The references would run on a GPU: they run on arrays with CuPy's functions and nothing else."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm import backend, kernels
from minillm.autograd import Tensor, checkpoint
from minillm.autograd.gradcheck import gradcheck
from minillm.errors import BackendError
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.llama import Llama, LlamaConfig
from minillm.training.optimizer import AdamW

sys.path.insert(0, str(Path(__file__).parent / "autograd"))
from ops import OPS, Case, Op

few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = stand_in.make()
    monkeypatch.setitem(sys.modules, "cupy", module)
    with backend.use("cupy"):
        yield module


def on_device(case: Case) -> dict[str, Any]:
    """The constants of a case, with rotary tables where the model would hold them."""
    return {
        name: backend.asarray(value) if name in ("cos", "sin") else value
        for name, value in case.constants.items()
    }


def run(op: Op, case: Case, constants: dict[str, Any]) -> list[Any]:
    leaves = [Tensor(array, requires_grad=True) for array in case.arrays]
    out = op.ours(*leaves, **constants)
    result = out.numpy().copy()
    out.backward(np.cos(np.arange(out.size, dtype=np.float64)).reshape(out.shape))
    return [result, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@few
@given(data=st.data())
def test_every_operation_runs_on_the_device(op: Op, data: Any, cupy: Any) -> None:
    case = data.draw(op.cases())
    on_gpu = run(op, case, on_device(case))
    with backend.use("numpy"):
        on_cpu = run(op, case, case.constants)
    for gpu, cpu in zip(on_gpu[1:], on_cpu[1:], strict=True):
        assert isinstance(gpu, cupy.ndarray)
        np.testing.assert_allclose(gpu.get(), cpu, 1e-12, 1e-12)
    np.testing.assert_allclose(on_gpu[0], on_cpu[0], 1e-12, 1e-12)


def test_the_table_holds_every_kernel_with_a_reference() -> None:
    """AdamW, the sum of squares and the raw product run in the training step below."""
    names = {op.name for op in OPS} | {"adamw", "sum_squares", "matmul"}
    for found in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"minillm.kernels.{found.name}")
        if hasattr(module, "forward") or hasattr(module, "update"):
            assert found.name in names, f"{found.name} is not in the table of operations"


def test_a_training_step_of_a_whole_model(cupy: Any) -> None:
    gpt = GPTConfig(vocab_size=13, block_size=8, n_layer=2, n_head=2, d_model=8, dropout=0.1)
    llama = LlamaConfig(
        vocab_size=13, block_size=8, n_layer=2, n_head=4, n_kv_head=2, d_model=16, d_ff=24
    )
    ids = np.random.default_rng(1).integers(0, 13, (2, 9))

    def train(config: Any, kind: Any) -> list[np.ndarray]:
        model = kind(config, np.random.default_rng(0))
        optimizer = AdamW(list(model.named_parameters()), lr=0.01)
        for _ in range(3):
            loss = model.loss(ids[:, :-1], ids[:, 1:])
            loss.backward()
            optimizer.step(lr=0.01)
            model.zero_grad()
        logits = model(ids[:, :-1])
        assert isinstance(logits.array, backend.module().ndarray)
        return [backend.to_numpy(p.array) for p in model.parameters()] + [logits.numpy()]

    for config, kind in ((gpt, GPT), (llama, Llama)):
        on_gpu = train(config, kind)
        with backend.use("numpy"):
            on_cpu = train(config, kind)
        for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
            np.testing.assert_allclose(gpu, cpu, 1e-4, 1e-4)


def test_checkpoint_and_gradcheck_on_the_device(cupy: Any) -> None:
    def function(x: Tensor) -> Tensor:
        return checkpoint(lambda a: (a * a).tanh() * a[0], x)

    x = cupy.asarray(np.random.default_rng(0).standard_normal((3, 4)))
    assert gradcheck(function, [x]) < 1e-7


def test_the_stand_in_is_as_strict_as_the_real_one() -> None:
    cupy = stand_in.make()
    device, host = cupy.asarray([1.0, 2.0]), np.ones(2)
    for mix in (
        lambda: device + host,
        lambda: host + device,
        lambda: cupy.exp(host),
        lambda: device[np.array([0])],
        lambda: np.asarray(device),
        lambda: np.exp(device),
        lambda: device.__iadd__(host),
        lambda: cupy.where(device > 0, host, 0),
    ):
        with pytest.raises(TypeError):
            mix()
    for name in ("errstate", "nditer", "frompyfunc", "memmap", "char"):
        assert not hasattr(cupy, name)
    with pytest.raises(AttributeError):
        device.flags.writeable = False
    assert isinstance(device.sum(), cupy.ndarray)


def test_without_cupy_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match=r"pip install 'minillm\[gpu\]'"):
        backend.use("cupy")
