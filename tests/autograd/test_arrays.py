"""What does not fit is refused before a kernel sees it, and what nobody needs is not computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minillm.autograd.functional as F
from minillm import backend
from minillm.autograd import Tensor, arrays
from minillm.errors import InputError
from minillm.kernels import linear, matmul
from minillm.kernels.bfloat16 import BFLOAT16


def ones(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype))


TABLE = np.ones((1, 3, 2), np.float32)
BOUNDS = np.zeros((2, 4), np.int64), np.full((2, 4), 4, np.int64)  # visible keys, B 2, T 4
MISFITS: list[tuple[Callable[[], Any], str]] = [
    (lambda: F.linear(ones(2, 3), ones(4, 5)), r"x is \(2, 3\) and weight \(4, 5\)"),
    (lambda: F.linear(ones(2, 3), ones(3)), r"x is \(2, 3\) and weight \(3,\)"),
    (lambda: F.linear(ones(), ones(4, 1)), r"x is \(\) and weight"),
    (
        lambda: F.linear(ones(2, 3), ones(4, 3), ones(3)),
        r"bias of float32 \(4,\) here, but it is float32 \(3,\)",
    ),
    (lambda: F.linear(ones(2, 3), ones(4, 3), ones(1)), r"here, but it is float32 \(1,\)"),
    (lambda: F.linear_cross_entropy(ones(1, 3), ones(4, 5), [0]), r"x is \(1, 3\) and weight"),
    (lambda: F.embedding(ones(2, 3, 1), [0]), r"weight \(V, C\), but it is \(2, 3, 1\)"),
    (
        lambda: F.layer_norm(ones(2, 3), ones(4)),
        r"x is float32 \(2, 3\) and the weight float32 \(4,\)",
    ),
    (lambda: F.layer_norm(ones(2, 3), ones(3), ones(1)), r"and the bias float32 \(1,\)"),
    (lambda: F.rms_norm(ones(2, 3), ones(2)), r"rms_norm .* the weight float32 \(2,\)"),
    (lambda: F.swiglu(ones(2, 3), ones(2, 1)), r"gate float32 \(2, 3\), up float32 \(2, 1\)"),
    (lambda: F.swiglu(ones(2), ones(2, dtype=np.float64)), "up float64"),
    (lambda: F.rotary(ones(1, 2, 4, 4), TABLE, TABLE), r"\(1, 2, 4, 4\) and a table \(1, 3, 2\)"),
    (
        lambda: F.attention(ones(1, 1, 2, 4), ones(1, 1, 2, 4, dtype=np.float64), ones(1, 1, 2, 4)),
        r"float64 \(1, 1, 2, 4\)",
    ),
    (lambda: F.rotary(ones(1, 2, 3, 5), TABLE, TABLE), r"D even, .* x is \(1, 2, 3, 5\)"),
    (lambda: F.attention(*[ones(4, 1, 4, 2)] * 3, visible=BOUNDS), r"\(4, 4\) or \(1, 4\)"),
    (lambda: F.attention(*[ones(2, 1, 5, 2)] * 3, visible=BOUNDS), r"\(2, 5\) or \(1, 5\)"),
    (lambda: F.self_attention(ones(4, 4, 6), 1, BOUNDS), "4 texts of 4 queries"),
    (lambda: F.self_attention(ones(2, 4, 9), 2, BOUNDS), "C a multiple of 2"),
    (
        lambda: F.feed_forward(ones(1, 2), ones(3, 2), None, ones(2, 3, dtype=np.float64), None),
        r"not float32 \(3, 2\) and float64 \(2, 3\)",
    ),
    (
        lambda: F.feed_forward(ones(1, 2), ones(3, 2), None, ones(2, 3), None, approximate="erf"),
        "'erf'; it is 'none' or 'tanh'",
    ),
    (lambda: F.cross_entropy(ones(2, 3, 5), np.zeros((2, 3), int), np.ones((3, 2))), r"\(3, 2\)"),
    (lambda: F.linear_cross_entropy(ones(2, 3), ones(4, 3), [0, 1], np.ones(1)), r"\(1,\)"),
    (lambda: F.layer_norm(ones(2, 3), ones(3, dtype=np.float64)), r"the weight float64 \(3,\)"),
    (
        lambda: F.linear(ones(2, 3), ones(4, 3, dtype=np.float64)),
        "float32 with a weight of float64",
    ),
    (
        lambda: F.linear(ones(2, 3), ones(4, 3), None, ones(2, 4, dtype=np.float64)),
        r"residual of float32 \(2, 4\) here, but it is float64",
    ),
    (lambda: F.attention(*[ones(1, 0, 2, 4)] * 3), "G and D above 0"),
    (lambda: F.attention(*[ones(1, 1, 2, 0)] * 3), "G and D above 0"),
    (lambda: F.attention(*[ones()] * 3), "attention takes q"),
    (lambda: F.self_attention(ones(2, 4, 0), 1, BOUNDS), r"it is \(2, 4, 0\)"),
    (lambda: F.self_attention(ones(2, 4, 6), 0, BOUNDS), "of 0 heads"),
    (lambda: F.rotary(ones(), TABLE, TABLE), r"x is \(\)"),
    (lambda: F.softmax(ones()), "softmax works along an axis"),
    (lambda: F.log_softmax(ones()), "log_softmax works along an axis"),
    (lambda: F.layer_norm(ones()), "layer_norm works along an axis"),
    (lambda: F.rms_norm(ones(), ones(1)), "rms_norm works along an axis"),
    (lambda: F.cross_entropy(ones(), 0), "cross_entropy works along an axis"),
]

OF_NUMBERS: dict[str, Callable[[Tensor], Any]] = {
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "swiglu": lambda x: F.swiglu(x, x),
    "dropout": lambda x: F.dropout(x, 0.5, np.random.default_rng(0)),
    "layer_norm": F.layer_norm,
    "rms_norm": lambda x: F.rms_norm(x, ones(4)),
    "rotary": lambda x: F.rotary(x.reshape(1, 1, 3, 4), TABLE, TABLE),
    "linear": lambda x: F.linear(x, ones(5, 4)),
    "feed_forward": lambda x: F.feed_forward(x, ones(8, 4), None, ones(4, 8), None),
    "attention": lambda x: F.attention(*[x.reshape(1, 1, 3, 4)] * 3),
    "self_attention": lambda x: F.self_attention(x.reshape(2, 2, 3), 1, BOUNDS),
    "embedding": lambda x: F.embedding(x, [0]),
    "cross_entropy": lambda x: F.cross_entropy(x, [0, 1, 2]),
    "linear_cross_entropy": lambda x: F.linear_cross_entropy(x, ones(5, 4), [0, 1, 2]),
}


@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.bool_, np.complex64])
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_other_types_than_the_kernels_compute_in_are_named(name: str, dtype: Any) -> None:
    with pytest.raises(InputError, match=rf"^{name} takes float32.* this {np.dtype(dtype)} "):
        OF_NUMBERS[name](ones(3, 4, dtype=dtype))


@pytest.mark.parametrize("axis", [0, -1, (0,), np.int64(1), (np.int64(0), 1), None])
def test_axes_may_be_any_whole_numbers(axis: Any) -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    for name in ("sum", "mean", "max"):
        expected = getattr(x.array, name)(axis)
        np.testing.assert_allclose(getattr(x, name)(axis).array, expected, rtol=1e-15)


def test_a_number_may_be_reduced_over_its_first_axis_as_in_numpy() -> None:
    x = Tensor(3.0, requires_grad=True)
    (x.sum(0) + x.mean(0) + x.max(-1)).backward()
    assert x.grad == 3
    with pytest.raises(np.exceptions.AxisError):
        x.sum(axis=1)


def test_a_plain_number_takes_the_dtype_of_a_bfloat16_tensor() -> None:
    x = Tensor(np.ones(3, BFLOAT16))
    assert (x + 1.0).dtype == (2 * x).dtype == BFLOAT16


@pytest.mark.parametrize(("call", "words"), MISFITS)
def test_shapes_that_do_not_fit_are_named(call: Callable[[], Any], words: str) -> None:
    """Compiled kernels trust the shapes: they would read beyond the end of an array."""
    with pytest.raises(InputError, match=words):
        call()


def test_a_weight_at_an_ignored_target_does_not_matter() -> None:
    logits, targets = ones(2, 3), [1, -100]
    loss = F.cross_entropy(logits, targets, np.array([1.0, np.nan]))
    assert loss.item() == F.cross_entropy(logits, targets).item()


@pytest.mark.parametrize("rows", [(0, 0, 1), [0, 0, 1]])
def test_rows_that_an_index_names_twice_get_both_gradients(rows: Any) -> None:
    x = Tensor(np.ones((3, 2)), requires_grad=True)
    x[rows, :].sum().backward()
    assert x.grad[:, 0].tolist() == [2, 1, 0]
    assert x[[]].shape == (0, 2)
    assert x[(range(1, 3), slice(None))].shape == (2, 2)


@pytest.mark.parametrize(("a", "b"), [(0.0, -1.0), (-1.0, 0.5)])
def test_an_exponent_over_no_positive_number_gets_no_gradient(a: float, b: float) -> None:
    dout = np.ones(1)
    with np.errstate(all="ignore"):
        _, db = arrays.power_gradients(dout, np.array([a]), np.array([b]), np.array([a]) ** b)
    assert db.tolist() == [0]


@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize(
    ("operation", "module"), [(F.linear, linear), (lambda a, b: a @ b.T, matmul)]
)
def test_products_for_inputs_that_need_no_gradient_are_not_made(
    operation: Callable, module: Any, frozen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves() -> list[Tensor]:
        rng = np.random.default_rng(0)
        return [Tensor(rng.standard_normal(s), requires_grad=True) for s in ((2, 5, 3), (4, 3))]

    expected, given = leaves(), leaves()
    operation(*expected).sum().backward()
    given[frozen].requires_grad = False
    out = operation(*given)
    name = "product" if backend.fast() or module is matmul else "product_reference"
    products, product = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: products.append(a) or product(*a, **k))
    out.sum().backward()
    assert len(products) == 1
    np.testing.assert_array_equal(given[1 - frozen].grad, expected[1 - frozen].grad)


@pytest.mark.parametrize("kind", [sign + size for sign in "iu" for size in "1248"] + [">i4"])
def test_ids_of_any_integer_type_are_checked(kind: str) -> None:
    most = np.iinfo(kind).max
    for size in (100, 300, 50304, 2**31):
        last = min(size - 1, most)
        ids = arrays.integers(np.array([[0, last]], kind)[:, ::-1])
        arrays.check_range(ids, size, "token")
        assert ids.dtype == np.int64
        assert ids.tolist() == [[last, 0]]
        wrong = [-1] * (np.iinfo(kind).min < 0) + [size] * (size <= most)
        for one in wrong:
            with pytest.raises(InputError, match=f"token id {one}, but"):
                arrays.check_range(arrays.integers(np.array([0, one], kind)), size, "token")
    arrays.check_range(arrays.integers(np.array([], kind)), 1, "token")


def test_ids_that_would_come_out_negative_are_refused() -> None:
    with pytest.raises(InputError, match="one is 18446744073709551516"):
        arrays.integers(np.array([0, 2**64 - 100], np.uint64))  # -100 would be ignored
