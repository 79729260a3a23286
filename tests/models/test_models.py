"""What every model must do, whatever its architecture: the laws of caches, padding and packing."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.autograd import no_grad
from minillm.errors import GraphError, InputError
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.llama import Llama, LlamaConfig

V, T = 37, 12
GPTS = {
    "gpt": {},
    "gpt-bare": {"bias": False, "tie_weights": False, "activation": "gelu_tanh", "d_ff": 40},
    "transformer": {"activation": "relu", "norm": "post", "positions": "sinusoidal"},
}
LLAMAS = {
    "llama": {"n_kv_head": 4},
    "llama-grouped": {"n_kv_head": 2, "qk_norm": True, "tie_weights": False},
}
NAMES = [*GPTS, *LLAMAS]


def build(name, dtype=np.float64, seed=0, **changes):
    """A small model whose weights are large enough for its tokens to matter to each other."""
    shape = {"vocab_size": V, "block_size": T, "n_layer": 2, "n_head": 4, "d_model": 32}
    rng = np.random.default_rng(seed)
    if name in GPTS:
        model = GPT(GPTConfig(**shape | GPTS[name] | changes), rng, dtype)
    else:
        model = Llama(LlamaConfig(**shape | {"d_ff": 48} | LLAMAS[name] | changes), rng, dtype)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.array *= 10
    return model


MODELS = {name: build(name) for name in NAMES}
every_model = pytest.mark.parametrize("name", NAMES)


def ids_of(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, V, shape)


def logits(model, ids, **arguments):
    with no_grad():
        return model(ids, **arguments).numpy()


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


# -------------------------------------------------------------------------------- the forward pass


@every_model
def test_shapes_and_dtype(name):
    for dtype in (np.float32, np.float64):
        model = build(name, dtype)
        out = model(ids_of(3, 7))
        assert out.shape == (3, 7, V) and out.dtype == dtype
        assert model.hidden(ids_of(3, 7)).shape == (3, 7, 32)
        assert model.loss(ids_of(3, 7), ids_of(3, 7)).dtype == dtype
    assert logits(model, ids_of(2, 0)).shape == (2, 0, V)


@every_model
def test_the_future_is_invisible(name):
    model, ids = MODELS[name], ids_of(1, T)
    other = ids.copy()
    other[0, 8] = (other[0, 8] + 1) % V
    before, after = logits(model, ids), logits(model, other)
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert (np.abs(before[:, 8:] - after[:, 8:]).max(axis=-1) > 1e-6).all()  # and the past is not


@every_model
def test_loss_is_the_cross_entropy_of_the_logits(name):
    model, ids, targets = MODELS[name], ids_of(2, T), ids_of(2, T, seed=1)
    targets[0, 3] = targets[1, :5] = -100
    weights = np.random.default_rng(2).random((2, T))
    scores = logits(model, ids)
    scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
    kept = targets != -100
    losses = -scores[kept, targets[kept]]
    same(model.loss(ids, targets).item(), losses.mean())
    w = weights[kept]
    same(model.loss(ids, targets, weights).item(), (losses * w).sum() / w.sum())
    same(model.loss(ids, targets, weights, normalizer=7.0).item(), (losses * w).sum() / 7)


@every_model
def test_a_batch_is_its_accumulated_pieces(name):
    model, ids, targets = MODELS[name], ids_of(4, T), ids_of(4, T, seed=1)
    targets[0, 2:] = -100
    count = float((targets != -100).sum())
    model.zero_grad()
    model.loss(ids, targets).backward()
    whole = {path: p.grad for path, p in model.named_parameters()}
    model.zero_grad()
    for rows in (slice(0, 1), slice(1, 4)):
        model.loss(ids[rows], targets[rows], normalizer=count).backward()
    for path, parameter in model.named_parameters():
        same(parameter.grad, whole[path])


@every_model
def test_recomputed_gradients_are_the_stored_ones_to_the_bit(name):
    gradients = []
    for recompute in (False, True):
        model = build(name, np.float32, dropout=0.3)
        model.recompute, model.dropout.rng = recompute, np.random.default_rng(4)
        model.loss(ids_of(2, T), ids_of(2, T, seed=1)).backward()
        gradients.append({path: p.grad for path, p in model.named_parameters()})
    for path, stored in gradients[0].items():
        np.testing.assert_array_equal(stored, gradients[1][path])


# ------------------------------------------------------------------------- cache, padding, packing


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(NAMES), st.lists(st.integers(1, T - 1), max_size=4, unique=True), st.booleans()
)
def test_any_split_of_the_text_through_a_cache_is_the_whole(name, cuts, padded):
    model, ids = MODELS[name], ids_of(3, T)
    real = np.arange(T) >= np.array([[0], [4], [T - 1]])
    whole = logits(model, ids, padding_mask=real if padded else None)
    cache, parts = model.new_cache(3), []
    edges = [0, *sorted(cuts), T]
    for start, stop in itertools.pairwise(edges):
        mask = real[:, start:stop]
        mask = mask if padded and not mask.all() else None
        parts.append(logits(model, ids[:, start:stop], cache=cache, padding_mask=mask))
    pieces = np.concatenate(parts, axis=1)
    same(pieces[real] if padded else pieces, whole[real] if padded else whole)
    assert cache.length == T


@every_model
def test_a_padded_row_is_the_row_alone(name):
    model, lengths = MODELS[name], [T, 5, 1]
    ids = ids_of(3, T)
    left = np.arange(T) >= T - np.array(lengths)[:, None]
    right = left[:, ::-1]
    at_left, at_right = (logits(model, ids, padding_mask=mask) for mask in (left, right))
    for row, length in enumerate(lengths):
        same(at_left[row, -length:], logits(model, ids[row : row + 1, -length:])[0])
        same(at_right[row, :length], logits(model, ids[row : row + 1, :length])[0])


@every_model
def test_packed_documents_are_the_documents_alone(name):
    model, ids = MODELS[name], ids_of(1, T)
    packed = logits(model, ids, documents=np.repeat([3, 1, 2], [4, 7, 1])[None])
    for start, stop in ((0, 4), (4, 11), (11, 12)):
        same(packed[:, start:stop], logits(model, ids[:, start:stop]))
    targets = ids_of(1, T, seed=1)
    apart = sum(model.loss(ids[:, a:b], targets[:, a:b], normalizer=T).item()
                for a, b in ((0, 4), (4, 11), (11, 12)))  # fmt: skip
    same(model.loss(ids, targets, documents=np.repeat([3, 1, 2], [4, 7, 1])[None]).item(), apart)


@every_model
def test_kept_rows_of_a_cache_go_on_as_before(name):
    model, ids = MODELS[name], ids_of(3, T)
    real = np.arange(6) >= np.array([[0], [2], [5]])
    cache = model.new_cache(3)
    logits(model, ids[:, :6], cache=cache, padding_mask=real)
    cache.keep_rows([2, 0])
    kept = logits(model, ids[[2, 0], 6:], cache=cache)
    same(kept[0], logits(model, ids[2:, 5:])[0, 1:])
    same(kept[1], logits(model, ids[:1])[0, 6:])


def test_a_cache_refuses_gradients():
    model = MODELS["llama"]
    with pytest.raises(GraphError, match="inside no_grad"):
        model(ids_of(1, 3), cache=model.new_cache(1))


# -------------------------------------------------------------------------------- making a model


def test_initialisation_is_gpt2s():
    model = GPT(GPTConfig(500, 64, n_layer=8, n_head=4, d_model=128), np.random.default_rng(0))
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            assert abs(parameter.array.std() / (0.02 / 4) - 1) < 0.05, name
        elif parameter.ndim == 2:
            assert abs(parameter.array.std() / 0.02 - 1) < 0.05, name
        else:
            assert (parameter.array == (not name.endswith("bias"))).all(), name


def test_the_same_seed_gives_the_same_model_in_every_dtype():
    for name in NAMES:
        narrow, wide = build(name, np.float32, seed=3), build(name, np.float64, seed=3)
        for a, b in zip(narrow.parameters(), wide.parameters(), strict=True):
            np.testing.assert_allclose(a.array, b.array, rtol=1e-6)


def test_sinusoids_turn_by_the_same_angle_everywhere():
    table = build("transformer").sinusoids.numpy()  # (T, C)
    assert table.shape == (T, 32) and (table[0, ::2] == 0).all() and (table[0, 1::2] == 1).all()
    waves = table[:, ::2] + 1j * table[:, 1::2]
    turns = waves[1:] / waves[:-1]
    np.testing.assert_allclose(turns, np.broadcast_to(turns[0], turns.shape), atol=1e-6)


@every_model
def test_flops_count_every_multiplied_weight(name):
    model = MODELS[name]
    matrices = sum(p.size for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n)
    head = V * 32 if model.config.tie_weights else 0
    small = sum(p.size for n, p in model.named_parameters() if p.ndim == 1)
    attention = 12 * 2 * 32 * 10
    assert model.flops_per_token(10) == 6 * (matrices + head + small) + attention


@every_model
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.1}])
@pytest.mark.parametrize("activations", backend.PRECISIONS)
def test_memory_estimate_is_what_a_forward_pass_leaves(name, changes, activations):
    """Measured on the references, all of whose memory NumPy reports."""
    model = build(name, np.float32, block_size=64, d_model=128, n_layer=6, **changes)
    ids = ids_of(8, 64)
    with backend.use("numpy"), backend.precision("bfloat16", activations):
        tracemalloc.start()
        try:
            loss = model.loss(ids, ids)
            left = tracemalloc.get_traced_memory()[0] - model.output_weight.array.nbytes
        finally:
            tracemalloc.stop()
    estimate = model.memory_estimate(8, 64, activations)
    assert loss.requires_grad and abs(left / estimate.activations - 1) < 0.09
    assert estimate.total - estimate.activations == 16 * model.num_parameters()
    model.recompute = True
    assert model.memory_estimate(8, 64, activations).activations < estimate.activations / 2


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(ids_of(1, T + 1)), f"sequence of length {T + 1}, but block_size is {T}"),
        (lambda m: m(np.array([[3, V]])), f"token id {V} is out of range; vocab_size is {V}"),
        (lambda m: m(np.array([[3, -1]])), f"token id -1 is out of range; vocab_size is {V}"),
        (lambda m: m(np.array([3, 4])), "ids of shape (2,) and type int64; they are whole numbers"),
        (lambda m: m(np.array([[0.5]])), "ids of shape (1, 1) and type float64"),
        (lambda m: m.loss(ids_of(1, 3), ids_of(1, 4)), "targets of shape (1, 4) for ids of shape"),
        (lambda m: m.loss(ids_of(1, 1), np.array([[V]])), f"target id {V}, but the vocabulary"),
        (lambda m: m.loss(ids_of(1, 1), np.array([[-1]])), "target id -1, but the vocabulary"),
        (lambda m: m(ids_of(2, 3), cache=m.new_cache(1)), "2 rows of ids for a cache of 1 rows"),
        (lambda m: m(ids_of(1, 3), cache=m.new_cache(1, 2)), "3 more positions for a cache that"),
        (
            lambda m: m(ids_of(1, 3), padding_mask=np.ones((1, 2))),
            "padding_mask of shape (1, 2) for ids of shape (1, 3)",
        ),
        (
            lambda m: m.loss(ids_of(2, 3), ids_of(2, 3), weights=np.ones((1, 6))),
            "weights of shape (1, 6) for targets of shape (2, 3)",
        ),
        (
            lambda m: m(ids_of(1, 3), padding_mask=[[1, 0, 1]]),
            "padding_mask has padding between real tokens in row 0",
        ),
        (
            lambda m: m(ids_of(1, 3), cache=m.new_cache(1), padding_mask=[[1, 1, 0]]),
            "row 0 has padding after its first token; with a cache, pad on the left",
        ),
        (
            lambda m: m(ids_of(1, 3), documents=np.zeros((1, 2))),
            "documents of shape (1, 2) for ids of shape (1, 3)",
        ),
        (
            lambda m: m(ids_of(1, 3), documents=np.zeros((1, 3)), padding_mask=[[0, 1, 1]]),
            "packed documents take neither a cache nor a padding mask",
        ),
    ],
)
def test_mistakes_are_one_clear_line(call, message):
    with no_grad(), pytest.raises(InputError) as error:
        call(MODELS["gpt"])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_weights_says_so():
    model = GPT(GPTConfig(V, T, 1, 1, 8))
    with pytest.raises(InputError, match=r"this GPT has no weights yet; give GPT\(config, rng\)"):
        model(ids_of(1, 2))


def test_a_failed_call_leaves_the_cache_as_it_was():
    model, ids = MODELS["gpt"], ids_of(1, 4)
    cache, mask = model.new_cache(1), [[0, 1, 1, 1]]
    with no_grad(), pytest.raises(InputError):
        model(np.full((1, 4), V), cache=cache, padding_mask=mask)
    same(logits(model, ids, cache=cache, padding_mask=mask), logits(model, ids, padding_mask=mask))


@every_model
def test_a_pass_that_stops_half_way_counts_no_padding(name):
    model, ids = MODELS[name], ids_of(2, 8)
    cache, real = model.new_cache(2), np.arange(8) >= np.array([[3], [0]])
    parts = []
    for columns in (slice(0, 2), slice(2, 8)):
        with pytest.raises(GraphError):
            model(ids[:, columns], cache, real[:, columns])
        parts.append(logits(model, ids[:, columns], cache=cache, padding_mask=real[:, columns]))
    pieces = np.concatenate(parts, axis=1)
    same(pieces[real], logits(model, ids, padding_mask=real)[real])
    assert (cache.length, cache.padding.tolist()) == (8, [3, 0])


def test_a_pass_without_padding_after_one_with_it_that_stopped():
    model, ids = MODELS["gpt"], ids_of(1, 4)
    cache = model.new_cache(1)
    with pytest.raises(GraphError):
        model(ids, cache, [[0, 0, 1, 1]])
    same(logits(model, ids, cache=cache), logits(model, ids))
