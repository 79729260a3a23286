"""Training with bfloat16 products: the curves of float32, and no worse a gradient than they leave.

The same seed gives float32 and bfloat16 the same weights, batches and order. What bfloat16 changes
is then held against what another seed changes. The same is asked of bfloat16 activations.
Two ways of doing it wrong show that the bounds are not idle: weights that are themselves kept in
bfloat16, and sums that are.
"""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from minillm import backend
from minillm.errors import InputError
from minillm.kernels import feed_forward, linear
from minillm.kernels.epilogue import finish_reference
from minillm.models import registry
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.step import accumulate, update

VOCAB, BLOCK, STEPS, SEEDS = 32, 32, 60, range(4)
CONFIG = registry.GPTConfig(VOCAB, BLOCK, n_layer=2, n_head=2, d_model=32)
LLAMA = registry.LlamaConfig(VOCAB, BLOCK, n_layer=2, n_head=2, n_kv_head=2, d_model=32, d_ff=64)


def rounded(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def batch(rng, rows):
    """A text whose next letter follows from the last, but for one time in eight."""
    text = np.zeros((rows, BLOCK + 1), np.int64)
    text[:, 0] = rng.integers(0, VOCAB, rows)
    for t in range(BLOCK):
        text[:, t + 1] = (5 * text[:, t] + 3 + (rng.random(rows) < 1 / 8)) % VOCAB
    return text[:, :-1], text[:, 1:]


# ---------------------------------------------------------------------------------- the curves


def curve(seed, precision, activations="float32", spoil=None):
    """The loss of each step; `spoil` is done to every weight after it."""
    model = registry.build(CONFIG, np.random.default_rng(seed)).train()
    config = TrainConfig(
        steps=STEPS, lr=1e-3, warmup=10, precision=precision, activations=activations
    )
    betas = config.beta1, config.beta2
    optimizer = AdamW(model.named_parameters(), config.lr, betas, config.eps, config.weight_decay)
    rng, losses = np.random.default_rng([seed, 1]), []
    for step in range(STEPS):
        losses.append(update(model, optimizer, batch(rng, 8), step, config).loss)
        for weight in model.parameters() if spoil else ():
            weight.array[...] = spoil(weight.array)
    return np.array(losses).reshape(-1, 10).mean(axis=1)  # of ten steps each


@pytest.fixture(scope="module")
def exact():
    """The curves of float32, one for every seed."""
    return np.array([curve(seed, "float32") for seed in SEEDS])


def drift(exact, *how):
    """How far bfloat16 moves the mean curve, in spreads of single seeds; the worst ten steps."""
    curves = np.array([curve(seed, "bfloat16", *how) for seed in SEEDS])
    assert not np.array_equal(curves, exact)
    return np.max(abs((curves - exact).mean(axis=0)) / exact.std(axis=0, ddof=1))


@pytest.mark.parametrize("activations", backend.PRECISIONS)
def test_the_loss_goes_down_as_in_float32(exact, activations):
    assert np.all(exact[:, -1] < exact[:, 0] - 0.3)
    assert drift(exact, activations) < 0.1


def test_weights_kept_in_bfloat16_would_show_in_the_loss(exact):
    assert drift(exact, "float32", rounded) > 0.5


# -------------------------------------------------------------------------------- the gradient


def gradient(config, *how):
    """That of the whole model and 1,024 tokens."""
    model = registry.build(config, np.random.default_rng(0)).train()
    with backend.precision(*how):
        accumulate(model, batch(np.random.default_rng(1), 32))
    return np.concatenate([p.grad.ravel() for p in model.parameters()])


def gradient_error(*how):
    """|gradient - float32's| / |float32's|."""
    one, other = gradient(CONFIG, "float32"), gradient(CONFIG, *how)
    return np.linalg.norm(other - one) / np.linalg.norm(one)


def summed_in_bfloat16(a, b, bfloat16=False, end=None):
    """A product that rounds its sums as well, after every term."""
    a, b = (rounded(x) if bfloat16 else x for x in (a, b))
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total += a[:, k : k + 1] * b[k]
        total = rounded(total) if bfloat16 else total
    return total if end is None else finish_reference(total, end)


@pytest.mark.parametrize("activations", backend.PRECISIONS)
def test_the_gradient_is_off_by_the_rounding_of_operands(activations):
    assert 0 < gradient_error("bfloat16", activations) < 2**-8


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize(
    "config", [LLAMA, dataclasses.replace(CONFIG, activation="relu")], ids=["llama", "relu"]
)
def test_storing_what_products_round_changes_no_bit(name, config):
    with backend.use(name):
        one, other = (gradient(config, "bfloat16", kept) for kept in backend.PRECISIONS)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("config", [CONFIG, LLAMA], ids=["gpt", "llama"])
def test_recomputed_is_stored_with_bfloat16_activations(config):
    def gradients(recompute):
        model = registry.build(config, np.random.default_rng(0)).train()
        model.recompute = recompute
        with backend.precision("bfloat16", "bfloat16"):
            accumulate(model, batch(np.random.default_rng(1), 4))
        return [p.grad for p in model.parameters()]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)


def test_bfloat16_activations_need_bfloat16_products():
    with pytest.raises(InputError, match="need the precision bfloat16"):
        backend.precision("float32", "bfloat16")
    with pytest.raises(InputError, match="activations is 'int8'"):
        backend.precision("bfloat16", "int8")


def test_sums_in_bfloat16_would_show_in_the_gradient(monkeypatch):
    for module in (linear, feed_forward):
        monkeypatch.setattr(module, "product", summed_in_bfloat16)
    with backend.use("numba"):  # the references have another product
        assert gradient_error("bfloat16") > 2**-7
