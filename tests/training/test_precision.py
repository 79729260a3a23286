"""Training with bfloat16 products: the curves of float32, and no worse a gradient than they leave.

The same seed gives float32 and bfloat16 the same weights, batches and order. What bfloat16 changes
is then held against what another seed changes. Two ways of doing it wrong show that the bounds are
not idle: weights that are themselves kept in bfloat16, and sums that are.
"""

import ml_dtypes
import numpy as np
import pytest

from minillm import backend
from minillm.kernels import feed_forward, linear
from minillm.kernels.epilogue import finish_reference
from minillm.models import registry
from minillm.training.config import TrainConfig
from minillm.training.optimizer import AdamW
from minillm.training.step import accumulate, update

VOCAB, BLOCK, STEPS, SEEDS = 32, 32, 60, range(4)
CONFIG = registry.GPTConfig(VOCAB, BLOCK, n_layer=2, n_head=2, d_model=32)


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


def curve(seed, precision, spoil=None):
    """The loss of each step; `spoil` is done to every weight after it."""
    model = registry.build(CONFIG, np.random.default_rng(seed)).train()
    config = TrainConfig(steps=STEPS, lr=1e-3, warmup=10, precision=precision)
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


def test_the_loss_goes_down_as_in_float32(exact):
    assert np.all(exact[:, -1] < exact[:, 0] - 0.3)
    assert drift(exact) < 0.1


def test_weights_kept_in_bfloat16_would_show_in_the_loss(exact):
    assert drift(exact, rounded) > 0.5


# -------------------------------------------------------------------------------- the gradient


def gradient_error(precision):
    """|gradient - float32's| / |float32's|, of the whole model and 1,024 tokens."""
    gradients, tokens = [], batch(np.random.default_rng(1), 32)
    for each in ("float32", precision):
        model = registry.build(CONFIG, np.random.default_rng(0)).train()
        with backend.precision(each):
            accumulate(model, tokens)
        gradients.append(np.concatenate([p.grad.ravel() for p in model.parameters()]))
    one, other = gradients
    return np.linalg.norm(other - one) / np.linalg.norm(one)


def summed_in_bfloat16(a, b, bfloat16=False, end=None):
    """A product that rounds its sums as well, after every term."""
    a, b = (rounded(x) if bfloat16 else x for x in (a, b))
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total += a[:, k : k + 1] * b[k]
        total = rounded(total) if bfloat16 else total
    return total if end is None else finish_reference(total, end)


def test_the_gradient_is_off_by_the_rounding_of_operands():
    assert 0 < gradient_error("bfloat16") < 2**-8


def test_sums_in_bfloat16_would_show_in_the_gradient(monkeypatch):
    for module in (linear, feed_forward):
        monkeypatch.setattr(module, "product", summed_in_bfloat16)
    with backend.use("numba"):  # the references have another product
        assert gradient_error("bfloat16") > 2**-7
